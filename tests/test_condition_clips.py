"""Driving video to condition clips, and the `conditions` verb."""

from __future__ import annotations

import logging
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests import tiny
from tests.tiny import dancer, noise_frames, write_video
from xdyna import media
from xdyna.cli import main
from xdyna.condition_clips import ConditionClips, make_conditions
from xdyna.conditions.draw import draw_pose
from xdyna.conditions.keypoints import Keypoints
from xdyna.driving import canvas_size, open_driving
from xdyna.errors import InputError
from xdyna.media import Clip
from xdyna.model_preset import ModelPreset
from xdyna.options import AnimateOptions
from xdyna.weights import save_model

CANVAS = (80, 64)


def clip(frames: int = 6) -> Clip:
    return Clip(frames=noise_frames(frames), fps=Fraction(8))


def saved(folder: Path, frames: int = 6, *, face: bool = True) -> str:
    keypoints = dancer(frames)
    if not face:
        keypoints = replace(keypoints, face=np.zeros_like(keypoints.face))
    keypoints.save(folder / "k.npz")
    return str(folder / "k.npz")


def test_pictures_come_back_in_any_order() -> None:
    pictures = noise_frames(5, CANVAS)
    with ConditionClips(size=CANVAS, fps=Fraction(8)) as clips:
        for picture in pictures:
            clips.append(picture, picture // 2, picture // 4)
        assert (clips.pose([4, 0, 4]) == pictures[[4, 0, 4]]).all()
        assert (clips.face_local([2]) == pictures[[2]] // 2).all()
        assert (clips.face_global([3]) == pictures[[3]] // 4).all()
        assert clips.extremes["pose"] == (pictures.min(), pictures.max())


def test_scratch_files_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    options = AnimateOptions(keypoints=str(tmp_path / "missing.npz"))
    with pytest.raises(InputError, match=r"missing\.npz"):
        make_conditions(open_driving(clip(), options), None, options=options, canvas=CANVAS)
    options = AnimateOptions(keypoints=saved(tmp_path, 3))
    with pytest.raises(InputError, match="too few"):
        make_conditions(
            open_driving(clip(), replace(options, frames=6)), None, options=options, canvas=CANVAS
        )
    assert [path.name for path in tmp_path.iterdir()] == ["k.npz"]


def test_pose_and_face_follow_the_driver(tmp_path: Path) -> None:
    options = AnimateOptions(keypoints=saved(tmp_path))
    with make_conditions(open_driving(clip(), options), None, options=options, canvas=CANVAS) as clips:
        assert clips.frames == clips.faces_found == 6
        assert clips.pose([0]).any()
        assert (clips.pose([0]) != clips.pose([4])).any()
        local, whole = clips.face_local([0])[0], clips.face_global([0])[0]
        assert 0 < (local > 0).sum() < (whole > 0).sum() < whole.size


def test_a_close_up_is_cut_from_the_pixels_as_given(tmp_path: Path) -> None:
    dancer(1, CANVAS).save(tmp_path / "own.npz")
    options = AnimateOptions(keypoints=saved(tmp_path), reference_keypoints=str(tmp_path / "own.npz"))
    large = np.kron(noise_frames(1, CANVAS, seed=3)[0], np.ones((4, 4, 1), np.uint8))
    large[::2, ::2] //= 2  # what only the large picture shows
    reference = media.crop_to(large, CANVAS)
    driving = open_driving(clip(), options)
    with make_conditions(
        driving, reference, options=options, canvas=CANVAS, picture=large, close_up=96
    ) as clips:
        assert clips.near is not None
        path, shown, near = clips.near
        assert (near.frames, near.size, shown.shape) == (6, (96, 96), (96, 96, 3))
        assert near.faces_found == 6
        left, top, side = path.reference
        cut = large[round(top * 4) : round((top + side) * 4), round(left * 4) : round((left + side) * 4)]
        expected = cv2.resize(cut, (96, 96), interpolation=cv2.INTER_AREA)
        soft = cv2.resize(
            media.crop_to(cut, (round(side), round(side))), (96, 96), interpolation=cv2.INTER_CUBIC
        )
        gap, worse = (np.abs(picture.astype(int) - expected).mean() for picture in (shown, soft))
        assert gap < worse
        assert near.keypoints is not None
        assert (near.pose([3])[0] == draw_pose(near.keypoints, 3)).all()
        assert near.own_pose().any()
        assert near.face_global([2]).any()
        near.append_result(shown)
        assert (near.result([0])[0] == shown).all()
        folder = near._place
    assert not folder.exists()
    with make_conditions(driving, reference, options=options, canvas=CANVAS, close_up=16) as clips:
        assert clips.near is None


def test_without_a_face_there_is_a_warning_and_a_blank(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = AnimateOptions(keypoints=saved(tmp_path, face=False))
    with (
        caplog.at_level(logging.WARNING),
        make_conditions(open_driving(clip(), options), None, options=options, canvas=CANVAS) as clips,
    ):
        assert clips.faces_found == 0
        assert not clips.face_global([0, 5]).any()
    assert "no face found in any of 6 frames" in caplog.text


def test_the_references_own_pose_where_a_model_is_told_it(tmp_path: Path) -> None:
    dancer(1, size=CANVAS).save(tmp_path / "r.npz")
    reference = noise_frames(1, CANVAS)[0]
    given = {"keypoints": saved(tmp_path), "reference_keypoints": str(tmp_path / "r.npz")}
    for mode in ("retarget", "none"):
        options = AnimateOptions(**given, align=mode)
        with make_conditions(
            open_driving(clip(), options), reference, options=options, canvas=CANVAS, reference_pose=True
        ) as clips:
            assert clips.reference_pose is not None
            assert np.array_equal(clips.reference_pose, draw_pose(Keypoints.load(tmp_path / "r.npz"), 0))
    with make_conditions(open_driving(clip(), options), reference, options=options, canvas=CANVAS) as clips:
        assert clips.reference_pose is None, "not asked for"
    options = AnimateOptions(keypoints=given["keypoints"], align="none")
    with make_conditions(
        open_driving(clip(), options), reference, options=options, canvas=CANVAS, reference_pose=True
    ) as clips:
        assert clips.reference_pose is None, "nobody is found in noise"


def test_a_ready_pose_video_is_used_as_it_is(tmp_path: Path) -> None:
    poses = noise_frames(6, CANVAS, seed=4)
    path = write_video(tmp_path / "pose.mp4", poses)
    options = AnimateOptions(keypoints=str(path))
    with make_conditions(open_driving(clip(), options), None, options=options, canvas=CANVAS) as clips:
        shown = clips.pose(range(6)).astype(int)
    assert np.abs(shown - poses).mean() < 6  # the mp4's own loss
    short = write_video(tmp_path / "short.mp4", poses[:3])
    options = AnimateOptions(keypoints=str(short))
    with pytest.raises(InputError, match="fewer frames"):
        make_conditions(open_driving(clip(), options), None, options=options, canvas=CANVAS)


def test_nobody_in_the_video(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    video = write_video(tmp_path / "empty.mp4", np.full((4, 96, 72, 3), 90, np.uint8))
    assert main(["conditions", str(video), "-o", str(tmp_path / "out"), "-q"]) == 2
    message = capfd.readouterr().err
    assert "empty.mp4: no person found" in message
    assert "Traceback" not in message
    assert not (tmp_path / "out").exists()


def test_conditions_verb_writes_four_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = write_video(tmp_path / "dance.mp4", noise_frames(6))
    command = ["conditions", str(video), "-o", str(tmp_path / "out"), "--keypoints", saved(tmp_path), "-q"]
    assert main(command) == 0
    names = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert names == ["pose.mp4", "face.mp4", "keypoints.npz", "preview.png"]
    assert media.probe(tmp_path / "out" / "pose.mp4").frames == 6
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err


def test_conditions_of_a_model_that_reads_landmarks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, landmarks in (("plain", False), ("marked", True)):
        preset = replace(tiny.PRESET, landmarks=landmarks)
        save_model(tmp_path / name, tiny.tiny_components(), storage="fp32", preset=preset)
    video = write_video(tmp_path / "dance.mp4", noise_frames(3))
    command = ["conditions", str(video), "--keypoints", saved(tmp_path, 3), "-q"]
    for name in ("plain", "marked"):
        assert main([*command, "--model", str(tmp_path / name), "-o", str(tmp_path / f"of_{name}")]) == 0
    plain, marked = (
        np.stack([*media.read_clip(tmp_path / f"of_{name}" / "pose.mp4").frames]).astype(int)
        for name in ("plain", "marked")
    )
    wanted = canvas_size((96, 72), None, tiny.PRESET)
    assert plain.shape[1:3] == marked.shape[1:3] == wanted
    assert (abs(plain - marked).max(-1) > 60).any((1, 2)).all(), "white discs in every frame"
    capsys.readouterr()
    assert main([*command, "--model", "no/such/model", "-o", str(tmp_path / "out")]) == 2
    assert "no/such/model" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_canvas_keeps_the_aspect_at_the_native_area() -> None:
    preset = ModelPreset(height=256, width=256, multiple=32)
    for picture in ((1000, 1000), (896, 512), (480, 640)):
        height, width = canvas_size(picture, None, preset)
        assert height % 32 == width % 32 == 0
        assert height / width == pytest.approx(picture[0] / picture[1], rel=0.15)
        assert height * width == pytest.approx(256 * 256, rel=0.15)
    assert canvas_size((3084, 1700), None, ModelPreset()) == (896, 512)
    assert canvas_size((1, 1000), None, preset)[0] >= 64
    assert canvas_size((9, 9), "200x104", preset) == (104, 200)
