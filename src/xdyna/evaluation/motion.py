"""How a clip changes over time beside the true one: does the scene live, do still places rest, what flickers, drifts.

All values are on the scale 0..255 unless they are ratios. Where a mask of the person is given, "scene" means what lies
outside of it (grown by `MARGIN`, since outlines are soft); without one it means the whole picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from xdyna.evaluation.scene_motion import MARGIN, background

STILL = 2.0
"""Largest change from frame to frame, of the blurred true picture, at which a place stands still; film is noisy."""
STILL_SHARE = 0.02
"""Share of the scene that must stand still for false motion to be measured."""
LEAST_MOTION = 0.5
"""Mean change of the true scene from which on it can be compared with the generated one."""


@dataclass(frozen=True)
class MotionReadings:
    """What is measured of one clip. None where it does not apply (one frame, no scene, a scene that never moves).

    Attributes:
        scene_motion: mean absolute change of the scene from frame to frame, generated; scene_motion_true.
        false_motion: the same, where the true picture stands still, less the true picture's own noise there.
        flicker: mean of |v(t+1) - 2 v(t) + v(t-1)| / 2 over the scene, generated; flicker_true. What jumps to and fro;
            steady change does not count.
        person_flicker, person_flicker_true: the same of the person; None without a mask.
        colour_drift: how far the mean colour wanders from the first quarter of the clip to the last, more than the true
            one's does (Euclidean distance of RGB).
        drift_curve: (f,) distance of each frame's mean colour from the true frame's, less that of the first frame.
        motion_curve: (f-1,) change of the generated scene; motion_curve_true.
    """

    scene_motion: float | None
    scene_motion_true: float | None
    false_motion: float | None
    flicker: float | None
    flicker_true: float | None
    person_flicker: float | None
    person_flicker_true: float | None
    colour_drift: float | None
    drift_curve: tuple[float, ...]
    motion_curve: tuple[float, ...]
    motion_curve_true: tuple[float, ...]

    @property
    def scene_motion_ratio(self) -> float | None:
        """Generated over true; None where the true scene hardly moves."""
        if (
            self.scene_motion is None
            or self.scene_motion_true is None
            or self.scene_motion_true < LEAST_MOTION
        ):
            return None
        return self.scene_motion / self.scene_motion_true


def read_motion(pred: np.ndarray, truth: np.ndarray, *, person: np.ndarray | None = None) -> MotionReadings:
    """Measure a generated clip beside the true one.

    Args:
        pred, truth: (f h w 3) uint8, of one shape.
        person: (f h w) in [0, 1] or bool, where the true person is.

    Raises:
        ValueError: other shapes or types.
    """
    if pred.shape != truth.shape or pred.ndim != 4 or pred.shape[-1] != 3:
        raise ValueError(f"clips must be (f h w 3) of one shape, got {pred.shape} and {truth.shape}")
    if pred.dtype != np.uint8 or truth.dtype != np.uint8:
        raise ValueError(f"clips must be uint8, got {pred.dtype} and {truth.dtype}")
    if person is not None and person.shape != pred.shape[:3]:
        raise ValueError(f"masks must be {pred.shape[:3]}, got {person.shape}")
    count = len(pred)
    scene = np.ones(pred.shape[:3], bool) if person is None else outside(person)
    inside = None if person is None else np.asarray(person, np.float32) > 0.5
    false, noise, scene_pixels = _Mean(), _Mean(), 0
    changes = {name: _Changes() for name in ("pred", "truth")}
    for t in range(1, count):
        both = scene[t] & scene[t - 1]
        scene_pixels += int(both.sum())
        for name, clip in (("pred", pred), ("truth", truth)):
            changes[name].add_step(clip[t], clip[t - 1], both)
        rests = both & (_blurred_change(truth[t], truth[t - 1]) <= STILL)
        false.add(_change(pred[t], pred[t - 1]), rests)
        noise.add(_change(truth[t], truth[t - 1]), rests)
        if t + 1 < count:
            for name, clip in (("pred", pred), ("truth", truth)):
                second = _second(clip[t + 1], clip[t], clip[t - 1])
                changes[name].flicker.add(second, both & scene[t + 1])
                if inside is not None:
                    changes[name].person.add(second, inside[t + 1] & inside[t] & inside[t - 1])
    drift, curve = _drift(pred, truth)
    return MotionReadings(
        scene_motion=changes["pred"].steps.value(),
        scene_motion_true=changes["truth"].steps.value(),
        false_motion=_excess(false, noise) if noise.pixels > STILL_SHARE * scene_pixels else None,
        flicker=changes["pred"].flicker.value(),
        flicker_true=changes["truth"].flicker.value(),
        person_flicker=changes["pred"].person.value(),
        person_flicker_true=changes["truth"].person.value(),
        colour_drift=drift,
        drift_curve=curve,
        motion_curve=tuple(changes["pred"].curve),
        motion_curve_true=tuple(changes["truth"].curve),
    )


def _excess(found: _Mean, noise: _Mean) -> float:
    return max(0.0, (found.value() or 0.0) - (noise.value() or 0.0))


def outside(person: np.ndarray) -> np.ndarray:
    """(f h w) masks -> (f h w) bool, True well outside of the person."""
    masks = torch.from_numpy(np.asarray(person, np.float32))
    return background(masks[None, :, None], MARGIN)[0, :, 0].numpy() > 0


class _Mean:
    """A mean over the chosen pixels of many pictures."""

    def __init__(self) -> None:
        self.total, self.pixels = 0.0, 0

    def add(self, values: np.ndarray, where: np.ndarray) -> None:
        self.total += float(values[where].sum(dtype=np.float64))
        self.pixels += int(where.sum())

    def value(self) -> float | None:
        return self.total / self.pixels if self.pixels else None


class _Changes:
    """The sums of one clip."""

    def __init__(self) -> None:
        self.steps, self.flicker, self.person = _Mean(), _Mean(), _Mean()
        self.curve: list[float] = []

    def add_step(self, now: np.ndarray, before: np.ndarray, where: np.ndarray) -> None:
        change = _change(now, before)
        self.steps.add(change, where)
        self.curve.append(float(change[where].mean(dtype=np.float64)) if where.any() else 0.0)


def _change(now: np.ndarray, before: np.ndarray) -> np.ndarray:
    """(h w) mean over the channels of the absolute change."""
    return cv2.absdiff(now, before).mean(-1, dtype=np.float32)


def _blurred_change(now: np.ndarray, before: np.ndarray) -> np.ndarray:
    """The same of pictures whose noise is averaged away, so that what is left is movement."""
    soft, soft_before = (cv2.blur(picture.astype(np.float32), (5, 5)) for picture in (now, before))
    return np.abs(soft - soft_before).max(-1)


def _second(after: np.ndarray, now: np.ndarray, before: np.ndarray) -> np.ndarray:
    bent = after.astype(np.int16) - 2 * now.astype(np.int16) + before.astype(np.int16)
    return np.abs(bent).mean(-1, dtype=np.float32) / 2


def _drift(pred: np.ndarray, truth: np.ndarray) -> tuple[float | None, tuple[float, ...]]:
    """How far the colours wander, and the curve."""
    apart = pred.mean((1, 2), dtype=np.float64) - truth.mean((1, 2), dtype=np.float64)
    curve = np.linalg.norm(apart - apart[:1], axis=-1)
    if len(apart) < 2:
        return None, tuple(float(v) for v in curve)
    quarter = max(1, len(apart) // 4)
    wandered = apart[-quarter:].mean(0) - apart[:quarter].mean(0)
    return float(np.linalg.norm(wandered)), tuple(float(v) for v in curve)
