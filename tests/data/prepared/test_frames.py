from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.media.moving import moving_clip
from xdyna import media
from xdyna.data.prepared.frames import content_hash, open_frames
from xdyna.errors import InputError


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A folder of twelve pictures whose names must be sorted by number."""
    frames = moving_clip(12).frames
    for index, frame in enumerate(frames):
        media.write_image(tmp_path / f"frame_{index}.png", frame, ai_generated=False)
    (tmp_path / "notes.txt").write_text("none")
    return tmp_path, frames


def test_a_folder_of_pictures_is_a_clip(pictures: tuple[Path, np.ndarray]) -> None:
    folder, frames = pictures
    opened = open_frames(folder)
    assert (opened.count(), opened.size, opened.fps, opened.seekable) == (12, (48, 64), Fraction(30), True)
    np.testing.assert_array_equal(opened.read([11, 2, 10]), frames[[11, 2, 10]])
    np.testing.assert_array_equal(np.stack(list(opened.stream(range(3, 6)))), frames[3:6])
    with pytest.raises(InputError, match="no frame number 12; it has 12 pictures"):
        opened.read([12])


def test_pictures_of_two_sizes(pictures: tuple[Path, np.ndarray]) -> None:
    folder, frames = pictures
    media.write_image(folder / "frame_5.png", frames[5][:40], ai_generated=False)
    opened = open_frames(folder)
    opened.read([4])
    with pytest.raises(
        InputError, match=r"frame_5.png: is 64 x 40 pixels, the folder's first picture 64 x 48"
    ):
        opened.read([5])


def test_a_video_file(tmp_path: Path) -> None:
    path = media.write_clip(moving_clip(8), tmp_path / "v.mp4")
    opened = open_frames(path)
    assert (opened.count(), opened.size, opened.fps, opened.seekable) == (8, (48, 64), Fraction(10), True)
    assert open_frames(path) is opened, "its table is made once"
    path.unlink()
    media.write_clip(moving_clip(9), path)
    os.utime(path, (1, 1))
    assert open_frames(path).count() == 9


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_frames(tmp_path / "none.mp4")
    with pytest.raises(InputError, match="holds no pictures"):
        open_frames(tmp_path)


def test_hashes_follow_the_content(
    pictures: tuple[Path, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, frames = pictures
    first = content_hash(folder)
    assert first == content_hash(folder)
    media.write_image(folder / "frame_3.png", 255 - frames[3], ai_generated=False)
    assert content_hash(folder) != first
    file = tmp_path_factory.mktemp("hash") / "a"
    file.write_bytes(b"abc")
    assert content_hash(file) == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
