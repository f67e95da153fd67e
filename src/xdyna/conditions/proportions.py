"""How large a person's parts are, and how much larger another's: what alignment rests on.

A part's length in a picture is at most its true length, since it may point towards the camera. Over a clip a
high percentile comes near to it; of a reference there is one picture only, so its limbs are taken to be
shortened by perspective, rather than truly short, beyond what people's proportions allow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xdyna.conditions.keypoints import Keypoints

NECK, NOSE, HIPS = 1, 0, (8, 11)
HEAD = (0, 14, 15, 16, 17)

SIDES: dict[str, tuple[tuple[int, int], ...]] = {
    "shoulder": ((1, 2), (1, 5)),
    "upper_arm": ((2, 3), (5, 6)),
    "forearm": ((3, 4), (6, 7)),
    "thigh": ((8, 9), (11, 12)),
    "shin": ((9, 10), (12, 13)),
    "neck": ((1, 0),),
}
"""Parts that lie between two body points, as (parent, child) on either side of the body."""

USUAL = {
    "torso": 1.0, "shoulder": 0.33, "hip": 0.19, "upper_arm": 0.57, "forearm": 0.5,
    "thigh": 0.84, "shin": 0.81, "neck": 0.4, "face": 0.33, "head": 0.25,
}  # fmt: skip
"""Lengths of an adult's parts as shares of neck to middle of the hips, measured on the official pose videos."""

ALLOWED = {
    "torso": (0.75, 1.35), "shoulder": (0.75, 1.4), "hip": (0.75, 1.4), "upper_arm": (0.8, 1.3),
    "forearm": (0.8, 1.3), "thigh": (0.6, 1.5), "shin": (0.6, 1.5), "neck": (0.7, 1.8), "face": (0.5, 2.2),
}  # fmt: skip
"""How far a part's ratio between two people may lie from the ratio of their whole sizes."""

_WEIGHTS = {
    "torso": 3.0, "shoulder": 2.0, "face": 1.0, "head": 0.5, "thigh": 1.0, "shin": 1.0, "upper_arm": 1.0,
    "forearm": 0.5, "neck": 0.5,
}  # fmt: skip

_LIMBS = (("upper_arm", "forearm"), ("thigh", "shin"))


def lengths(keypoints: Keypoints, *, percentile: float = 90) -> dict[str, float]:
    """Length in pixels of each part that was seen, of the longer side where there are two.

    Args:
        keypoints: a clip of any length.
        percentile: which percentile over the frames.

    Returns:
        Keys of `USUAL`; parts never seen are absent. Every value is positive.
    """
    per_frame = lengths_per_frame(keypoints)
    found = {}
    for name, sides in per_frame.items():
        values = [np.percentile(side[side > 0], percentile) for side in sides if (side > 0).any()]
        if values:
            found[name] = float(max(values))
    return found


def lengths_per_frame(keypoints: Keypoints) -> dict[str, list[np.ndarray]]:
    """For each part one (f) array for each side: lengths in pixels, 0 where not seen."""
    body = keypoints.body.astype(np.float64)
    xy, seen = body[..., :2], body[..., 2] > 0
    found = {
        name: [_distance(xy[:, a], xy[:, b]) * (seen[:, a] & seen[:, b]) for a, b in pairs]
        for name, pairs in SIDES.items()
    }
    hips = seen[:, HIPS[0]] & seen[:, HIPS[1]]
    middle = (xy[:, HIPS[0]] + xy[:, HIPS[1]]) / 2
    found["torso"] = [_distance(xy[:, NECK], middle) * (hips & seen[:, NECK])]
    found["hip"] = [_distance(xy[:, HIPS[0]], xy[:, HIPS[1]]) / 2 * hips]
    found["face"] = [_extents(keypoints.face, least=34)]
    found["head"] = [_extents(keypoints.body[:, HEAD], least=3)]
    return found


@dataclass(frozen=True)
class Ratios:
    """A reference person's parts over a driver's.

    Attributes:
        whole: of the whole person.
        parts: of each key of `ALLOWED`.
    """

    whole: float
    parts: dict[str, float]

    @property
    def legs(self) -> float:
        """Of a whole leg, by which a step or a squat grows."""
        return (self.parts["thigh"] + self.parts["shin"]) / 2


def compare(driver: dict[str, float], reference: dict[str, float]) -> Ratios:
    """Ratios of a reference's lengths over a driver's (both from `lengths`), robust against hidden parts.

    The whole is the weighted median over the parts that both show; without one, over usual proportions. Of
    a limb's two halves the one with the larger ratio is believed, the other kept near to it; every part stays
    in the range of `ALLOWED` round the whole. A part that one of the two does not show has the whole's ratio.
    """
    raw = {n: reference[n] / driver[n] for n in _WEIGHTS if driver.get(n, 0) > 0 and reference.get(n, 0) > 0}
    whole = _weighted_median(raw) if raw else _unit(reference) / _unit(driver)
    for pair in _LIMBS:
        known = [raw[name] for name in pair if name in raw]
        for name in pair:
            if known:
                raw[name] = float(np.clip(raw.get(name, max(known)), 0.85 * max(known), max(known)))
    if driver.get("hip", 0) > 0 and reference.get("hip", 0) > 0:
        raw["hip"] = reference["hip"] / driver["hip"]
    if "face" not in raw and "head" in raw:
        raw["face"] = raw["head"]
    parts = {
        name: float(np.clip(raw.get(name, whole), low * whole, high * whole))
        for name, (low, high) in ALLOWED.items()
    }
    return Ratios(float(whole), parts)


def torso_length(found: dict[str, float]) -> float:
    """Neck to middle of the hips in pixels, from usual proportions where it was not seen; 1 if nothing was."""
    return _unit(found)


def _unit(found: dict[str, float]) -> float:
    guesses = [found[name] / USUAL[name] for name in USUAL if found.get(name, 0) > 0]
    if found.get("torso", 0) > 0:
        return found["torso"]
    return float(np.median(guesses)) if guesses else 1.0


def _weighted_median(ratios: dict[str, float]) -> float:
    names = sorted(ratios, key=lambda name: ratios[name])
    weights = np.cumsum([_WEIGHTS[name] for name in names])
    return ratios[names[int(np.searchsorted(weights, weights[-1] / 2))]]


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.hypot(a[..., 0] - b[..., 0], a[..., 1] - b[..., 1])


def _extents(points: np.ndarray, *, least: int) -> np.ndarray:
    """(f n 3) -> (f): the longer side of the box round the points seen; 0 with fewer than `least` of them.

    The longer side, because turning the head shortens a face's width and nodding its height, seldom both.
    """
    out = np.zeros(len(points))
    for index, frame in enumerate(points):
        seen = frame[frame[:, 2] > 0, :2]
        if len(seen) >= least:
            out[index] = float(np.ptp(seen, axis=0).max())
    return out
