"""Boxes round faces: which to keep, how to move, square and cut them out.

A box is left, top, right, bottom and score; right and bottom are the last pixels inside, so that a box is
right - left + 1 wide. Source: mk-minchul/AdaFace face_alignment/mtcnn_pytorch/src/box_utils.py; nothing here
writes into its arguments, which that code does.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from xdyna.errors import InputError

LARGEST_SIDE = 8192
"""Boxes with longer sides are no faces (a network can send a box anywhere) and would only cost memory."""


class BoxOutside(InputError):
    """A box lies where there is no picture; the published detector gives up at such a one."""


def suppressed(boxes: np.ndarray, overlap: float, *, of_smaller: bool = False) -> np.ndarray:
    """Which boxes stay when those that overlap a better one are dropped.

    Args:
        boxes: (n 5).
        overlap: from more than which share of the union a box is dropped.
        of_smaller: the share is of the smaller box's area instead of the union's.

    Returns:
        (k) indices, best score first.
    """
    left, top, right, bottom = boxes[:, 0], boxes[:, 1], boxes[:, 2], boxes[:, 3]
    area = (right - left + 1) * (bottom - top + 1)
    waiting, kept = np.argsort(boxes[:, 4]), []
    while waiting.size:
        best, waiting = waiting[-1], waiting[:-1]
        kept.append(best)
        width = np.minimum(right[best], right[waiting]) - np.maximum(left[best], left[waiting]) + 1
        height = np.minimum(bottom[best], bottom[waiting]) - np.maximum(top[best], top[waiting]) + 1
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        smaller = np.minimum(area[best], area[waiting])
        with np.errstate(divide="ignore", invalid="ignore"):
            share = shared / (smaller if of_smaller else area[best] + area[waiting] - shared)
        waiting = waiting[~(share > overlap)]
    return np.array(kept, np.int64)


def calibrated(boxes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(n 5) boxes whose edges are moved by (n 4) offsets, shares of width and height."""
    width, height = boxes[:, 2:3] - boxes[:, 0:1] + 1, boxes[:, 3:4] - boxes[:, 1:2] + 1
    moved = boxes.astype(np.float64)
    moved[:, :4] += np.hstack([width, height, width, height]) * offsets
    return moved


def squared(boxes: np.ndarray) -> np.ndarray:
    """(n 5) boxes widened to squares about their centres; scores stay."""
    width, height = boxes[:, 2] - boxes[:, 0] + 1, boxes[:, 3] - boxes[:, 1] + 1
    side = np.maximum(width, height)
    square = boxes.astype(np.float64)
    square[:, 0] += width * 0.5 - side * 0.5
    square[:, 1] += height * 0.5 - side * 0.5
    square[:, 2] = square[:, 0] + side - 1
    square[:, 3] = square[:, 1] + side - 1
    return square


def inside(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(n) bool: boxes that share at least a pixel with a picture of size (height, width), and have a sane size."""
    height, width = size
    whole = np.trunc(boxes[:, :4]) if np.isfinite(boxes[:, :4]).all() else boxes[:, :4]
    left, top, right, bottom = whole.T
    limit = max(LARGEST_SIDE, 2 * max(size))
    with np.errstate(invalid="ignore"):
        sane = (right - left + 1 <= limit) & (bottom - top + 1 <= limit) & (right >= left) & (bottom >= top)
        return sane & (right >= 0) & (bottom >= 0) & (left <= width - 1) & (top <= height - 1)


def cut_out(picture: np.ndarray, boxes: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """What lies in boxes, black beyond the picture, at one size.

    Args:
        picture: (h w 3) uint8.
        boxes: (n 5), fractions cut off.
        side: height and width of the cutouts; Pillow's bilinear filter, which averages when shrinking.

    Returns:
        (n side side 3) uint8, and the boxes (n 5) clipped to the picture, as the published detector goes on with.

    Raises:
        BoxOutside: a box cannot be cut out, where the published code breaks: most that lie wholly outside.
    """
    height, width = picture.shape[:2]
    clipped = boxes.astype(np.float64)
    clipped[:, 2] = np.minimum(clipped[:, 2], width - 1.0)
    clipped[:, 3] = np.minimum(clipped[:, 3], height - 1.0)
    clipped[:, :2] = np.maximum(clipped[:, :2], 0.0)
    cutouts = np.zeros((len(boxes), side, side, 3), np.uint8)
    for number, (box, seen) in enumerate(zip(boxes[:, :4], clipped[:, :4], strict=True)):
        left, top, right, bottom = box
        across, down = int(right - left + 1), int(bottom - top + 1)
        if not (0 < across <= 4 * LARGEST_SIDE and 0 < down <= 4 * LARGEST_SIDE):
            raise BoxOutside("face box", f"is {down}x{across} pixels", "It is no face: leave it out")
        # inside of the cutout: first column and row, and last, of what the picture holds
        first = int(max(-left, 0)), int(max(-top, 0))
        last_x = int(across + width - 2 - right if right > width - 1 else across - 1)
        last_y = int(down + height - 2 - bottom if bottom > height - 1 else down - 1)
        x0, y0, x1, y1 = (int(edge) for edge in seen)
        full = np.zeros((down, across, 3), np.uint8)
        held, part = full[first[1] : last_y + 1, first[0] : last_x + 1], picture[y0 : y1 + 1, x0 : x1 + 1]
        if held.shape != part.shape:
            raise BoxOutside("face box", "lies outside of the picture", "It is no face: leave it out")
        held[:] = part
        cutouts[number] = np.asarray(Image.fromarray(full).resize((side, side), Image.Resampling.BILINEAR))
    return cutouts, clipped
