"""What every detector returns: the people in a frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from xdyna.conditions.keypoints import PARTS, Keypoints


@dataclass(frozen=True)
class Person:
    """One person in one frame.

    Attributes:
        keypoints: a clip of one frame; pixels of the frame, (0, 0) its top left corner.
        box: left, top, right, bottom round the points that are there.
        mask: (h w) uint8, 255 on the person; only from detectors asked for masks.
    """

    keypoints: Keypoints
    box: tuple[float, float, float, float]
    mask: np.ndarray | None = None


class Detector(Protocol):
    """Anything that finds people in pictures."""

    def stream(self, frames: Iterable[np.ndarray]) -> Iterator[list[Person]]:
        """Everybody in each frame of a clip, (h w 3) uint8 RGB, in order; an empty list where nobody is."""
        ...


def box_of(keypoints: Keypoints, *, min_score: float = 0.3) -> tuple[float, float, float, float] | None:
    """The box round the points of a one-frame clip that score at least `min_score`; None when fewer than two."""
    points = np.concatenate([getattr(keypoints, name)[0] for name in PARTS])
    seen = points[points[:, 2] >= min_score, :2]
    if len(seen) < 2:
        return None
    (left, top), (right, bottom) = seen.min(0), seen.max(0)
    return float(left), float(top), float(right), float(bottom)


def overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return common / max(areas - common, 1e-9)
