from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from xdyna.conditions.keypoints import PARTS, Keypoints
from xdyna.evaluation.people import compare_keypoints, find_person


def someone(frames: int = 3) -> Keypoints:
    rng = np.random.default_rng(0)
    parts = {n: rng.uniform(10, 90, (frames, c, 3)).astype(np.float32) for n, c in PARTS.items()}
    for points in parts.values():
        points[..., 2] = 1
    return Keypoints(**parts, size=(100, 100))


def test_the_same_person() -> None:
    read = compare_keypoints(someone(), someone())
    assert read.joint_error_pct == 0
    assert read.pck == 1
    assert read.hand_error_pct == 0
    assert read.joints_found == read.hands_found == 1


def test_a_shift_in_percent_of_the_width_whatever_the_size() -> None:
    truth = someone()
    moved = truth.moved(np.array([[1, 0, 3], [0, 1, 4]], np.float32), (100, 100))
    read = compare_keypoints(moved, truth)
    assert read.joint_error_pct == pytest.approx(5, abs=1e-4)
    assert read.hand_error_pct == pytest.approx(5, abs=1e-4)
    doubled = truth.moved(np.array([[2, 0, 6], [0, 2, 8]], np.float32), (200, 200))
    assert compare_keypoints(doubled, truth).joint_error_pct == pytest.approx(5, abs=1e-4)


def test_a_joint_that_is_not_found_is_wrong_for_pck_and_no_distance() -> None:
    truth = someone()
    body = truth.body.copy()
    body[:, 0] = 0
    read = compare_keypoints(replace(truth, body=body), truth)
    assert read.joint_error_pct == 0
    assert read.pck == read.joints_found == pytest.approx(13 / 14)


def test_nobody_there_gives_none() -> None:
    nobody = Keypoints.empty(3, (100, 100))
    read = compare_keypoints(nobody, someone())
    assert read.joint_error_pct is None
    assert read.pck == 0
    read = compare_keypoints(someone(), nobody)
    assert read.pck is None
    assert all(np.isnan(v) for v in read.joint_curve)
    with pytest.raises(ValueError, match="frames"):
        compare_keypoints(someone(2), someone(3))


def test_a_clip_without_people() -> None:
    found = find_person(np.zeros((2, 64, 64, 3), np.uint8), source="black.mp4")
    assert len(found) == 2
    assert not found.body.any()
