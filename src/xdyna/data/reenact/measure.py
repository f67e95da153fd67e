"""Does a face source keep the expression and leave the identity? Numbers from landmarks and the cheeks' colour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xdyna.data.reenact.expression import lid_gaps, mouth_gap
from xdyna.data.reenact.geometry import read_faces
from xdyna.data.reenact.warp import skin_colour

EXPRESSION_NAMES = ("mouth", "lids", "smile", "brows", "yaw", "pitch")
PROPORTION_NAMES = ("face_width", "chin", "eye_width", "nose_length", "nose_width", "eye_distance")


@dataclass(frozen=True)
class Agreement:
    """How a source's faces relate to the target's and to the shown person's own.

    Attributes:
        expression: for each of `EXPRESSION_NAMES` the correlation over the frames with the target's; NaN where the
            target's does not change.
        proportions: 0 = the target's proportions, 1 = the shown person's own; see `identity_share`.
        colour: the same for the colour of the skin.
    """

    expression: dict[str, float]
    proportions: float
    colour: float


def expression_values(landmarks: np.ndarray) -> np.ndarray:
    """(f 68 2 or 3) complete landmarks -> (f 6): `EXPRESSION_NAMES`, free of size, place and (but for the two
    angles, in radians) pose: the mouth's and the lids' opening in widths of mouth and eye, the others in half
    distances of the eyes' outer corners.
    """
    reading = read_faces(landmarks)
    points = reading.points
    columns = (
        mouth_gap(points) / (points[:, 64, 0] - points[:, 60, 0]).clip(0.1),
        lid_gaps(points).mean(-1) / (points[:, 39, 0] - points[:, 36, 0]).clip(0.1),
        points[:, [62, 66], 1].mean(1) - points[:, [48, 54], 1].mean(1),
        points[:, [36, 39, 42, 45], 1].mean(1) - points[:, 17:27, 1].mean(1),
        reading.pose.yaw,
        reading.pose.rotation[:, 1, 2],
    )
    return np.stack(columns, -1)


def proportions(landmarks: np.ndarray) -> np.ndarray:
    """(f 68 2 or 3) -> (6): `PROPORTION_NAMES`, the median over the frames, in half distances of the eyes' corners."""
    points = np.median(read_faces(landmarks).points, axis=0)
    spans = ((0, 16, 0), (27, 8, 1), (36, 39, 0), (27, 33, 1), (31, 35, 0), (39, 42, 0))
    return np.array([points[b, axis] - points[a, axis] for a, b, axis in spans])


def identity_share(target: np.ndarray, shown: np.ndarray, own: np.ndarray) -> float:
    """Where `shown` lies between `target` (0) and `own` (1); vectors of one length. NaN where those two agree."""
    between = own - target
    length = float(between @ between)
    return float((shown - target) @ between) / length if length > 1e-12 else float("nan")


def agreement(
    target: tuple[np.ndarray, np.ndarray],
    shown: tuple[np.ndarray, np.ndarray],
    own: tuple[np.ndarray, np.ndarray],
) -> Agreement:
    """Compare what a source made with what it was asked for.

    Args:
        target: frames (f h w 3) uint8 and landmarks (f 68 3) of the clip.
        shown: what the source gave.
        own: one picture (h w 3) of the shown person and its landmarks (68 2 or 3), at rest.
    """
    seen = (target[1][..., 2] > 0).all(1) & (shown[1][..., 2] > 0).all(1)
    places = np.flatnonzero(seen)
    if len(places) < 3:
        raise ValueError(f"a face in 3 or more frames is needed, got {len(places)}")
    wanted, got = (expression_values(clip[1][seen]) for clip in (target, shown))
    correlations = {}
    for column, name in enumerate(EXPRESSION_NAMES):
        a, b = wanted[:, column], got[:, column]
        changes = min(a.std(), b.std()) > 1e-4
        correlations[name] = float(np.corrcoef(a, b)[0, 1]) if changes else float("nan")
    mine = own[1][None]
    middle = places[len(places) // 2]
    return Agreement(
        correlations,
        identity_share(proportions(target[1][seen]), proportions(shown[1][seen]), proportions(mine)),
        identity_share(
            skin_colour(target[0][middle], target[1][middle]),
            skin_colour(shown[0][middle], shown[1][middle]),
            skin_colour(*own),
        ),
    )
