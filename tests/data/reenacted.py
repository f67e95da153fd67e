"""What the tests of face sources share: a few people of the synthetic world, one moving, the others at rest."""

from __future__ import annotations

from functools import cache

import numpy as np

from xdyna.data.reenact import Gallery, synthetic_gallery
from xdyna.data.synthetic import make_batch


@cache
def people() -> Gallery:
    return synthetic_gallery(5, size=256)


@cache
def clips(count: int = 4, frames: int = 16, size: int = 160) -> list[tuple[np.ndarray, np.ndarray]]:
    """Frames (f h w 3) uint8 and exact landmarks (f 68 3) of people talking, blinking and turning."""
    batch = make_batch(72, count, frames=frames - 1, size=(size, size), human_share=1.0, maps=False)
    frames_ = (batch.frames.permute(0, 1, 3, 4, 2).numpy() * 255 + 0.5).astype(np.uint8)
    return [(frames_[i], batch.face[i].numpy()) for i in range(count)]
