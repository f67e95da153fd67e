"""A tiny model, a picture, a driving video and keypoints, and lists of clips made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.tiny import dancer, noise_frames, tiny_model, write_video

FRAMES = 9


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all inputs."""
    folder = tmp_path_factory.mktemp("inputs")
    Image.fromarray(noise_frames(1, (120, 90), seed=1)[0]).save(folder / "person.png")
    write_video(folder / "dance.mp4", noise_frames(FRAMES))
    dancer(FRAMES).save(folder / "dance.npz")
    dancer(1, (120, 90)).save(folder / "person.npz")
    tiny_model(folder / "model")
    return folder


ENTRY = {
    "image": "person.png", "video": "dance.mp4", "keypoints": "dance.npz", "reference_keypoints": "person.npz",
    "model": "model", "frames": 3, "steps": 1,
}  # fmt: skip


def write_list(inputs: Path, name: str, *entries: dict[str, Any]) -> Path:
    """A list of clips in the inputs' folder."""
    path = inputs / f"{name}.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path
