"""The camera: still in most clips; in some it pans or zooms slowly, by known amounts."""

from __future__ import annotations

from torch import Tensor

from xdyna.data.synthetic.draws import TAU, Draws, Params

MOVING_SHARE = 0.08
"""Share of clips whose camera moves."""


def sample_camera(draws: Draws) -> Params:
    """Draw cameras: `moves` is 1 where the camera moves at all."""
    return {
        "moves": draws.chance(MOVING_SHARE),
        "zoom": draws.uniform(-0.06, 0.06),
        "pan": draws.uniform(-0.05, 0.05, 2),
        "rate": draws.uniform(0.05, 0.2),
        "phase": draws.uniform(0, TAU, 3),
    }


def camera_at(camera: Params, times: Tensor) -> tuple[Tensor, Tensor]:
    """Zoom (b n) and pan (b n 2) in frame heights at some moments (b n) in seconds.

    A point p of the world is seen at (p - middle) * zoom + middle + pan.
    """
    moves = camera["moves"][:, None]
    turn = times * camera["rate"][:, None] * TAU
    zoom = (moves * camera["zoom"][:, None] * (turn + camera["phase"][:, :1]).sin()).exp()
    waves = (turn[..., None] + camera["phase"][:, None, 1:]).sin()
    return zoom, moves[..., None] * camera["pan"][:, None] * waves
