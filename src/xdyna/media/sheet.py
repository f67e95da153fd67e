"""Pictures side by side: contact sheets, and the frames of comparison videos."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from xdyna.media.image import check_picture

_PAPER = 24
_INK = 235


def sheet(
    rows: Sequence[Sequence[np.ndarray]],
    *,
    labels: Sequence[str] | None = None,
    gap: int = 4,
    height: int | None = None,
) -> np.ndarray:
    """Lay pictures out in rows on dark paper.

    Args:
        rows: rows of (h w 3) uint8 pictures; sizes and lengths may differ.
        labels: one text a row, written above it.
        gap: pixels between cells and around them.
        height: of every cell in pixels; None takes the tallest picture's. Aspects are kept.

    Returns:
        (h w 3) uint8; short rows end in paper.
    """
    if not rows or not all(len(row) for row in rows):
        raise ValueError("a sheet needs at least one row, and every row a picture")
    if labels is not None and len(labels) != len(rows):
        raise ValueError(f"{len(labels)} labels for {len(rows)} rows")
    height = height or max(image.shape[0] for row in rows for image in row)
    strips = []
    for number, row in enumerate(rows):
        strip = _beside([_to_height(image, height) for image in row], gap)
        if labels is not None:
            strip = np.concatenate([_caption(labels[number], strip.shape[1], height), strip])
        strips.append(strip)
    width = max(strip.shape[1] for strip in strips)
    page = np.concatenate([_widened(strip, width) for strip in strips])
    return np.pad(page, ((gap, 0), (gap, 0), (0, 0)), constant_values=_PAPER)


def compare_frame(
    images: Sequence[np.ndarray],
    labels: Sequence[str] | None = None,
    *,
    height: int | None = None,
    gap: int = 4,
) -> np.ndarray:
    """One frame of a comparison video: pictures side by side, each with its label above.

    The same sizes and arguments give the same size every time, and its sides are even, as video needs them.

    Args:
        images: (h w 3) uint8 pictures.
        labels: one text a picture.
        height: of every cell; None takes the tallest picture's.
        gap: pixels between cells and around them.

    Returns:
        (h w 3) uint8.
    """
    if not images:
        raise ValueError("compare_frame needs at least one picture")
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"{len(labels)} labels for {len(images)} pictures")
    height = height or max(image.shape[0] for image in images)
    cells = [_to_height(image, height) for image in images]
    if labels is not None:
        cells = [
            np.concatenate([_caption(text, cell.shape[1], height), cell])
            for text, cell in zip(labels, cells, strict=True)
        ]
    page = np.pad(_beside(cells, gap), ((gap, 0), (gap, 0), (0, 0)), constant_values=_PAPER)
    odd_rows, odd_columns = page.shape[0] % 2, page.shape[1] % 2
    return np.pad(page, ((0, odd_rows), (0, odd_columns), (0, 0)), constant_values=_PAPER)


def _to_height(image: np.ndarray, height: int) -> np.ndarray:
    check_picture(image)
    if image.shape[0] == height:
        return image
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    smaller = height < image.shape[0]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def _beside(cells: Sequence[np.ndarray], gap: int) -> np.ndarray:
    """Cells of one height in a row, with `gap` of paper right of each and below."""
    padded = [np.pad(cell, ((0, gap), (0, gap), (0, 0)), constant_values=_PAPER) for cell in cells]
    return np.concatenate(padded, axis=1)


def _widened(strip: np.ndarray, width: int) -> np.ndarray:
    return np.pad(strip, ((0, 0), (0, width - strip.shape[1]), (0, 0)), constant_values=_PAPER)


def _caption(text: str, width: int, cell_height: int) -> np.ndarray:
    """A strip with a text, cut at its right end where it does not fit; taller over taller cells."""
    size = max(11, min(20, cell_height // 16))
    font = ImageFont.load_default(size)
    strip = Image.new("RGB", (width, size + 6), (_PAPER,) * 3)
    ImageDraw.Draw(strip).text((2, 2), text, fill=(_INK,) * 3, font=font)
    return np.array(strip)
