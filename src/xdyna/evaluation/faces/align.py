"""Turning, scaling and moving a face so that its five points lie where identity networks expect them.

Source: mk-minchul/AdaFace face_alignment/mtcnn_pytorch (align_trans.py, matlab_cp2tform.py). Its code compares the
plain fit with a mirrored one against points that it has mirrored by mistake (an array is changed in place), so that
it takes the mirrored fit for strong profiles, though the plain one is the better; `fault=True` does the same.
"""

from __future__ import annotations

import cv2
import numpy as np

from xdyna.errors import InputError
from xdyna.evaluation.pictures import as_picture

SIDE = 112
POINTS_96_112 = (
    (30.29459953, 51.69630051),
    (65.53179932, 51.50139999),
    (48.02519989, 71.73660278),
    (33.54930115, 92.36550140),
    (62.72990036, 92.20410156),
)
"""Where a picture's left and right eye, nose, left and right mouth corner go in a crop 96 wide and 112 high."""

POINTS_112 = tuple((x + 8, y) for x, y in POINTS_96_112)
"""The same in the square crop that AdaFace and most others use: the narrow one widened by 8 on each side."""


def fit_similarity(points: np.ndarray, *, side: int = SIDE, fault: bool = False) -> np.ndarray:
    """The turn, scale and shift from a picture to an aligned crop.

    The fit is by least squares in the picture (from the crop's points to the picture's), then turned round.

    Args:
        points: (5 2) x, y of the picture's left and right eye, nose, left and right mouth corner, in pixels.
        side: height and width of the crop.
        fault: choose as the published code does, which mirrors strong profiles.

    Returns:
        (2 3) float64, for `cv2.warpAffine`.

    Raises:
        InputError: the points are not five finite pairs, or fall together, so that there is nothing to fit.
    """
    points = np.asarray(points)
    if points.shape != (5, 2) or not np.isfinite(np.asarray(points, np.float64)).all():
        raise InputError("face points", "not five finite pairs of x and y", "Leave this face out")
    # in float32 first, as published
    found = points.astype(np.float32).astype(np.float64)
    wanted = (np.array(POINTS_112) * side / SIDE).astype(np.float32).astype(np.float64)
    plain = _from_picture(wanted, found)
    if not fault:
        return plain
    mirrored_points = wanted * (-1, 1)
    mirrored = np.diag((-1.0, 1.0)) @ _from_picture(mirrored_points, found)
    errors = [np.linalg.norm(_moved(fit, found) - mirrored_points) for fit in (plain, mirrored)]
    return plain if errors[0] <= errors[1] else mirrored


def align_face(
    picture: np.ndarray, points: np.ndarray, *, side: int = SIDE, fault: bool = False
) -> np.ndarray:
    """The aligned crop of a face: bilinear, black beyond the picture.

    Args:
        picture: (h w 3) uint8.
        points, side, fault: see `fit_similarity`.

    Returns:
        (side side 3) uint8.

    Raises:
        InputError: the picture is none, or the points cannot be fitted.
    """
    matrix = fit_similarity(points, side=side, fault=fault)
    return cv2.warpAffine(as_picture(picture), matrix, (side, side))


def _from_picture(crop_points: np.ndarray, picture_points: np.ndarray) -> np.ndarray:
    """(2 3): picture to crop, from the least squares of crop to picture."""
    x, y = crop_points.T
    one, zero = np.ones_like(x), np.zeros_like(x)
    equations = np.concatenate([np.stack([x, y, one, zero], 1), np.stack([y, -x, zero, one], 1)])
    (cosine, sine, right, down), *_ = np.linalg.lstsq(equations, picture_points.T.ravel(), rcond=-1)
    to_picture = np.array([[cosine, sine, right], [-sine, cosine, down], [0, 0, 1]])
    # a face smaller than a hundredth of a pixel: all its points fall together
    if np.hypot(cosine, sine) * SIDE < 0.01:
        raise InputError(
            "face points", "fall together, so that no face can be made out", "Leave this face out"
        )
    return np.linalg.inv(to_picture)[:2]


def _moved(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]
