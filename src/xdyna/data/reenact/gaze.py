"""Where eyes look, from the pixels: the 68 points do not say it.

The iris is the dark part of the eye's opening. Its middle is found as the mean place of what is darker than the
white, weighted by how much, in two rounds: all of the opening, then the neighbourhood of the first answer.
"""

from __future__ import annotations

import cv2
import numpy as np

_EYES = (slice(36, 42), slice(42, 48))
_SIDE = 48
"""Width in pixels of the enlarged eye that is looked at."""

_LEAST_WIDTH = 9.0
"""Eyes of fewer pixels across show no gaze."""

_LEAST_OPENING = 0.12
"""Eyes less open than this share of their width show no gaze."""


def gaze_offsets(picture: np.ndarray, landmarks: np.ndarray, irises: np.ndarray | None = None) -> np.ndarray:
    """How far each iris lies from the middle of its eye's corners.

    Args:
        picture: (h w 3) uint8.
        landmarks: (68 2 or 3) pixels.
        irises: (2 3) x, y, score of the irises' middles where a detector knows them, the eye on the picture's left
            first; a score of 0, or None, has the pixels asked.

    Returns:
        (2 3): across (towards the picture's right) and down in widths of the eye, and 1, or 0 where it cannot be told.
    """
    out = np.zeros((2, 3))
    for number, eye in enumerate(_EYES):
        outline = np.asarray(landmarks, np.float64)[eye, :2]
        across = outline[3] - outline[0]
        width = float(np.hypot(*across))
        if width < 1e-6:
            continue
        axes = np.stack([across, (-across[1], across[0])]) / width**2
        middle = (outline[0] + outline[3]) / 2
        if irises is not None and irises[number, 2] > 0:
            out[number] = (*(axes @ (irises[number, :2] - middle)), 1)
        elif width >= _LEAST_WIDTH:
            found = _dark_middle(picture, outline, axes, middle)
            if found is not None:
                out[number] = (*found, 1)
    return out


def _dark_middle(
    picture: np.ndarray, outline: np.ndarray, axes: np.ndarray, middle: np.ndarray
) -> np.ndarray | None:
    """(2) in the eye's own axes, or None."""
    places = (outline - middle) @ axes.T
    opening = float((places[[4, 5], 1] - places[[2, 1], 1]).mean())
    if opening < _LEAST_OPENING:
        return None
    # The eye upright and enlarged: across from -0.5 to 0.5, as much up and down.
    back = np.linalg.inv(axes) / _SIDE
    matrix = np.column_stack([back, middle - 0.5 - back @ np.full(2, (_SIDE - 1) / 2)])
    view = cv2.warpAffine(
        picture, matrix, (_SIDE, _SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    area = np.zeros((_SIDE, _SIDE), np.uint8)
    # The lids' edges are dark with lashes and shadow.
    inner = places * (0.9, 0.85) * _SIDE + _SIDE / 2 - 0.5
    cv2.fillPoly(area, [np.round(inner * 32).astype(np.int32)], 1, shift=5)
    if area.sum() < 30:
        return None
    light = view.max(-1).astype(np.float64)
    white, black = np.percentile(light[area > 0], (85, 5))
    if white - black < 20:
        return None
    dark = np.clip((white - light) / (white - black), 0, 1) ** 2 * area
    y, x = np.mgrid[:_SIDE, :_SIDE] / _SIDE - (_SIDE - 1) / 2 / _SIDE
    spot = np.zeros(2)
    for near in (10.0, 0.25, 0.2):
        weight = dark * np.exp(-(((x - spot[0]) / near) ** 2) - ((y - spot[1]) / near) ** 2)
        spot = np.array([(weight * x).sum(), (weight * y).sum()]) / max(weight.sum(), 1e-9)
    return spot
