"""What the package ships: the embedded model, the demo, the examples."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xdyna import demo, media, weights
from xdyna.cli import main
from xdyna.conditions.keypoints import Keypoints

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The demo's person and motion, which MediaPipe has to find by itself."""
    person, motion, _, _ = demo.assets()
    return person, motion


def test_the_model_is_small_enough_and_whole() -> None:
    folder = weights.resolve("embedded")
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 32 * 2**20
    parts = weights.load_components(folder)
    assert all(parts[name] is not None for name in ("unet", "vae", "pose_controlnet", "face_controlnet"))
    assert (folder / "README.md").read_text().strip()


def test_demo_assets_fit_together() -> None:
    person, motion, motion_keypoints, person_keypoints = demo.assets()
    assert len(Keypoints.load(motion_keypoints)) == media.count_frames(motion) >= demo.FRAMES
    assert Keypoints.load(person_keypoints).size == media.read_image(person).shape[:2]


def test_demo_moves_and_is_no_copy_of_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "-o", str(tmp_path), "-q"]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in paths] == ["demo.mp4", "demo.json", "demo.compare.mp4", "demo.sheet.png"]
    frames = media.read_clip(paths[0]).frames.astype(float)
    assert len(frames) == demo.FRAMES
    assert np.abs(np.diff(frames, axis=0)).mean() > 0.5
    reference = media.crop_to(media.read_image(demo.assets()[0]), frames.shape[1:3]).astype(float)
    # the result is a picture of that person, not of anything else
    assert np.corrcoef(frames.mean(0).ravel(), reference.ravel())[0, 1] > 0.5


def test_raw_inputs_through_mediapipe(driver: tuple[Path, Path], tmp_path: Path) -> None:
    person, motion = driver
    command = ["animate", str(person), str(motion), "-o", str(tmp_path / "out.mp4"), "-q", "--frames", "4"]
    assert main([*command, "--steps", "2"]) == 0
    assert media.count_frames(tmp_path / "out.mp4") == 4


@pytest.mark.parametrize("name", ["animate.py", "stream.py"])
def test_examples_run(name: str, driver: tuple[Path, Path], tmp_path: Path) -> None:
    script = ROOT / "examples" / name
    assert len(script.read_text().splitlines()) <= 30
    output = tmp_path / ("out.mp4" if name == "animate.py" else "")
    command = [sys.executable, str(script), *map(str, driver), str(output)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    assert any(tmp_path.iterdir())
