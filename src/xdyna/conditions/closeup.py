"""The head's close-up: where it is cut from in every frame, and how it is put back.

A head of two dozen pixels has no room for a face in the latents, which are eight times smaller. So it is made twice:
with the whole picture, and by itself in a square window that follows it, enlarged to a size at which the model knows
faces. What comes out is brought back to the window's size and laid over the whole picture's head.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from xdyna.conditions.heads import head_disc
from xdyna.conditions.keypoints import Keypoints

REACH = 4.8
"""Sides of the window, in half heights of the head: chosen by measurement (docs/embedded-model.md)."""
SMALLEST = 4.0
"""Half height, in pixels of the result, below which a head is a few dots whatever is painted there."""
NOISE = 5000
"""Added to a run's seed: the close-up has noise of its own."""
SMOOTHING = 5
"""Frames over which the window's way is averaged."""
STEADY = 49
"""Frames over which the window's side is the median: a head that nods does not zoom."""
MOST_ALIKE = 1.5
"""Sizes of the reference's head and the driven ones that differ by less are taken for the same."""
INNER, OUTER = 1.2, 1.7
"""Up to the first distance from the head's middle, in half heights, the close-up covers; from the second on nothing."""


@dataclass(frozen=True)
class CloseUp:
    """The way of a clip's close-up.

    Attributes:
        boxes: (f 3) int64: left, top and side of the window in every frame, in pixels of the canvas.
        reference: left, top and side of the window in the reference picture, likewise.
        heads: (f 3) float32: the head's middle (x, y) and half its height.
        weights: (f) float32 in [0, 1]: how far the close-up counts; 0 where no head was found.
        side: of the close-up itself, in pixels.
    """

    boxes: np.ndarray
    reference: tuple[float, float, float]
    heads: np.ndarray
    weights: np.ndarray
    side: int

    def matrices(self) -> np.ndarray:
        """(f 2 3) float64: pixels of the canvas to those of the close-up."""
        return np.stack([self._matrix(*box) for box in self.boxes.tolist()])

    def reference_matrix(self) -> np.ndarray:
        """(2 3) float64: pixels of the reference on the canvas to those of its close-up."""
        return self._matrix(*self.reference)

    def put_back(self, frame: np.ndarray, near: np.ndarray, index: int) -> np.ndarray:
        """A frame with its head replaced.

        Args:
            frame: (h w 3) uint8, the result of the whole picture.
            near: (side side 3) uint8, the result of the close-up.
            index: of the frame.

        Returns:
            (h w 3) uint8, `frame` itself where nothing is replaced.
        """
        weight = float(self.weights[index])
        if not weight:
            return frame
        left, top, side = self.boxes[index].tolist()
        small = cv2.resize(near, (side, side), interpolation=cv2.INTER_AREA)
        x, y, half = self.heads[index].tolist()
        line = np.arange(side, dtype=np.float32) + 0.5
        away = np.hypot(line + (left - x), (line + (top - y))[:, None]) / half
        cover = weight * np.clip((OUTER - away) / (OUTER - INNER), 0, 1)[..., None]
        place = (slice(top, top + side), slice(left, left + side))
        mixed = frame.copy()
        mixed[place] = np.rint(frame[place] + (small.astype(np.float32) - frame[place]) * cover).astype(
            np.uint8
        )
        return mixed

    def _matrix(self, left: float, top: float, side: float) -> np.ndarray:
        scale = self.side / side
        return np.array([[scale, 0, -left * scale], [0, scale, -top * scale]], np.float64)


def plan_close_up(driven: Keypoints, own: Keypoints, *, side: int) -> CloseUp | None:
    """Where the head's close-up is cut from.

    Args:
        driven: of the driven frames, on the canvas.
        own: the reference person's, on the same canvas; frame 0 is read.
        side: of the close-up, in pixels.

    Returns:
        None where no head is known, in the reference or in any frame, or where it is large enough as it is, or
        too small for a face.
    """
    height, width = driven.size
    heads, at = head_disc(driven.face, driven.body), head_disc(own.face[:1], own.body[:1])[0]
    found = (
        (heads[:, 2] > 0)
        & (heads[:, 0] > 0)
        & (heads[:, 0] < width)
        & (heads[:, 1] > 0)
        & (heads[:, 1] < height)
    )
    if not found.any() or at[2] <= 0:
        return None
    half = float(np.median(heads[found, 2]))
    if half < SMALLEST or REACH * half > min(height, width, side):
        return None
    moments, seen = np.arange(len(heads)), np.flatnonzero(found)
    heads = np.stack([np.interp(moments, seen, heads[seen, part]) for part in range(3)], 1)
    steady = np.array([np.median(heads[max(0, i - STEADY // 2) : i + STEADY // 2 + 1, 2]) for i in moments])
    sides = np.clip(np.rint(REACH * steady), 2, min(height, width))
    corners = np.stack([_averaged(heads[:, part], SMOOTHING) for part in (0, 1)], 1) - sides[:, None] / 2
    corners = np.clip(np.rint(corners), 0, np.array([width, height]) - sides[:, None])
    # One scale for both: a head's size is read with an error of its own from each pose of it.
    alike = 1 / MOST_ALIKE < at[2] / half < MOST_ALIKE
    span = float(np.clip(REACH * (half if alike else at[2]), 2, min(height, width)))
    left, top = (float(np.clip(at[i] - span / 2, 0, (width, height)[i] - span)) for i in (0, 1))
    return CloseUp(
        boxes=np.concatenate([corners, sides[:, None]], 1).astype(np.int64),
        reference=(left, top, span),
        heads=np.concatenate([heads[:, :2], steady[:, None]], 1).astype(np.float32),
        weights=_averaged(found.astype(np.float64), SMOOTHING).astype(np.float32) * found,
        side=side,
    )


def joined_maps(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The affine map (2 3) that does one after the other."""
    return second @ np.concatenate([first, [[0, 0, 1]]])


def _averaged(values: np.ndarray, size: int) -> np.ndarray:
    """A moving average (f,), its ends held."""
    padded = np.pad(values.astype(np.float64), size // 2, mode="edge")
    return np.convolve(padded, np.full(size, 1 / size), "valid")
