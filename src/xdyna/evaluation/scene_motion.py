"""How much a scene moves, and how much it flickers, where no person is.

What a generated clip changes from frame to frame, compared with the true one: a scene that moves less is frozen, a
still wall that moves at all is a fault, and what jumps to and fro flickers.
"""

from __future__ import annotations

import torch
from torch.nn import functional

MARGIN = 1 / 32
"""Share of the picture's shorter side round the person that is no background: outlines are soft, pictures come in
compressed blocks of 8 pixels, and a person a pixel off is no moving wall."""


def background(mask: torch.Tensor, margin: float = MARGIN) -> torch.Tensor:
    """Where no person is, nor within `margin` of one.

    Args:
        mask: (n f 1 h w) in [0, 1], of the **true** person.
        margin: as a share of the picture's shorter side.

    Returns:
        (n f 1 h w) of 0 and 1.
    """
    there = (mask >= 0.01).float()
    reach = round(margin * min(mask.shape[-2:]))
    if reach:
        # A square's maximum is its columns' of its rows'.
        flat = functional.max_pool2d(there.flatten(0, 1), (2 * reach + 1, 1), 1, (reach, 0))
        flat = functional.max_pool2d(flat, (1, 2 * reach + 1), 1, (0, reach))
        there = flat.unflatten(0, there.shape[:2])
    return 1 - there


def background_motion(video: torch.Tensor, mask: torch.Tensor, *, margin: float = 0.0) -> torch.Tensor:
    """Mean absolute change from frame to frame where no person is, in 0..255.

    Args:
        video: (n f 3 h w) in [0, 1].
        mask: (n f 1 h w) of the **true** person.
        margin: how far round the person nothing counts either, as a share of the picture's shorter side.

    Returns:
        (n,); NaN for a clip without background, or of one frame.
    """
    return motion_where(video, background(mask, margin))


def motion_where(video: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Mean absolute change from frame to frame, in 0..255.

    Args:
        video: (n f 3 h w) in [0, 1].
        where: (n f 1 h w) of 0 and 1; a pixel counts where it is 1 in both frames.

    Returns:
        (n,); NaN where nothing counts, or with one frame.
    """
    return _average(video.diff(dim=1).abs(), where[:, 1:] * where[:, :-1])


def flicker(video: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Mean of |v(t+1) - 2 v(t) + v(t-1)| / 2, in 0..255: what jumps to and fro; steady change does not count.

    Args:
        video: (n f 3 h w) in [0, 1].
        where: (n f 1 h w) of 0 and 1; a pixel counts where it is 1 in all three frames.

    Returns:
        (n,); NaN where nothing counts, or with less than three frames.
    """
    return _average(video.diff(n=2, dim=1).abs() / 2, where[:, 2:] * where[:, 1:-1] * where[:, :-2])


def _average(change: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """(n f 3 h w) where (n f 1 h w) is 1, as a mean (n,) on the scale 0..255; NaN where it is nowhere."""
    covered = change.shape[2] * where.sum((1, 2, 3, 4))
    total = (change * where).sum((1, 2, 3, 4))
    return torch.where(covered > 0, 255 * total / covered.clamp(min=1), torch.nan)
