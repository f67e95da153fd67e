from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conditions.skeletons import person
from xdyna.conditions.given import BODY_FROM_BODY25, PoseVideo, read_keypoints
from xdyna.conditions.keypoints import PARTS, Keypoints
from xdyna.errors import InputError, OptionError

SIZE = (600, 400)


def flat(points: np.ndarray) -> list[float]:
    return [float(n) for n in points.reshape(-1)]


def entry(clip: Keypoints, index: int, *, body25: bool = False) -> dict[str, Any]:
    body = clip.body[index]
    if body25:
        wide = np.zeros((25, 3))
        wide[list(BODY_FROM_BODY25)] = body
        wide[8] = (1, 2, 0.9)
        body = wide
    return {
        "person_id": [-1],
        "pose_keypoints_2d": flat(body),
        "face_keypoints_2d": flat(np.concatenate([clip.face[index], np.ones((2, 3))])),
        "hand_left_keypoints_2d": flat(clip.left_hand[index]),
        "hand_right_keypoints_2d": flat(clip.right_hand[index]),
        "pose_keypoints_3d": [],
    }


def write_folder(folder: Path, *clips: Keypoints, body25: bool = False) -> Path:
    folder.mkdir()
    for index in range(len(clips[0])):
        people = [entry(clip, index, body25=body25) for clip in clips]
        name = f"dance_{index:012d}_keypoints.json"
        (folder / name).write_text(json.dumps({"version": 1.3, "people": people}))
    return folder


def assert_same(got: object, wanted: Keypoints) -> None:
    assert isinstance(got, Keypoints)
    assert got.size == wanted.size
    for name in PARTS:
        np.testing.assert_allclose(getattr(got, name), getattr(wanted, name), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("body25", [False, True])
def test_a_folder_as_openpose_writes_it(tmp_path: Path, body25: bool) -> None:
    clip = person(12, motion=0.4)
    assert_same(read_keypoints(write_folder(tmp_path / "json", clip, body25=body25), size=SIZE), clip)


def test_one_file_with_all_frames_and_its_own_size(tmp_path: Path) -> None:
    clip = person(3, motion=0.4)
    frames = [{"people": [entry(clip, i)], "canvas_height": 600, "canvas_width": 400} for i in range(3)]
    file = tmp_path / "poses.json"
    file.write_text(json.dumps(frames))
    assert_same(read_keypoints(file, size=SIZE), clip)
    assert_same(read_keypoints(file, size=(300, 200)), clip.moved(np.eye(2, 3) / 2, (300, 200)))


def test_shares_of_the_frame(tmp_path: Path) -> None:
    clip = person(2)
    shares = clip.moved(np.array([[1 / 400, 0, 0], [0, 1 / 600, 0]]), SIZE)
    (tmp_path / "poses.json").write_text(json.dumps([{"people": [entry(shares, i)]} for i in range(2)]))
    got = read_keypoints(tmp_path / "poses.json", size=SIZE)
    assert isinstance(got, Keypoints)
    np.testing.assert_allclose(got.body, clip.body, atol=1e-3)


def test_several_people_and_missing_parts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    large, small = person(5, at=(280, 150)), person(5, scale=0.4, at=(60, 300))
    folder = write_folder(tmp_path / "json", small, large)
    with caplog.at_level(logging.WARNING):
        got = read_keypoints(folder, size=SIZE)
    assert "2 people found" in caplog.text
    assert_same(got, large)
    assert_same(read_keypoints(folder, size=SIZE, person=2), small)
    with pytest.raises(OptionError, match="Give 1 to 2"):
        read_keypoints(folder, size=SIZE, person=3)
    only_body = {"people": [{"pose_keypoints_2d": flat(large.body[0]), "hand_left_keypoints_2d": []}]}
    (tmp_path / "one.json").write_text(json.dumps(only_body))
    bare = read_keypoints(tmp_path / "one.json", size=SIZE)
    assert isinstance(bare, Keypoints)
    assert len(bare) == 1
    assert bare.face.max() == bare.left_hand.max() == 0


def test_frames_without_anybody_stay_empty(tmp_path: Path) -> None:
    clip = person(5)
    frames: list[dict[str, Any]] = [{"people": [entry(clip, i)]} for i in range(5)]
    frames[2] = {"people": []}
    (tmp_path / "poses.json").write_text(json.dumps(frames))
    got = read_keypoints(tmp_path / "poses.json", size=SIZE)
    assert isinstance(got, Keypoints)
    assert got.body[2].max() == 0
    np.testing.assert_allclose(got.body[3], clip.body[3])


def test_our_own_file(tmp_path: Path) -> None:
    clip = person(3, motion=0.4)
    clip.save(tmp_path / "keypoints.npz")
    assert_same(read_keypoints(tmp_path / "keypoints.npz", size=SIZE), clip)
    half = read_keypoints(tmp_path / "keypoints.npz", size=(300, 200))
    assert_same(half, clip.moved(np.eye(2, 3) / 2, (300, 200)))
    with pytest.raises(
        InputError, match="made for frames of 400 x 600, but the driving video's are 600 x 400"
    ):
        read_keypoints(tmp_path / "keypoints.npz", size=(400, 600))


def test_anything_else_is_a_pose_video(tmp_path: Path) -> None:
    (tmp_path / "pose.mp4").write_bytes(b"not looked into here")
    assert read_keypoints(tmp_path / "pose.mp4", size=SIZE) == PoseVideo(tmp_path / "pose.mp4")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is no JSON file"),
        ("[]", "holds no frames"),
        ('{"a": 1}', "is not as OpenPose writes it"),
        ('{"people": [{"pose_keypoints_2d": [1, 2]}]}', "no list of x, y, score"),
        ('{"people": [{"pose_keypoints_2d": [1, 2, 1]}]}', "has 1 points, not 18"),
        ('{"people": [{"pose_keypoints_2d": ["a", 2, 1]}]}', "is not as OpenPose writes it"),
        ('{"people": [3]}', "is not as OpenPose writes it"),
        ('{"people": []}', "no person found"),
    ],
)
def test_unusable_json(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "poses.json").write_text(text)
    with pytest.raises(InputError, match=problem):
        read_keypoints(tmp_path / "poses.json", size=SIZE)


def test_missing_paths(tmp_path: Path) -> None:
    for name in ("absent.json", "absent.npz", "absent.mp4", "absent"):
        with pytest.raises(InputError, match="no such file or folder"):
            read_keypoints(tmp_path / name, size=SIZE)
    with pytest.raises(InputError, match=r"has no \.json files"):
        read_keypoints(tmp_path, size=SIZE)
