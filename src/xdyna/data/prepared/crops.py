"""Which part of a video's frames a sample shows: one box for pictures, pose, face and mask."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from xdyna.conditions.keypoints import PARTS, Keypoints


@dataclass(frozen=True)
class Crop:
    """A box of a frame, and the size it is brought to.

    Attributes:
        left, top, width, height: whole pixels of the frame.
        size: (height, width) of the result.
    """

    left: int
    top: int
    width: int
    height: int
    size: tuple[int, int]

    def pictures(self, frames: np.ndarray) -> np.ndarray:
        """(f h w ...) uint8 cut and resized to (f size ...)."""
        cut = frames[:, self.top : self.top + self.height, self.left : self.left + self.width]
        if cut.shape[1:3] == self.size:
            return np.ascontiguousarray(cut)
        method = cv2.INTER_AREA if self.height > self.size[0] else cv2.INTER_LINEAR
        resized = np.empty((len(cut), *self.size, *cut.shape[3:]), np.uint8)
        for place, picture in enumerate(cut):
            cv2.resize(picture, (self.size[1], self.size[0]), dst=resized[place], interpolation=method)
        return resized

    def matrix(self) -> np.ndarray:
        """(2 3): pixels of the frame to pixels of the result, both counted from the corner."""
        x, y = self.size[1] / self.width, self.size[0] / self.height
        return np.array([[x, 0, -self.left * x], [0, y, -self.top * y]], np.float32)


def person_box(keypoints: Keypoints) -> tuple[float, float, float, float] | None:
    """left, top, right, bottom of all points over all frames, inside the frame; None when there are none."""
    height, width = keypoints.size
    points = np.concatenate([getattr(keypoints, name).reshape(-1, 3) for name in PARTS])
    seen = points[points[:, 2] > 0, :2]
    if not len(seen):
        return None
    low = np.clip(seen.min(0), 0, (width, height))
    high = np.clip(seen.max(0), 0, (width, height))
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def choose_crop(
    frame: tuple[int, int],
    size: tuple[int, int],
    *,
    zoom: float,
    keep: tuple[float, float, float, float] | None,
    generator: np.random.Generator,
    middle: float | None = None,
) -> Crop:
    """A box of the wanted aspect.

    Args:
        frame: (height, width) of the video.
        size: (height, width) of the result.
        zoom: 1 takes the largest box that fits, 2 one half as wide.
        keep: left, top, right, bottom of what should stay in sight. If it is too high its upper end does, where the
            head is; if it is too wide, its `middle`. None: anywhere.
        generator: chooses the place among those that fit.
        middle: x of what matters most in `keep`, the head; None takes the middle of `keep`.
    """
    height, width = frame
    scale = min(width / size[1], height / size[0]) / zoom
    wide = max(1, min(width, round(size[1] * scale)))
    high = max(1, min(height, round(size[0] * scale)))
    margin = 0.04 * high
    across = down = None
    if keep is not None:
        centre = (keep[0] + keep[2]) / 2 if middle is None else middle
        across = _beginnings(wide, keep[0] - margin, keep[2] + margin, otherwise=centre - wide / 2)
        down = _beginnings(high, keep[1] - margin, keep[3] + margin, otherwise=keep[1] - margin)
    left, top = _chosen(across, width - wide, generator), _chosen(down, height - high, generator)
    return Crop(left, top, wide, high, size)


def _beginnings(length: int, first: float, last: float, *, otherwise: float) -> tuple[float, float]:
    """Least and largest beginning of a stretch of `length` that covers first to last."""
    low, high = last - length, first
    return (low, high) if low <= high else (otherwise, otherwise)


def _chosen(span: tuple[float, float] | None, most: int, generator: np.random.Generator) -> int:
    """A whole number from 0 to `most`, in `span` as far as that reaches there."""
    low, high = (0.0, float(most)) if span is None else (min(max(n, 0.0), float(most)) for n in span)
    return round(low + (high - low) * generator.random())
