"""Every row of the paper's Table 4 that is a model of its own: saved, loaded and animated, at tiny width.

The sixth row, `wo_fusion`, is the full model trained on people only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny import PRESET, dancer, noise_frames, tiny_components
from xdyna import weights
from xdyna.conditions.draw import draw_pose
from xdyna.errors import WeightsError
from xdyna.options import AnimateOptions
from xdyna.pipeline import XDynaPipeline

FRAMES = 5
PICTURES = noise_frames(2, (120, 90), seed=1)


@dataclass(frozen=True)
class Row:
    reference: str = "dynamics-adapter"
    face: bool = True
    landmarks: bool = False
    own_pose: bool = False
    moved: bool = False


ROWS = {
    "full": Row(),
    "w_refnet": Row(reference="reference-net"),
    "w_ip_adapter": Row(reference="ip-adapter"),
    "w_landmarks": Row(face=False, landmarks=True),
    "wo_face": Row(face=False),
    "own_pose": Row(own_pose=True),
    "moved": Row(moved=True),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablations")
    for name, row in ROWS.items():
        parts = tiny_components(reference=row.reference, moved=row.moved)
        if not row.face:
            parts["face_controlnet"] = None
        preset = replace(PRESET, landmarks=row.landmarks, reference_pose=row.own_pose)
        weights.save_model(folder / name, parts, storage="fp32", preset=preset)
    dancer(FRAMES).save(folder / "dance.npz")
    dancer(1, (120, 90)).save(folder / "person.npz")
    dancer(1, (120, 90)).moved(np.array([[1, 0, 20], [0, 1, 9]], np.float32), (120, 90)).save(
        folder / "elsewhere.npz"
    )
    return folder


def animate(folder: Path, name: str, *, picture: int = 0, **changes: object) -> np.ndarray:
    settings: dict = {
        "model": str(folder / name),
        "keypoints": str(folder / "dance.npz"),
        "reference_keypoints": str(folder / "person.npz"),
        "window": 4,
        "overlap": 1,
    }
    pipeline = XDynaPipeline.from_pretrained(folder / name, device="cpu")
    options = AnimateOptions(**(settings | changes))
    return pipeline(PICTURES[picture], noise_frames(FRAMES), options=options).frames


@pytest.mark.parametrize("name", ROWS)
def test_it_animates_from_its_folder(folder: Path, name: str) -> None:
    frames = animate(folder, name)
    assert len(frames) == FRAMES
    assert frames.std() > 1
    # Weights are random, so how much changes means nothing; that something does tells that it is read.
    assert not np.array_equal(frames, animate(folder, name, picture=1)), "the reference"
    assert not np.array_equal(frames, animate(folder, name, pose_scale=0.0)), "the driver's pose"
    unfaced = animate(folder, name, face_scale=0.0)
    assert np.array_equal(frames, unfaced) is not ROWS[name].face, "the driver's face"


@pytest.mark.parametrize("name", ["full", "own_pose", "moved"])
def test_the_references_own_pose_is_read_by_a_model_that_is_told_it(folder: Path, name: str) -> None:
    # without alignment, where the reference person stands matters for nothing else
    here = animate(folder, name, align="none")
    there = animate(folder, name, align="none", reference_keypoints=str(folder / "elsewhere.npz"))
    assert np.array_equal(here, there) is (name == "full")


@pytest.mark.parametrize("name", ["w_refnet", "w_ip_adapter"])
def test_nothing_of_the_picture_is_left_at_scale_zero(folder: Path, name: str) -> None:
    """Where no frame of the clip is the reference: pure noise at the start, and scale 0, and it is gone."""
    one, other = (animate(folder, name, picture=n, reference_scale=0.0) for n in (0, 1))
    assert np.array_equal(one, other)
    assert not np.array_equal(one, animate(folder, name))


@pytest.mark.parametrize("name", ROWS)
def test_its_folder_lists_what_it_has(folder: Path, name: str) -> None:
    entries = json.loads((folder / name / "model_index.json").read_text())
    present = {key for key, value in entries.items() if value is not None and not key.startswith("_")}
    wanted = {"unet", "vae", "scheduler", "pose_controlnet"}
    wanted |= {"face_controlnet"} if ROWS[name].face else set()
    wanted |= {"w_refnet": {"reference_net"}, "w_ip_adapter": {"reference_encoder"}}.get(name, set())
    assert present == wanted
    assert entries["_preset"]["landmarks"] is ROWS[name].landmarks


@pytest.mark.parametrize("name", ["w_refnet", "w_ip_adapter"])
@pytest.mark.parametrize("storage", ["fp16", "int8"])
def test_it_stores_small_and_loads_again(folder: Path, tmp_path: Path, name: str, storage: str) -> None:
    parts = weights.load_components(folder / name)
    weights.save_model(tmp_path / "small", parts, storage=storage)
    again = weights.load_components(tmp_path / "small")
    for part in ("unet", "reference_net", "reference_encoder"):
        assert (parts[part] is None) == (again[part] is None)
        if parts[part] is not None:
            stored = again[part].state_dict()
            for key, value in parts[part].state_dict().items():
                torch.testing.assert_close(stored[key], value, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("name", ["w_refnet", "w_ip_adapter"])
def test_with_offload_it_is_the_same(folder: Path, name: str) -> None:
    options = AnimateOptions(
        model=str(folder / name),
        keypoints=str(folder / "dance.npz"),
        reference_keypoints=str(folder / "person.npz"),
        window=4,
        overlap=1,
    )
    pipeline = XDynaPipeline.from_pretrained(folder / name, device="cpu", offload=True)
    frames = pipeline(PICTURES[0], noise_frames(FRAMES), options=options).frames
    assert np.array_equal(frames, animate(folder, name))


def test_landmarks_are_drawn_for_the_model_that_knows_them(folder: Path) -> None:
    options = AnimateOptions(
        keypoints=str(folder / "dance.npz"), reference_keypoints=str(folder / "person.npz"), align="retarget"
    )
    shown = {}
    for name in ("w_landmarks", "wo_face"):
        pipeline = XDynaPipeline.from_pretrained(folder / name, device="cpu")
        prepared = pipeline.prepare(PICTURES[0], noise_frames(FRAMES), options)
        shown[name] = prepared.conditions.pose([2])[0]
        keypoints = prepared.conditions.keypoints
        assert keypoints is not None
        wanted = draw_pose(keypoints, 2, landmarks=name == "w_landmarks")
        assert np.array_equal(shown[name], wanted)
        prepared.conditions.close()
    assert (shown["w_landmarks"] != shown["wo_face"]).any()


def test_a_folder_without_its_reference_net_says_so(folder: Path, tmp_path: Path) -> None:
    parts = weights.load_components(folder / "w_refnet")
    weights.save_model(tmp_path / "lacking", parts | {"reference_net": None}, storage="fp32")
    with pytest.raises(
        WeightsError, match="reference_net: is missing: the denoiser reads what a ReferenceNet saw"
    ):
        XDynaPipeline.from_pretrained(tmp_path / "lacking", device="cpu")
