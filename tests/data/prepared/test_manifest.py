from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest

from tests.media.moving import moving_clip
from xdyna import media
from xdyna.data.prepared.manifest import ClipRow, manifest_hash, read_manifest, write_manifest
from xdyna.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    media.write_clip(moving_clip(9, fps=Fraction(30000, 1001)), tmp_path / "v.mp4", ai_generated=False)
    (tmp_path / "k.npz").write_bytes(b"x")
    (tmp_path / "m.npz").write_bytes(b"x")
    return tmp_path


def row(folder: Path) -> ClipRow:
    return ClipRow(
        video=folder / "v.mp4", kind="human", start=1, end=8, fps=Fraction(30000, 1001), size=(48, 64),
        keypoints=folder / "k.npz", mask=folder / "m.npz", person=0.9, face=0.5, people=1, hash="sha256:0",
        source="/videos/v.mov#1-8",
    )  # fmt: skip


def test_rows_come_back_as_they_were(folder: Path) -> None:
    path = write_manifest(folder / "manifest.jsonl", [row(folder), row(folder)])
    assert read_manifest(path) == read_manifest(folder) == [row(folder), row(folder)]
    assert len(row(folder)) == 7


def test_paths_below_the_folder_are_relative(folder: Path) -> None:
    path = write_manifest(folder / "sub" / "manifest.jsonl", [row(folder)])
    assert json.loads(path.read_text())["video"] == str(folder / "v.mp4")
    path = write_manifest(folder / "manifest.jsonl", [row(folder)])
    line = json.loads(path.read_text())
    assert (line["video"], line["keypoints"]) == ("v.mp4", "k.npz")
    assert line["fps"] == "30000/1001"
    moved = folder.with_name("moved")
    folder.rename(moved)
    assert read_manifest(moved) == [row(moved)]


def test_a_scene_needs_its_video_only(folder: Path) -> None:
    (folder / "manifest.jsonl").write_text('{"video": "v.mp4", "kind": "scene"}\n\n')
    (scene,) = read_manifest(folder)
    assert (scene.start, scene.end, scene.fps, scene.size) == (0, 9, Fraction(30000, 1001), (48, 64))
    assert scene.keypoints is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vidoe": "v.mp4"}, "unknown key 'vidoe'"),
        ({"video": None}, "lacks 'video'"),
        ({"kind": None}, "lacks 'kind'"),
        ({"kind": "dog"}, "must be human or scene"),
        ({"keypoints": None}, "needs keypoints"),
        ({"video": "gone.mp4"}, "gone.mp4' does not exist"),
        ({"mask": "gone.npz"}, "its mask"),
        ({"start": "1"}, "wrong type"),
        ({"start": True}, "wrong type"),
        ({"start": 8}, "no frames"),
        ({"start": -1}, "no frames"),
        ({"fps": 0}, "must be above 0"),
        ({"fps": "1/0"}, "must be above 0"),
        ({"fps": "fast"}, "must be above 0"),
        ({"size": [48]}, "[height, width]"),
        ({"size": [48, -1]}, "[height, width]"),
        ({"person": 1.5}, "a share from 0 to 1"),
    ],
)
def test_bad_lines_name_file_and_line(folder: Path, change: dict, words: str) -> None:
    path = write_manifest(folder / "manifest.jsonl", [row(folder)])
    line = {**json.loads(path.read_text()), **change}
    line = {name: value for name, value in line.items() if value is not None}
    path.write_text(path.read_text() + json.dumps(line) + "\n")
    with pytest.raises(InputError) as caught:
        read_manifest(path)
    assert f"{path}, line 2: " in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n", "holds no clip"),
        ("{", "line 1: is not valid JSON"),
        ("[1]", "is not a JSON object"),
    ],
)
def test_what_is_no_manifest(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "manifest.jsonl").write_text(text)
    with pytest.raises(InputError, match="manifest") as caught:
        read_manifest(tmp_path)
    assert words in str(caught.value)


def test_a_folder_without_manifest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_manifest(tmp_path)


def test_the_hash_follows_the_content(folder: Path) -> None:
    write_manifest(folder / "manifest.jsonl", [row(folder)])
    first = manifest_hash(folder)
    assert first == manifest_hash(folder / "manifest.jsonl")
    write_manifest(folder / "manifest.jsonl", [row(folder), row(folder)])
    assert manifest_hash(folder) != first
