from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from tests.media.moving import moving_clip
from xdyna import media
from xdyna.errors import InputError
from xdyna.media import ClipWriter
from xdyna.media.seek import FrameReader


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty frames with a key frame in eight, and frames between that look both ways."""
    path = tmp_path_factory.mktemp("seek") / "v.mp4"
    clip = moving_clip(40)
    with ClipWriter(path, size=clip.size, fps=clip.fps, key_every=8) as writer:
        for frame in clip.frames:
            writer.write(frame)
    return path


@pytest.mark.parametrize("numbers", [[0], [39], [5, 3, 30, 3], list(range(7, 25)), [15, 16, 38]])
def test_frames_by_number_are_those_of_the_stream(video: Path, numbers: list[int]) -> None:
    reader = FrameReader(video)
    assert reader.seekable
    assert reader.frames == 40
    np.testing.assert_array_equal(reader.read(numbers), media.read_clip(video).frames[numbers])


def test_key_frames_stand_where_they_were_asked_for(video: Path) -> None:
    with av.open(str(video)) as container:
        keys = [frame.pts for frame in container.decode(video=0) if frame.key_frame]
    assert [round(k / keys[1] * 8) for k in keys] == [0, 8, 16, 24, 32]


def test_a_video_without_times_is_decoded_from_its_beginning(tmp_path: Path) -> None:
    clip = moving_clip(12)
    path = tmp_path / "raw.h264"
    with av.open(str(path), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=clip.fps)
        stream.height, stream.width = clip.size
        stream.pix_fmt = "yuv420p"
        for frame in clip.frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    reader = FrameReader(path)
    assert not reader.seekable
    np.testing.assert_array_equal(reader.read([11, 2]), media.read_clip(path).frames[[11, 2]])
    with pytest.raises(InputError, match="no frame number 12"):
        reader.read([12])


def test_a_number_that_is_not_there(video: Path) -> None:
    for number in (40, -1):
        with pytest.raises(InputError, match=f"no frame number {number}; it has 40 frames"):
            FrameReader(video).read([3, number])


def test_sequential_readers_give_the_same(video: Path) -> None:
    reader = FrameReader(video, sequential=True)
    assert not reader.seekable
    np.testing.assert_array_equal(reader.read([20, 1]), FrameReader(video).read([20, 1]))


def test_lossless_keeps_every_value_and_odd_sides(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 33, 47, 3), dtype=np.uint8)
    with ClipWriter(tmp_path / "l.mp4", size=(33, 47), fps=8, lossless=True) as writer:
        for frame in frames:
            writer.write(frame)
    np.testing.assert_array_equal(media.read_clip(tmp_path / "l.mp4").frames, frames)
