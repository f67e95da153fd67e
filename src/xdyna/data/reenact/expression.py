"""One person's expression on another person's face, in points.

Everything happens with the head's pose taken out (`geometry.read_faces`). Three kinds of motion are carried in
three ways, so that the foreign face keeps its proportions:

* the mouth's opening counts from closed, which is the same for everybody: of the target nothing is taken off, and
  the source's mouth is closed first;
* the lids' opening counts in shares of how far the person's eyes are open as a rule;
* all else (brows, corners of the mouth, lips, chin) counts from the person's own rest over the clip. What lasts over
  the whole clip, a steady smile say, cannot be told from proportions for certain: `lasting` says how much of it
  is taken for expression.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from xdyna.data.reenact.geometry import AVERAGE_FACE, INNER_LIPS, LIDS, FaceReading, read_faces

_EYES = (slice(36, 42), slice(42, 48))
_USUAL_OPENING = 0.22
"""How far open eyes are as a rule, in widths of the eye."""

# Who moves along when lips part: share of the gap, down for what is below the inner lips, up for what is above.
_WITH_UPPER_LIP = {49: 0.5, 50: 1.0, 51: 1.0, 52: 1.0, 53: 0.5}
_WITH_LOWER_LIP = {
    55: 0.5, 56: 1.0, 57: 1.0, 58: 1.0, 59: 0.5, 8: 0.8, 7: 0.75, 9: 0.75, 6: 0.5, 10: 0.5, 5: 0.2, 11: 0.2,
}  # fmt: skip
_UPPER_SHARE = 0.2
"""How much of the mouth's gap the upper lip made; the jaw made the rest."""

# Lasting expressions that are recognised: which points carry them and how far.
_LIFT = {48: 1.0, 54: 1.0, 60: 1.0, 64: 1.0, 49: 0.5, 53: 0.5, 55: 0.5, 59: 0.5}
_BROWS = dict.fromkeys(range(17, 27), 1.0)
_MOST_LASTING = 0.18
"""No lasting expression moves a point farther than this; more is proportions."""


def mouth_gap(points: np.ndarray) -> np.ndarray:
    """(... 68 2 or 3) -> (...): how far the inner lips are apart in the middle, 0 where they overlap."""
    return (points[..., INNER_LIPS[:, 1], 1] - points[..., INNER_LIPS[:, 0], 1]).mean(-1).clip(0)


def lid_gaps(points: np.ndarray) -> np.ndarray:
    """(... 68 2 or 3) -> (... 4): how far the lids are apart at the four pairs of `LIDS`."""
    return (points[..., LIDS[:, 1], 1] - points[..., LIDS[:, 0], 1]).clip(0)


def transfer(target: FaceReading, source: np.ndarray, *, lasting: float = 0.5) -> np.ndarray:
    """The source's face with the target's expressions.

    Args:
        target: the clip whose expression is wanted.
        source: (68 3) the source's face with the pose taken out, open-eyed; see `at_rest`.
        lasting: share of the clip's lasting smile and lifted brows that counts as expression: 0 is purely relative
            to the clip, 1 is absolute.

    Returns:
        (f 68 3) points with the pose taken out: `target.pose.project` shows them in the clip.
    """
    rest = _rest(target.points)
    moved = target.points - _closed(rest)
    ratio = np.clip(_mouth_width(source) / _mouth_width(rest), 0.75, 1.33)
    moved[:, 48:68] *= ratio
    base = _closed(source)
    if lasting:
        base = base + lasting * _lasting(rest, base)
    out = base + moved
    _shut_overlap(out)
    _open_lids(out, target.points, rest, source)
    return out


def at_rest(landmarks: np.ndarray) -> np.ndarray:
    """(68 3): the face of one picture, landmarks (68 2 or 3) in pixels, with the pose taken out."""
    return read_faces(landmarks[None]).points[0]


def _rest(points: np.ndarray) -> np.ndarray:
    """The person's own rest: the median, the mouth from where it is least open, the eyes from where they are most."""
    rest = np.median(points, axis=0)
    gap, lids = mouth_gap(points), lid_gaps(points).mean(-1)
    closed = points[gap <= np.percentile(gap, 30)]
    rest[48:68], rest[5:12] = closed[:, 48:68].mean(0), closed[:, 5:12].mean(0)
    rest[36:48] = points[lids >= np.percentile(lids, 70)][:, 36:48].mean(0)
    return rest


def _closed(face: np.ndarray) -> np.ndarray:
    """The face (68 3) with its lips brought together and its chin up."""
    out = face.copy()
    gap = mouth_gap(face)
    for upper, lower in INNER_LIPS:
        apart = face[lower] - face[upper]
        out[upper] += _UPPER_SHARE * apart
        out[lower] -= (1 - _UPPER_SHARE) * apart
    for weights, share in ((_WITH_UPPER_LIP, _UPPER_SHARE), (_WITH_LOWER_LIP, _UPPER_SHARE - 1)):
        for point, weight in weights.items():
            out[point, 1] += weight * share * gap
    return out


def _mouth_width(face: np.ndarray) -> float:
    return max(float(np.hypot(*(face[54] - face[48])[:2])), 0.2)


def _lasting(rest: np.ndarray, base: np.ndarray) -> np.ndarray:
    """(68 3): by how much the clip's rest smiles and lifts its brows more than the source."""
    mine, theirs = _traits(rest), _traits(base)
    by = {name: float(np.clip(mine[name] - theirs[name], -_MOST_LASTING, _MOST_LASTING)) for name in mine}
    out = np.zeros_like(base)
    _add(out, _LIFT, by["lift"])
    _add(out, _BROWS, by["brows"])
    return out


def _traits(face: np.ndarray) -> dict[str, float]:
    """Heights (down is positive) in which expression and proportions mix, against the average face's."""

    def of(points: np.ndarray) -> dict[str, float]:
        middle = (points[INNER_LIPS[1], 1].mean() + points[[51, 57], 1].mean()) / 2
        return {
            "lift": float(points[[48, 54], 1].mean() - middle),
            "brows": float(points[17:27, 1].mean() - points[[36, 39, 42, 45], 1].mean()),
        }

    mine, usual = of(face), of(AVERAGE_FACE)
    return {name: mine[name] - usual[name] for name in mine}


def _add(out: np.ndarray, weights: Mapping[int, float], amount: float) -> None:
    for point, weight in weights.items():
        out[point, 1] += weight * amount


def _shut_overlap(points: np.ndarray) -> None:
    """In place: where the lower inner lip got above the upper one, both meet in the middle."""
    for upper, lower in INNER_LIPS:
        over = (points[:, upper, 1] - points[:, lower, 1]).clip(0)
        points[:, upper, 1] -= over / 2
        points[:, lower, 1] += over / 2


def _open_lids(out: np.ndarray, points: np.ndarray, rest: np.ndarray, source: np.ndarray) -> None:
    """In place: the source's eyes, open by the target's share of its own usual opening."""
    widths = np.array([np.ptp(rest[eye, 0]) for eye in _EYES]).repeat(2)
    usual = np.maximum(lid_gaps(rest), 0.55 * _USUAL_OPENING * widths)
    share = np.clip(lid_gaps(points) / usual, 0, 1.7)
    for eye in _EYES:
        corners = [eye.start, eye.start + 3]
        # The eye moves with its corners, and its lower lid as the target's does.
        shift = out[:, corners].mean(1) - source[corners].mean(0)
        lower = [eye.start + 4, eye.start + 5]
        rise = np.clip(out[:, lower, 1].mean(1) - source[lower, 1].mean() - shift[:, 1], -0.06, 0.03)
        out[:, eye] = source[eye] + shift[:, None]
        out[:, lower, 1] += rise[:, None]
    for pair, (upper, below) in enumerate(LIDS):
        span = source[below] - source[upper]
        out[:, upper] = out[:, below] - share[:, pair, None] * span
