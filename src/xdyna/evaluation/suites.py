"""The suites that look at one clip at a time: pixel, face, motion. Each gives readings by metric, or why it cannot.

A suite is a function of a `Pair`; it runs in a process of its own beside others. What a metric lacks (a network's file,
a package) is no failure of the suite: it says so under the metric's name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from xdyna.evaluation.face_suite import face_suite
from xdyna.evaluation.metrics import full_name
from xdyna.evaluation.motion import MotionReadings, read_motion
from xdyna.evaluation.pairs import Pair
from xdyna.evaluation.people import compare_keypoints, find_person
from xdyna.evaluation.pixel import PIXEL_METRICS, measure_clip
from xdyna.evaluation.readings import ClipReadings, Reading

if TYPE_CHECKING:
    from xdyna.evaluation.lpips import Lpips


def pixel_suite(pair: Pair) -> ClipReadings:
    """Pixel metrics of whole frames, and with masks those of the person's and the scene's part (rest black in both).

    A frame of which nothing belongs to a part is not judged for it: two black pictures would be equal.
    """
    found = ClipReadings(protocol={"masked parts": "fill: outside of the part both clips are black"})
    if pair.truth is None:
        found.unavailable.update(dict.fromkeys(PIXEL_METRICS, "unavailable: needs --truth"))
        return found
    pred, truth, masks = pair.read_pred(), pair.read_truth(), pair.read_masks()
    for part in ("all", "fg", "bg") if masks is not None else ("all",):
        inside = None if masks is None or part == "all" else masks if part == "fg" else ~masks
        for name in PIXEL_METRICS:
            if min(truth.shape[1:3]) < LEAST_SIDE.get(name, 1):
                found.unavailable[full_name(name, part)] = _too_small(truth)
                continue
            scores = measure_clip(name, pred, truth, masks=inside)
            found.readings[full_name(name, part)] = Reading.of_frames(scores.values)
        _add_lpips(found, pred, truth, inside, part)
    return found


def _too_small(frames: np.ndarray) -> str:
    return f"unavailable: frames of {frames.shape[2]} x {frames.shape[1]} are smaller than its window"


LEAST_SIDE = {"ssim_disco": 7, "ssim_gaussian": 11}
"""Smallest side that a metric's window fits into."""
LPIPS = (("vgg", "unit"), ("vgg", "signed"), ("alex", "unit"), ("alex", "signed"), ("st-vgg", "signed"))
"""Backbones and value ranges that are measured where their files are here."""


def _add_lpips(
    found: ClipReadings, pred: np.ndarray, truth: np.ndarray, inside: np.ndarray | None, part: str
) -> None:
    from xdyna.evaluation.lpips import lpips_clip, lpips_name

    for backbone, value_range in LPIPS:
        name = full_name(lpips_name(backbone, value_range), part)

        def measure(
            name: str = name, backbone: str = backbone, value_range: str = value_range
        ) -> dict[str, Reading]:
            network = lpips_network(backbone)
            if min(truth.shape[1:3]) < network.smallest_side:
                found.unavailable[name] = _too_small(truth)
                return {}
            scores = lpips_clip(network, pred, truth, masks=inside, value_range=value_range)
            return {name: Reading.of_frames(scores.values)}

        found.attempt([name], measure)


@cache
def lpips_network(backbone: str) -> Lpips:
    """One of `LPIPS`, loaded once a process.

    Raises:
        MissingWeights: a file is not here.
    """
    from xdyna.evaluation.lpips import find_lpips

    return find_lpips(backbone)


def motion_suite(pair: Pair) -> ClipReadings:
    """How the scene moves, what flickers and drifts, and whether the body follows."""
    found = ClipReadings()
    pred = pair.read_pred()
    if pair.truth is None:
        found.unavailable.update(dict.fromkeys(SCENE_METRICS, "unavailable: needs --truth"))
    else:
        masks = pair.read_masks()
        if masks is None:
            found.protocol["scene"] = "the whole picture: no --masks were given"
        found.readings.update(_scene(read_motion(pred, pair.read_truth(), person=masks), len(pred)))
    target = pair.read_driving() if pair.driving is not None else pair.read_truth()
    found.protocol["joints"] = "MediaPipe Holistic on both; target: " + (
        "driving" if pair.driving else "truth"
    )

    def people() -> dict[str, Reading]:
        theirs = find_person(target, source=str((pair.driving or pair.truth or pair.pred).path))
        read = compare_keypoints(find_person(pred, source=str(pair.pred.path)), theirs)
        return {
            "joint_error_pct": Reading.of_clip(read.joint_error_pct, len(pred), curve=read.joint_curve),
            "pck": Reading.of_clip(read.pck, len(pred)),
            "hand_error_pct": Reading.of_clip(read.hand_error_pct, len(pred)),
        }

    found.attempt(("joint_error_pct", "pck", "hand_error_pct"), people)
    return found


SCENE_METRICS = (
    "scene_motion_ratio",
    "false_motion",
    "flicker_ratio",
    "person_flicker_ratio",
    "colour_drift",
)


def _scene(read: MotionReadings, frames: int) -> dict[str, Reading]:
    found = {
        "false_motion": Reading.of_clip(read.false_motion, frames),
        "colour_drift": Reading.of_clip(read.colour_drift, frames, curve=read.drift_curve),
    }
    pairs = {
        "flicker_ratio": (read.flicker, read.flicker_true),
        "person_flicker_ratio": (read.person_flicker, read.person_flicker_true),
    }
    if read.scene_motion_ratio is not None:
        pairs["scene_motion_ratio"] = (read.scene_motion, read.scene_motion_true)
    for name, (above, below) in pairs.items():
        if above is not None and below:
            found[name] = Reading.of_ratio(above, below, frames)
    return found


CLIP_SUITES: dict[str, Callable[[Pair], ClipReadings]] = {
    "pixel": pixel_suite,
    "face": face_suite,
    "motion": motion_suite,
}
