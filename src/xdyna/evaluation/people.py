"""Does the person do what they should: body joints and hands of the generated clip against those of another clip.

Both clips are read by the same detector, so its own errors enter twice; on clips whose joints are known exactly,
`compare_keypoints` takes the known ones.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from xdyna.conditions.detect import make_detector
from xdyna.conditions.keypoints import Keypoints
from xdyna.conditions.track import track
from xdyna.errors import InputError

JOINTS = tuple(range(14))
"""Body points that are compared: the limbs', the nose and the neck. Eyes and ears belong to the face's metrics."""
MIN_SCORE = 0.3
"""A point counts as seen from this score on."""
PCK_SHARE = 0.05
"""PCK: a joint is right within this share of the picture's width."""


@dataclass(frozen=True)
class PeopleReadings:
    """One generated clip beside another. None where there was nothing to compare.

    Attributes:
        joint_error_pct: mean distance of the joints seen in both, percent of the picture's width.
        pck: share of the joints seen in the true clip that are within 5 % of the width; a joint that is not seen in
            the generated clip is wrong.
        hand_error_pct: mean distance of the hands' points seen in both, percent of the width.
        joints_found: share of the true clip's joints that are seen in the generated one.
        hands_found: likewise.
        joint_curve: (f,) joint error of each frame; NaN where nothing is compared.
    """

    joint_error_pct: float | None
    pck: float | None
    hand_error_pct: float | None
    joints_found: float | None
    hands_found: float | None
    joint_curve: tuple[float, ...]


def find_person(frames: np.ndarray, *, source: str) -> Keypoints:
    """The largest person of a clip (f h w 3) uint8, unsmoothed; all zero where nobody is found."""
    detector = make_detector("mediapipe", max_people=1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # several people: the largest is meant
            return track(detector.stream(iter(frames)), source=source, smooth=False, max_gap=0)
    except InputError:
        return Keypoints.empty(len(frames), (frames.shape[1], frames.shape[2]))


def compare_keypoints(pred: Keypoints, truth: Keypoints) -> PeopleReadings:
    """Compare two people of as many frames; of other picture sizes, relative to each one's own size.

    Raises:
        ValueError: clips of different lengths.
    """
    if len(pred) != len(truth):
        raise ValueError(f"{len(pred)} frames against {len(truth)}")
    body, body_seen, body_true = _distances(
        pred.body[:, JOINTS], truth.body[:, JOINTS], pred.size, truth.size
    )
    hands = [
        _distances(getattr(pred, name), getattr(truth, name), pred.size, truth.size)
        for name in ("left_hand", "right_hand")
    ]
    hand, hand_seen, hand_true = (np.concatenate(parts, 1) for parts in zip(*hands, strict=True))
    with np.errstate(invalid="ignore"):
        curve = np.where(body_seen, body, 0).sum(1) / np.where(body_seen.any(1), body_seen.sum(1), np.nan)
    return PeopleReadings(
        joint_error_pct=_mean(100 * body, body_seen),
        pck=_mean((body <= PCK_SHARE) & body_seen, body_true),
        hand_error_pct=_mean(100 * hand, hand_seen),
        joints_found=_mean(body_seen, body_true),
        hands_found=_mean(hand_seen, hand_true),
        joint_curve=tuple(float(100 * v) for v in curve),
    )


def _distances(
    pred: np.ndarray, truth: np.ndarray, pred_size: tuple[int, int], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(f n) distances as shares of the width; which are seen in both; which in the true one inside the picture."""
    scale = np.array([size[1] / pred_size[1], size[0] / pred_size[0]], np.float32)
    apart = np.linalg.norm(pred[..., :2] * scale - truth[..., :2], axis=-1) / size[1]
    inside = (truth[..., :2] >= 0).all(-1) & (truth[..., 0] <= size[1]) & (truth[..., 1] <= size[0])
    true = (truth[..., 2] >= MIN_SCORE) & inside
    return apart, true & (pred[..., 2] >= MIN_SCORE), true


def _mean(values: np.ndarray, where: np.ndarray) -> float | None:
    return float(values[where].mean(dtype=np.float64)) if where.any() else None
