from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from xdyna.conditions.face import (
    FaceTracker,
    crop_to_ratio,
    face_crops,
    increased_box,
    selected_frames,
)
from xdyna.errors import OptionError

PARITY = Path(os.environ.get("XDYNA_SHARED", Path(__file__).parents[3] / "shared")) / "reference" / "parity"
needs_fixtures = pytest.mark.skipif(
    not (PARITY / "x_face_crop.json").exists(), reason="the parity fixtures are not on this machine"
)


def oval(x: float, y: float, radius: float) -> np.ndarray:
    """68 points with score 1: jaw on a circle, eyes and mouth where they belong."""
    points = np.zeros((68, 3), np.float32)
    angles = np.linspace(np.pi, 0, 17)
    points[:17, :2] = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], 1)
    points[17:27, :2] = np.stack(
        [np.linspace(x - radius * 0.7, x + radius * 0.7, 10), np.full(10, y - radius)], 1
    )
    points[27:36, :2] = (x, y)
    points[36:42, :2] = (x - radius / 2, y - radius / 2)
    points[42:48, :2] = (x + radius / 2, y - radius / 2)
    points[48:, :2] = (x, y + radius / 2)
    points[:, 2] = 1
    return points


@needs_fixtures
def test_official_crops() -> None:
    from safetensors.numpy import load_file

    tensors = load_file(PARITY / "x_face_crop.safetensors")
    cases = json.loads((PARITY / "x_face_crop.json").read_text())["cases"]
    assert len(cases) == 9
    for name, case in cases.items():
        crops = face_crops(
            tensors["image"],
            tensors.get(f"{name}.landmarks"),
            last_box=tuple(case["last_bbox"]),
            last_centres=tuple(tuple(c) for c in case["last_center"]),
        )
        assert list(crops.box) == case["bbox"], name
        assert [list(c) for c in crops.centres] == case["centers_xy_left_right_mouth"], name
        np.testing.assert_array_equal(crops.local, tensors[f"{name}.local"], err_msg=name)
        np.testing.assert_array_equal(crops.global_, tensors[f"{name}.global"], err_msg=name)


@needs_fixtures
def test_official_numbers() -> None:
    numbers = json.loads((PARITY / "x_face_numbers.json").read_text())
    for case in numbers["increased_bbox"]["cases"]:
        assert list(increased_box(case["bbox"])) == case["out"]
    for case in numbers["crop2ratio"]:
        _, _, x, y, width, height = case["w_h_startw_starth_targetw_targeth"]
        box = crop_to_ratio(tuple(case["image_hw"]), tuple(case["resolution_hw"]))
        assert box == (x, y, x + width, y + height)
    for case in numbers["frame_selection"]:
        got = selected_frames(case["video_frames"], length=case["length"], stride=case["stride"])
        assert got == case["indices"]


def test_increased_box_by_hand() -> None:
    # Square of side 10 round (15, 25): 13.5 to each side, 12.5 up, 14.5 down, truncated towards 0.
    assert increased_box((10, 20, 20, 30)) == (1, 12, 28, 39)
    assert increased_box((0, 0, 10, 10)) == (-8, -7, 18, 19)


def test_crop_keeps_a_quarter_of_the_surplus_above() -> None:
    assert crop_to_ratio((1080, 1080), (896, 512)) == (231, 0, 848, 1080)
    assert crop_to_ratio((200, 100), (100, 100)) == (0, 25, 100, 125)


def test_official_patch_at_the_border_vanishes_but_the_tracked_one_does_not() -> None:
    frame = np.full((128, 128, 3), 200, np.uint8)
    face = oval(3, 60, 30)  # the right eye's patch starts at a negative column
    official, _ = FaceTracker("official").step(frame, face)
    tracked, whole = FaceTracker("tracked").step(frame, face)
    eye = (slice(43, 47), slice(0, 3))
    assert official[eye].max() == 0
    assert tracked[eye].min() == 200
    assert (whole > 0).sum() > (tracked > 0).sum() > 0


def test_a_lost_face_is_held_with_current_pixels_and_then_blank() -> None:
    tracker = FaceTracker(hold=3)
    first, _ = tracker.step(np.full((128, 128, 3), 10, np.uint8), oval(60, 60, 20))
    lit = first.max(-1) > 0
    for step in range(6):
        local, whole = tracker.step(np.full((128, 128, 3), 50, np.uint8), None)
        if step < 3:
            np.testing.assert_array_equal(local.max(-1) == 50, lit)
            assert whole.max() == 50
        else:
            assert local.max() == 0
            assert whole.max() == 0
    local, _ = tracker.step(np.full((128, 128, 3), 50, np.uint8), oval(60, 60, 20))
    assert (local.max(-1) == 50).sum() == lit.sum()


def test_official_mode_is_black_on_a_lost_face() -> None:
    tracker = FaceTracker("official")
    tracker.step(np.full((128, 128, 3), 10, np.uint8), oval(60, 60, 20))
    local, whole = tracker.step(np.full((128, 128, 3), 10, np.uint8), np.zeros((68, 3), np.float32))
    assert local.max() == 0
    assert whole.max() == 0


def test_the_box_follows_at_once_and_its_size_smoothly() -> None:
    frame = np.full((256, 256, 3), 9, np.uint8)
    tracker = FaceTracker()

    def extent(face: np.ndarray) -> tuple[float, float]:
        columns = np.nonzero(tracker.step(frame, face)[1].max((0, 2)))[0]
        return float(columns.mean()), float(len(columns))

    _, width = extent(oval(100, 128, 20))
    centre, same = extent(oval(140, 128, 20))
    assert centre == pytest.approx(140, abs=1.5)
    assert same == pytest.approx(width, abs=1)
    _, wider = extent(oval(140, 128, 30))
    assert width * 1.1 < wider < width * 1.3


@pytest.mark.parametrize(
    "face",
    [
        np.full((68, 3), np.nan, np.float32),
        np.zeros((68, 3), np.float32),
        oval(-500, -500, 30),
        oval(64, 64, 0),
        oval(64, 64, 5000),
    ],
    ids=["nan", "missing", "outside", "point", "huge"],
)
@pytest.mark.parametrize("mode", ["tracked", "official"])
def test_strange_landmarks_give_pixels_of_the_frame_or_black(face: np.ndarray, mode: str) -> None:
    frame = np.full((128, 128, 3), 77, np.uint8)
    for picture in FaceTracker(mode).step(frame, face):  # type: ignore[arg-type]
        assert picture.shape == frame.shape
        assert picture.dtype == np.uint8
        assert set(np.unique(picture)) <= {0, 77}


def test_some_missing_points_do_not_lose_the_face() -> None:
    frame = np.full((128, 128, 3), 77, np.uint8)
    face = oval(64, 64, 20)
    face[42:48] = 0  # an eye behind a hand
    local, whole = FaceTracker().step(frame, face)
    assert whole.max() == 77
    assert local[74, 64].max() == 77


@pytest.mark.parametrize("options", [{"mode": "best"}, {"hold": -1}, {"smoothing": 1.0}])
def test_bad_options(options: dict) -> None:
    with pytest.raises(OptionError, match="face"):
        FaceTracker(**options)
