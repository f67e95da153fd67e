"""The camera: still in most clips; in some it pans, zooms and rolls slowly or shakes in a hand, by known amounts."""

from __future__ import annotations

import torch
from torch import Tensor

from xdyna.data.synthetic.draws import TAU, Draws, Params

MOVING_SHARE = 0.08
"""Share of clips whose camera moves, where nothing else is asked for."""

_SHAKE_RATES = (0.7, 2.9)  # 1/s, of the hand's slow sway and its tremor
_TREMOR = 0.35  # of the sway's amplitude


def sample_camera(draws: Draws, share: float = MOVING_SHARE) -> Params:
    """Draw cameras: `moves` is 1 where the camera moves at all.

    What moves drifts (pan, zoom and roll, each by an amount and at a pace of its own); two in five shake
    in a hand.
    """
    uniform = draws.uniform
    moves = draws.chance(share)
    kinds = torch.stack([draws.chance(p) for p in (0.7, 0.6, 0.45, 0.4)], 1)
    # Whoever moves does something.
    kinds[:, 0] = torch.maximum(kinds[:, 0], (kinds.sum(1) == 0).float())
    kinds = kinds * moves[:, None]
    # Slower moves may go further: the frames change alike.
    rate = uniform(0.03, 0.2, 4)
    reach = (0.1 / rate).clamp(max=1.6)
    return {
        "moves": moves,
        "pan": kinds[:, :1] * reach[:, :2] * uniform(-0.06, 0.06, 2),
        "zoom": kinds[:, 1] * reach[:, 2] * uniform(-0.08, 0.08),
        "roll": kinds[:, 2] * reach[:, 3] * uniform(-0.05, 0.05),
        "shake": kinds[:, 3] * uniform(0.0015, 0.006),
        "rate": rate,
        "phase": uniform(0, TAU, 4),
        "shake_rate": torch.stack(
            [uniform(rate * 0.75, rate * 1.25, 3) for rate in _SHAKE_RATES], -1
        ),
        "shake_phase": uniform(0, TAU, 3, 2),
    }  # fmt: skip


def camera_at(camera: Params, times: Tensor) -> Tensor:
    """Zoom, pan to the right and down, and roll (b n 4) at some moments (b n) in seconds.

    A point p of the world is seen at turn(roll) (p - middle) * zoom + middle + pan; lengths in frame heights, the roll
    in radians, positive clockwise as seen.
    """
    slow = (times[..., None] * camera["rate"][:, None] * TAU + camera["phase"][:, None]).sin()
    fast = times[..., None, None] * camera["shake_rate"][:, None] * TAU + camera["shake_phase"][:, None]
    hand = fast.sin()
    hand = (hand[..., 0] + _TREMOR * hand[..., 1]) * camera["shake"][:, None, None]
    zoom = (camera["zoom"][:, None] * slow[..., 2]).exp()
    # A hand turns the camera less than it moves it; 0.6 is the frame's half diagonal.
    roll = camera["roll"][:, None] * slow[..., 3] + 0.6 * hand[..., 2]
    pan = camera["pan"][:, None] * slow[..., :2] + hand[..., :2]
    return torch.cat([zoom[..., None], pan, roll[..., None]], -1)


def project(points: Tensor, view: Tensor, middle: Tensor) -> Tensor:
    """Points of the world (n ... 2) as a camera sees them.

    Args:
        view: (n 4) of `camera_at`.
        middle: (2,) the frame's middle.
    """
    shape = (-1,) + (1,) * (points.dim() - 2)
    zoom, cos, sin = (part.view(shape) for part in (view[:, 0], view[:, 3].cos(), view[:, 3].sin()))
    x, y = (points - middle).unbind(-1)
    pan = view[:, 1:3].view(*shape, 2)
    return torch.stack([(x * cos - y * sin) * zoom, (x * sin + y * cos) * zoom], -1) + middle + pan


def unproject(x: Tensor, y: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
    """Where in the world the pixels (x, y), measured from the frame's middle, look: the inverse of `project`.

    Args:
        x, y: (1 1 h w) or (b n h w).
        view: (b n 4).
    """
    zoom, cos, sin = (
        part[:, :, None, None] for part in (view[..., 0], view[..., 3].cos(), view[..., 3].sin())
    )
    x, y = (x - view[:, :, 1, None, None]) / zoom, (y - view[:, :, 2, None, None]) / zoom
    return x * cos + y * sin, y * cos - x * sin
