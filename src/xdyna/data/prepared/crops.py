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
) -> Crop:
    """A box of the wanted aspect.

    Args:
        frame: (height, width) of the video.
        size: (height, width) of the result.
        zoom: 1 takes the largest box that fits, 2 one half as wide.
        keep: left, top, right, bottom of what should stay in sight. Where it does not fit, its upper end (where
            the head is) and its middle do. None: anywhere.
        generator: chooses the place among those that fit.
    """
    height, width = frame
    scale = min(width / size[1], height / size[0]) / zoom
    wide = max(1, min(width, round(size[1] * scale)))
    high = max(1, min(height, round(size[0] * scale)))
    margin = 0.04 * high
    left = _begin(wide, width, None if keep is None else (keep[0], keep[2]), margin, generator, centred=True)
    top = _begin(high, height, None if keep is None else (keep[1], keep[3]), margin, generator, centred=False)
    return Crop(left, top, wide, high, size)


def _begin(
    length: int,
    whole: int,
    keep: tuple[float, float] | None,
    margin: float,
    generator: np.random.Generator,
    *,
    centred: bool,
) -> int:
    """Where a stretch of `length` within `whole` begins, with `keep` and a margin in it if possible."""
    low, high = 0.0, float(whole - length)
    if keep is not None:
        first, last = keep[1] + margin - length, keep[0] - margin
        if first > last:  # does not fit
            first = last = (keep[0] + keep[1] - length) / 2 if centred else last
        low, high = float(np.clip(first, low, high)), float(np.clip(last, low, high))
    return round(low + (high - low) * generator.random())
