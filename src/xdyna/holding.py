"""Of a run's clip, what stands still becomes the picture (`sampling.still`): in its latents, then in its frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xdyna.runs import Prepared
from xdyna.sampling import Still, decode_latents, find_still


def hold_still(prepared: Prepared, latents: Tensor, reference: Tensor) -> tuple[Tensor, Still | None]:
    """Clean latents as the options want them, and what of them stands still.

    Where a ready pose video tells the poses, nobody knows where the person is, and all stays as it is.

    Args:
        prepared: the inputs.
        latents: (1 c f h w) of the clip.
        reference: (1 c h w) the picture's.
    """
    driven, own = prepared.conditions.keypoints, prepared.conditions.own
    if not prepared.options.hold_still or driven is None:
        return latents, None
    own_body = None if own is None else torch.from_numpy(own.body[0])
    still = find_still(
        latents, reference, torch.from_numpy(driven.body), own_body, size=prepared.conditions.size
    )
    return still.hold(latents), still


def held_frames(
    pipeline: Any, prepared: Prepared, frames: Iterator[np.ndarray], still: Still | None
) -> Iterator[np.ndarray]:
    """Decoded frames (h w 3) uint8 with the background where they stand still."""
    if still is None:
        yield from frames
        return
    with pipeline.loaded("vae"):
        decoded = decode_latents(pipeline.vae, still.plate[None])[0]
    background = still.background(prepared.reference, decoded)
    for index, frame in enumerate(frames):
        yield still.put_into(frame, background, index)
