"""Where a person's head is, as a disc: for losses that count the head more."""

from __future__ import annotations

import numpy as np

_EYES, _CHIN, _SIDES = slice(36, 48), 8, (0, 16)
_INNER_LIPS = (62, 66)

# Shares chosen on the synthetic world, whose heads are known, and looked at on the keypoints of real people.
_BELOW_EYES = 0.03
"""The middle of a head lies so far below its eyes, in half heights: eyes are in the middle of heads."""
_DEPTH = 1.2
"""How much farther back than the eyes the middle of a head lies, in distances to the jaw's ends before the ears."""
_FACE_WIDTH, _EARS, _NECK = 0.60, 0.66, 0.68
"""Half the head's height, at least, in widths of the face, distances of the ears and from nose to neck."""
_NOSE_ABOVE = 0.35
"""The nose's tip lies so far below the head's middle, in half heights."""


def head_disc(landmarks: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Middle and half height of the head in every frame, from the face's points or, without them, the body's.

    The same meaning as the synthetic world's `head`: the whole head from the skull's top to the chin, hair that
    stands out not counted.

    Args:
        landmarks: (f 68 3) x, y in pixels, score; 0 for points that were not found.
        body: (f 18 3), the same.

    Returns:
        (f 3) float32: x, y and half the height in pixels; 0 where neither shows a head.
    """
    out = np.zeros((len(landmarks), 3), np.float32)
    for index, (face, points) in enumerate(zip(landmarks, body, strict=True)):
        found = _by_face(face)
        if found is None:
            found = _by_body(points)
        if found is not None and np.isfinite(found).all():
            out[index] = found
    return out


def _by_face(face: np.ndarray) -> np.ndarray | None:
    if (face[:, 2] > 0).sum() < 34 or not (face[[_CHIN, *_SIDES, *_INNER_LIPS], 2] > 0).all():
        return None
    eyes = face[_EYES][face[_EYES, 2] > 0]
    if not len(eyes):
        return None
    middle, chin = eyes[:, :2].mean(0), face[_CHIN, :2]
    # The chin drops with an open mouth; the skull does not grow.
    gap = float(np.hypot(*(face[_INNER_LIPS[1], :2] - face[_INNER_LIPS[0], :2])))
    below = float(np.hypot(*(chin - middle)))
    width = float(np.hypot(*(face[_SIDES[1], :2] - face[_SIDES[0], :2])))
    half = max(below - 0.35 * gap, _FACE_WIDTH * width, 1e-6)
    # The face lies in front of the head's middle: turned, it runs ahead, and the jaw's ends before the ears less so.
    along = (chin - middle) / max(below, 1e-6)
    behind = face[list(_SIDES), :2].mean(0) - middle
    sideways = behind - (behind @ along) * along
    return np.array([*(middle + _BELOW_EYES * (chin - middle) + _DEPTH * sideways), half])


def _by_body(body: np.ndarray) -> np.ndarray | None:
    there = body[:, 2] > 0
    ears = body[[16, 17]][there[[16, 17]], :2]
    marks = body[[14, 15, 16, 17]][there[[14, 15, 16, 17]], :2]
    sizes = []
    if len(ears) == 2:
        sizes.append(_EARS * float(np.hypot(*(ears[1] - ears[0]))))
    if there[0] and there[1]:
        sizes.append(_NECK * float(np.hypot(*(body[0, :2] - body[1, :2]))))
    if not sizes:
        return None
    half = max(sizes)
    if len(marks):
        return np.array([*marks.mean(0), half])
    if there[0] and there[1]:
        up = (body[0, :2] - body[1, :2]) / max(float(np.hypot(*(body[0, :2] - body[1, :2]))), 1e-6)
        return np.array([*(body[0, :2] + _NOSE_ABOVE * half * up), half])
    return None
