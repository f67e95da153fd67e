"""A made person large enough for MediaPipe, with the truth about them."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from xdyna.data.synthetic import SyntheticBatch, make_batch


@cache
def person() -> tuple[np.ndarray, SyntheticBatch]:
    """(20 256 256 3) uint8 frames of a person, and all about them (index 0 of the batch is left out of the frames)."""
    batch = make_batch(8, 1, frames=20, size=(256, 256), human_share=1, maps=False)
    frames = (batch.frames[0, 1:] * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return frames, batch


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boolean masks."""
    return float((a & b).sum() / max((a | b).sum(), 1))
