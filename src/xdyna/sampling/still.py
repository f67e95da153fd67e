"""What stands still is held still: where a clip only shimmers about the picture, it becomes the picture.

A denoiser makes every frame anew, so walls shimmer by a grey level or two, and a pattern on them comes out a little
wrong. Where the scene lives, the clip is far from the picture, all the time or now and then; where nothing moves it
it stays near, and the two are told apart easily (docs/concepts/scenes.md). There the picture's own latents, and
where the person stood in it the clip's mean, take the clip's place. The person is left alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from xdyna.models.warping import PARTS, nearness

STILL, ALIVE = 0.08, 0.2
"""Mean squared distance from the picture, in scaled latents, up to which a place stands still and from which it lives.
Of still walls 95 % lie below .04, of water, fire and crowds 95 % above .05."""
MOMENT = 2.0
"""A single frame may be so many times further away: what passes by is not still while it does."""
HEAD, BODY = 1.1, 0.8
"""How far from head and body nothing is held, in the reaches of their parts (`models.warping`). A face changes by
less than a wall shimmers, so it has a wide berth; what else of a person sticks out moves, or may stand still."""
LEAST = 3
"""Frames in which a place must be free of the person to be known."""


def hold_still(
    latents: Tensor, reference: Tensor, body: Tensor, own: Tensor | None, *, size: tuple[int, int]
) -> Tensor:
    """Replace what stands still.

    Args:
        latents: (1 c f h w) clean latents of the clip.
        reference: (1 c h w) the picture's.
        body: (f 18 3) the driven person's points: x, y in pixels and a score.
        own: (18 3) the reference person's; None if they are not known. Then what the person hid is left as it is.
        size: (height, width) in pixels of the pictures that the points lie in.

    Returns:
        (1 c f h w), dtype and device of `latents`.
    """
    cells = (latents.shape[-2], latents.shape[-1])
    clip, picture = latents[0].float(), reference[0].float()
    free = _free(body.to(clip.device), size, cells).float()
    seen = free.sum(0)
    plate = picture
    if own is not None:
        hidden = ~_free(own[None].to(clip.device), size, cells)[0]
        mean = (clip * free).sum(1) / seen.clamp(min=1)
        plate = torch.where(hidden, mean, picture)
    # frame by frame: the clip is the longest tensor there is
    away = torch.stack([(frame - plate).square().mean(0) for frame in clip.unbind(1)])
    near = _smooth(away * free) / _smooth(free).clamp(min=1e-3)
    always = (near * free).sum(0) / seen.clamp(min=1)
    share = _still(always, 1.0) * (seen >= LEAST) * _still(_lately(near), MOMENT) * free
    return torch.lerp(clip, plate.unsqueeze(1).expand_as(clip), share).to(latents.dtype).unsqueeze(0)


def _free(body: Tensor, size: tuple[int, int], cells: tuple[int, int]) -> Tensor:
    """(f h w) bool: where no body is."""
    head, rest = (nearness(body, size=size, cells=cells, parts=parts) for parts in (PARTS[:1], PARTS[1:]))
    return (head > HEAD) & (rest > BODY)


def _still(away: Tensor, factor: float) -> Tensor:
    """1 where so far away is still, 0 where it is alive."""
    return ((factor * ALIVE - away) / (factor * (ALIVE - STILL))).clamp(0, 1)


def _smooth(values: Tensor) -> Tensor:
    """Means (f h w) over 3 x 3 cells."""
    return F.avg_pool2d(F.pad(values.unsqueeze(1), (1, 1, 1, 1), mode="replicate"), 3, 1)[:, 0]


def _lately(values: Tensor) -> Tensor:
    """The largest (f h w) of a frame and its neighbours."""
    return F.max_pool3d(values[None], (3, 1, 1), 1, (1, 0, 0))[0]
