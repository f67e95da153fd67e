from __future__ import annotations

import itertools
import logging
import os
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.media.moving import moving_clip, psnr, tone, write_sound_video
from xdyna.errors import InputError, OptionError
from xdyna.media import Clip, count_frames, probe, read_clip, stream_frames, write_clip
from xdyna.media import video as video_module

SHARED = Path(os.environ.get("XDYNA_SHARED", Path(__file__).parents[3] / "shared"))


@pytest.fixture(scope="module")
def clip() -> Clip:
    return moving_clip()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory, clip: Clip) -> Path:
    return write_clip(clip, tmp_path_factory.mktemp("video") / "a.mp4")


def message(path: Path) -> str:
    """What `probe` says; `stream_frames` must say the same when it is called, not later."""
    with pytest.raises(InputError) as caught:
        probe(path)
    with pytest.raises(InputError) as streamed:
        stream_frames(path)
    assert str(streamed.value) == str(caught.value)
    return str(caught.value)


class TestProbe:
    def test_facts(self, video: Path) -> None:
        info = probe(video)
        assert (info.height, info.width, info.fps, info.frames) == (48, 64, 10, 12)
        assert info.duration == pytest.approx(1.2)
        assert not info.has_audio

    def test_ntsc_rate_is_exact(self, tmp_path: Path) -> None:
        path = write_clip(moving_clip(30, fps=Fraction(30000, 1001)), tmp_path / "a.mp4")
        assert probe(path).fps == Fraction(30000, 1001)

    def test_sound(self, tmp_path: Path, clip: Clip) -> None:
        path = write_sound_video(tmp_path / "a.mp4", clip, tone(1.2, 48000, change=1), 48000)
        assert probe(path).has_audio

    def test_times_that_are_all_zero(self) -> None:
        path = SHARED / "examples" / "driving_1.mp4"
        if not path.exists():
            pytest.skip(f"no example videos at {path.parent}; set XDYNA_SHARED")
        info = probe(path)
        assert (info.fps, info.frames, info.duration) == (8, 96, 12.0)
        assert count_frames(path) == 96


class TestFrames:
    def test_all(self, video: Path, clip: Clip) -> None:
        read = read_clip(video)
        assert read.frames.shape == clip.frames.shape
        assert psnr(read.frames, clip.frames) > 32
        assert read.fps == 10
        assert count_frames(video) == len(read) == 12

    @pytest.mark.parametrize(
        ("start", "stride", "limit"), [(0, 1, 5), (3, 2, None), (1, 3, 2), (11, 1, 9), (0, 20, None)]
    )
    def test_chosen(self, video: Path, clip: Clip, start: int, stride: int, limit: int | None) -> None:
        read = read_clip(video, start=start, stride=stride, limit=limit)
        wanted = clip.frames[start::stride][:limit]
        assert read.frames.shape == wanted.shape
        # Frames differ by 8 levels of red each, so a frame off by one would show.
        assert np.abs(read.frames[:, 30:, :, 0].astype(float) - wanted[:, 30:, :, 0]).mean() < 2
        assert read.fps == Fraction(10) / stride

    def test_frames_are_independent(self, video: Path) -> None:
        first, second = itertools.islice(stream_frames(video), 2)
        kept = second.copy()
        first[:] = 0
        assert np.array_equal(second, kept)
        assert first.flags.c_contiguous

    @pytest.mark.parametrize("option", [{"start": -1}, {"stride": 0}, {"limit": 0}])
    def test_senseless_options(self, video: Path, option: dict[str, int]) -> None:
        with pytest.raises(OptionError, match=f"{next(iter(option))}: must be"):
            stream_frames(video, **option)

    def test_start_beyond_the_end(self, video: Path) -> None:
        with pytest.raises(InputError, match="has 12 frames, so there is none from number 12 on"):
            list(stream_frames(video, start=12))

    def test_one_frame(self, tmp_path: Path) -> None:
        path = write_clip(moving_clip(1), tmp_path / "a.mp4")
        assert count_frames(path) == len(read_clip(path)) == 1
        assert probe(path).fps == 10

    @pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (-90, 3), (180, 2)])
    def test_rotation_is_applied(self, tmp_path: Path, clip: Clip, degrees: int, turns: int) -> None:
        path = tmp_path / "a.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=10, options={"crf": "5"})
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            stream.set_display_rotation(degrees)
            for frame in clip.frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
        # The track header's matrix says how players turn the picture: (a, b) is where +x goes, y pointing down.
        header = path.read_bytes()
        a, b = struct.unpack_from(">ii", header, header.index(b"tkhd") + 4 + 40)
        across = {(1, 0): 0, (0, -1): 1, (-1, 0): 2, (0, 1): 3}[(a >> 16, b >> 16)]
        assert across == turns  # quarter turns counter-clockwise
        read = read_clip(path).frames
        info = probe(path)
        assert read.shape[1:3] == (info.height, info.width)
        assert psnr(read, np.rot90(clip.frames, turns, axes=(1, 2))) > 25

    def test_non_square_pixels_are_made_square(self, tmp_path: Path, clip: Clip) -> None:
        path = tmp_path / "a.mkv"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=10)
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
            for frame in clip.frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
        assert (probe(path).height, probe(path).width) == (48, 96)
        assert next(stream_frames(path)).shape == (48, 96, 3)

    def test_variable_rate_keeps_every_frame(self, tmp_path: Path, clip: Clip) -> None:
        path = tmp_path / "a.mkv"
        times = np.cumsum([0, 33, 70, 33, 200, 33, 33, 90, 33, 33, 33, 33])
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=1000)
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            stream.codec_context.time_base = Fraction(1, 1000)
            for time, frame in zip(times, clip.frames, strict=True):
                picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
                picture.pts, picture.time_base = int(time), Fraction(1, 1000)
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
        assert len(read_clip(path)) == count_frames(path) == 12
        assert 12 < probe(path).fps < 35

    def test_count_without_metadata(self, tmp_path: Path, clip: Clip) -> None:
        path = tmp_path / "a.mkv"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=10)
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            for frame in clip.frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
        assert probe(path).frames is None
        assert count_frames(path) == 12

    def test_gif(self, tmp_path: Path, clip: Clip) -> None:
        images = [Image.fromarray(frame) for frame in clip.frames]
        path = tmp_path / "a.gif"
        images[0].save(path, save_all=True, append_images=images[1:], duration=100)
        read = read_clip(path)
        assert read.frames.shape == clip.frames.shape
        assert read.fps == 10
        assert psnr(read.frames, clip.frames) > 25

    def test_odd_names(self, tmp_path: Path, video: Path) -> None:
        path = tmp_path / "pipe:0 %03d é.mp4"
        path.write_bytes(video.read_bytes())
        assert count_frames(path) == 12

    def test_memory_does_not_grow_with_length(self, tmp_path: Path) -> None:
        frame = np.zeros((240, 320, 3), np.uint8)
        path = tmp_path / "a.avi"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=30)
            stream.height, stream.width, stream.pix_fmt = 240, 320, "yuv420p"
            for index in range(700):
                frame[:, :, index % 3] = index % 251
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
        code = (
            "import resource, sys\n"
            "from xdyna.media import stream_frames\n"
            "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
            "for count, _ in enumerate(stream_frames(sys.argv[1]), 1):\n"
            "    if count == 200: early = peak()\n"
            "print(count, peak() - early)\n"
        )
        command = [sys.executable, "-c", code, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        count, growth = done.stdout.split()
        assert int(count) == 700
        assert float(growth) < 20  # MiB; the 500 frames that came after would be 110


class TestBadVideos:
    def test_missing_empty_folder(self, tmp_path: Path) -> None:
        assert "no such file" in message(tmp_path / "no.mp4")
        assert "is a folder, not a video" in message(tmp_path)
        (tmp_path / "a.mp4").touch()
        assert "is empty (0 bytes)" in message(tmp_path / "a.mp4")

    @pytest.mark.parametrize("name", ["a.mp4", "a.txt", "a.mkv"])
    def test_not_a_video(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_text("I am a letter, not a film.\n" * 50)
        assert "not a video" in message(tmp_path / name)

    @pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
    def test_picture(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"a.{suffix}"
        Image.new("RGB", (64, 64), (200, 10, 10)).save(path)
        assert "is a picture, not a video" in message(path)

    def test_animated_webp(self, tmp_path: Path) -> None:
        frames = [Image.new("RGB", (64, 64), colour) for colour in ((200, 10, 10), (10, 200, 10))]
        frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:])
        assert "is an animated WebP" in message(tmp_path / "a.webp")

    @pytest.mark.parametrize("suffix", ["m4a", "wav", "mp3"])
    def test_sound_only(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"a.{suffix}"
        codec = {"m4a": "aac", "wav": "pcm_s16le", "mp3": "libmp3lame"}[suffix]
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=48000)
            stream.layout = "mono"
            for index in range(10):
                kind = stream.codec_context.format.name
                block = np.zeros((1, 1152), {"s16": np.int16, "s32p": np.int32, "fltp": np.float32}[kind])
                frame = av.AudioFrame.from_ndarray(block, format=kind, layout="mono")
                frame.sample_rate, frame.pts = 48000, index * 1152
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        assert "has sound but no picture" in message(path)

    def test_song_with_a_cover_picture(self, tmp_path: Path) -> None:
        path = tmp_path / "a.mp3"
        with av.open(str(path), "w") as container:
            song = container.add_stream("libmp3lame", rate=48000)
            song.layout = "mono"
            cover = container.add_stream("png", rate=1)
            cover.height, cover.width, cover.pix_fmt = 64, 64, "rgb24"
            cover.disposition = av.stream.Disposition.attached_pic
            picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8), format="rgb24")
            container.mux(cover.encode(picture))
            container.mux(cover.encode(None))
            for index in range(10):
                kind = song.codec_context.format.name
                block = np.zeros((1, 1152), {"s32p": np.int32, "fltp": np.float32, "s16p": np.int16}[kind])
                frame = av.AudioFrame.from_ndarray(block, format=kind, layout="mono")
                frame.sample_rate, frame.pts = 48000, index * 1152
                container.mux(song.encode(frame))
            container.mux(song.encode(None))
        with av.open(str(path)) as container:
            assert len(container.streams.video) == 1  # as ffmpeg sees it, there is a picture track
        assert "has sound but no picture" in message(path)

    def test_playlist_reads_no_other_file(self, tmp_path: Path, video: Path) -> None:
        path = tmp_path / "a.m3u8"
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{video}\n#EXT-X-ENDLIST\n")
        assert "not a video" in message(path)

    def test_no_frames(self, tmp_path: Path, video: Path) -> None:
        # The header says that there is a track, and all of its data is gone.
        data = video.read_bytes()
        path = tmp_path / "a.mp4"
        path.write_bytes(data[: data.index(b"mdat") + 4])
        assert "has no frame that can be read" in message(path) or "cut short" in message(path)

    def test_cut_before_its_index(self, tmp_path: Path, clip: Clip) -> None:
        path = tmp_path / "a.mp4"
        with av.open(str(path), "w") as container:  # without faststart the index comes last
            stream = container.add_stream("libx264", rate=10)
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            for frame in clip.frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        assert "is not a video, or is cut short" in message(path)

    @pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
    def test_cut_in_the_middle_gives_what_is_there(
        self, tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
        path = tmp_path / f"a.{suffix}"
        if suffix == "mp4":
            write_clip(Clip(noise, Fraction(10)), path)
        else:
            with av.open(str(path), "w") as container:
                stream = container.add_stream("libx264", rate=10, options={"bf": "0"})
                stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
                for frame in noise:
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
                container.mux(stream.encode(None))
        whole = read_clip(path)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * 0.6)])
        with caplog.at_level(logging.WARNING):
            frames = list(stream_frames(path))
        assert 15 < len(frames) < 30
        assert np.array_equal(np.stack(frames), whole.frames[: len(frames)])
        assert count_frames(path) == len(frames)
        if suffix == "mp4":  # the others have no index that would tell how many there were
            assert "is damaged or cut short" in caplog.text

    def test_huge_frames(self, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(video_module, "MAX_PIXELS", 3000)
        assert "has frames that are too large (64 x 48" in message(video)


def test_clip_checks_itself() -> None:
    with pytest.raises(ValueError, match="uint8"):
        Clip(np.zeros((2, 4, 4, 3), np.float32), Fraction(8))
    with pytest.raises(ValueError, match="positive"):
        Clip(np.zeros((2, 4, 4, 3), np.uint8), Fraction(0))
    assert Clip(np.zeros((2, 4, 6, 3), np.uint8), Fraction(8)).size == (4, 6)
