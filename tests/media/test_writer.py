from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.media.moving import moving_clip, psnr, read_sound, tone, write_sound_video
from xdyna.errors import InputError, OutputError
from xdyna.media import Clip, ClipWriter, count_frames, probe, read_clip, read_image, write_clip
from xdyna.media.provenance import DIGITAL_SOURCE_TYPE


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def boxes(path: Path) -> list[tuple[bytes, bytes]]:
    """The top-level boxes of an MP4: (type, body)."""
    data, found, place = path.read_bytes(), [], 0
    while place < len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        found.append((kind, data[place + 8 : place + size]))
        place += size
    return found


class TestMp4:
    @pytest.mark.parametrize("fps", [8, 12.5, Fraction(30000, 1001), 23.976, 60])
    def test_frames_and_rate_are_exact(self, tmp_path: Path, fps: Fraction | float) -> None:
        clip = moving_clip(17)
        path = write_clip(clip, tmp_path / "a.mp4", fps=fps)
        exact = {23.976: Fraction(24000, 1001)}.get(fps, fps)
        info = probe(path)
        assert (info.fps, info.frames, count_frames(path)) == (exact, 17, 17)
        assert psnr(read_clip(path).frames, clip.frames) > 32
        assert names(tmp_path) == ["a.mp4"]

    def test_colours_survive(self, tmp_path: Path) -> None:
        colours = [
            (255, 0, 0),
            (0, 255, 0),
            (0, 0, 255),
            (255, 255, 255),
            (0, 0, 0),
            (30, 128, 200),
            (200, 160, 140),
        ]
        frames = np.stack([np.full((64, 64, 3), colour, np.uint8) for colour in colours])
        read = read_clip(write_clip(Clip(frames, Fraction(8)), tmp_path / "a.mp4")).frames
        assert np.abs(read.astype(int) - frames).max() <= 3
        with av.open(str(tmp_path / "a.mp4")) as container:
            frame = next(container.decode(video=0))
        assert (frame.format.name, frame.colorspace, frame.color_range) == ("yuv420p", 1, 1)
        assert (frame.color_primaries, frame.color_trc) == (1, 1)

    def test_same_input_same_bytes(self, tmp_path: Path) -> None:
        one = write_clip(moving_clip(), tmp_path / "1.mp4").read_bytes()
        assert write_clip(moving_clip(), tmp_path / "2.mp4").read_bytes() == one

    def test_odd_sides_get_a_copy_of_the_last_row_and_column(self, tmp_path: Path) -> None:
        clip = moving_clip(size=(47, 63))
        read = read_clip(write_clip(clip, tmp_path / "a.mp4")).frames
        assert read.shape == (12, 48, 64, 3)
        assert psnr(read[:, :47, :63], clip.frames) > 32
        assert np.abs(read[:, 47].astype(int) - read[:, 46]).mean() < 2

    def test_plays_while_it_downloads(self, tmp_path: Path) -> None:
        kinds = [kind for kind, _ in boxes(write_clip(moving_clip(), tmp_path / "a.mp4"))]
        assert kinds.index(b"moov") < kinds.index(b"mdat")

    def test_marked_as_ai_generated(self, tmp_path: Path) -> None:
        path = write_clip(moving_clip(), tmp_path / "a.mp4", metadata={"seed": 7, "model": "embedded"})
        with av.open(str(path)) as container:
            tags = container.metadata
        assert "AI-generated" in tags["title"]
        comment = json.loads(tags["comment"])
        assert comment == {
            "ai_generated": True,
            "digital_source_type": DIGITAL_SOURCE_TYPE,
            "software": "xdyna",
            "seed": 7,
            "model": "embedded",
        }
        kind, body = boxes(path)[-1]
        assert kind == b"uuid"
        assert body[:16].hex() == "be7acfcb97a942e89c71999491e3afac"
        assert f'DigitalSourceType="{DIGITAL_SOURCE_TYPE}"'.encode() in body

    def test_marks_can_be_left_out(self, tmp_path: Path) -> None:
        path = write_clip(moving_clip(), tmp_path / "a.mp4", ai_generated=False)
        assert b"xdyna" not in path.read_bytes()
        assert count_frames(path) == 12

    def test_too_much_metadata(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="characters"):
            write_clip(moving_clip(), tmp_path / "a.mp4", metadata={"a": "x" * 20_000})
        assert not names(tmp_path)


class TestSound:
    @pytest.mark.parametrize(("rate", "written"), [(48000, 48000), (44100, 44100), (22050, 48000)])
    def test_exactly_the_range_used(self, tmp_path: Path, rate: int, written: int) -> None:
        # The source's tone changes at second 1.5; the film starts at 1.0 and lasts 1.2 s.
        source = write_sound_video(tmp_path / "in.mp4", moving_clip(30), tone(3, rate, change=1.5), rate)
        path = write_clip(moving_clip(12), tmp_path / "a.mp4", audio_from=source, audio_start=1.0)
        assert probe(path).has_audio
        assert count_frames(path) == 12
        sound, played = read_sound(path)
        assert played == written
        with av.open(str(path)) as container:
            track = container.streams.audio[0]
            assert float(track.duration * track.time_base) == pytest.approx(1.2, abs=0.001)
        pieces = sound[0, : round(1.2 * played)].reshape(24, -1)  # of 0.05 s
        pitch = np.abs(np.fft.rfft(pieces * np.hanning(pieces.shape[1]))).argmax(axis=1) / 0.05
        assert np.allclose(pitch[1:9], 440, atol=21)
        assert np.allclose(pitch[11:23], 1760, atol=21)

    def test_sound_that_ends_early(self, tmp_path: Path) -> None:
        source = write_sound_video(tmp_path / "in.mp4", moving_clip(30), tone(0.5, 48000, change=9), 48000)
        path = write_clip(moving_clip(12), tmp_path / "a.mp4", audio_from=source)
        assert count_frames(path) == 12
        assert read_sound(path)[0].shape[1] / 48000 == pytest.approx(0.5, abs=0.05)
        past = write_clip(moving_clip(12), tmp_path / "b.mp4", audio_from=source, audio_start=2.0)
        assert count_frames(past) == 12

    def test_mono_and_sound_without_picture(self, tmp_path: Path) -> None:
        source = tmp_path / "in.wav"
        with av.open(str(source), "w") as container:
            stream = container.add_stream("pcm_s16le", rate=16000)
            stream.layout = "mono"
            block = (8000 * tone(1, 16000, change=9)[:1]).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16000, 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        path = write_clip(moving_clip(5), tmp_path / "a.mp4", audio_from=source)
        with av.open(str(path)) as container:
            assert container.streams.audio[0].channels == 1
        assert np.abs(read_sound(path)[0]).max() > 0.05

    def test_sound_that_begins_late_is_preceded_by_silence(self, tmp_path: Path) -> None:
        source = tmp_path / "in.mkv"
        clip, sound = moving_clip(20), tone(1, 48000, change=9)
        with av.open(str(source), "w") as container:
            video = container.add_stream("libx264", rate=10)
            video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
            audio = container.add_stream("pcm_f32le", rate=48000)
            audio.layout = "stereo"
            for frame in clip.frames:
                container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(video.encode(None))
            block = np.ascontiguousarray(sound.T).reshape(1, -1)
            piece = av.AudioFrame.from_ndarray(block, format="flt", layout="stereo")
            piece.sample_rate, piece.pts = 48000, 24000  # half a second late
            container.mux(audio.encode(piece))
            container.mux(audio.encode(None))
        heard, rate = read_sound(write_clip(clip, tmp_path / "a.mp4", audio_from=source))
        assert np.abs(heard[:, : int(0.45 * rate)]).max() < 0.02
        assert np.abs(heard[:, int(0.55 * rate) : int(0.9 * rate)]).max() > 0.3

    def test_silent_source_and_formats_without_sound(self, tmp_path: Path) -> None:
        silent = write_clip(moving_clip(), tmp_path / "in.mp4")
        assert not probe(write_clip(moving_clip(), tmp_path / "a.mp4", audio_from=silent)).has_audio
        write_clip(moving_clip(), tmp_path / "a.gif", audio_from=silent)

    def test_source_that_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such file"):
            write_clip(moving_clip(), tmp_path / "a.mp4", audio_from=tmp_path / "no.mp4")
        (tmp_path / "in.txt").write_text("hello")
        with pytest.raises(InputError, match=r"in\.txt: has no sound that can be read"):
            write_clip(moving_clip(), tmp_path / "a.mp4", audio_from=tmp_path / "in.txt")
        assert names(tmp_path) == ["in.txt"]


class TestOtherFormats:
    def test_gif(self, tmp_path: Path) -> None:
        clip = moving_clip(size=(47, 63))
        path = write_clip(clip, tmp_path / "a.gif")
        read = read_clip(path)
        assert read.frames.shape == clip.frames.shape
        assert read.fps == 10
        assert psnr(read.frames, clip.frames) > 32
        assert DIGITAL_SOURCE_TYPE.encode() in path.read_bytes()
        assert b"NETSCAPE2.0" in path.read_bytes()  # loops
        assert names(tmp_path) == ["a.gif"]

    @pytest.mark.parametrize("name", ["frames", "frames/", "frames.d/"])
    def test_folder_of_png(self, tmp_path: Path, name: str) -> None:
        clip = moving_clip(3)
        folder = write_clip(clip, f"{tmp_path}/{name}")
        assert names(folder) == ["000000.png", "000001.png", "000002.png"]
        assert np.array_equal(read_image(folder / "000002.png"), clip.frames[2])
        assert len(names(tmp_path)) == 1
        with pytest.raises(OutputError, match="is a folder with files in it"):
            write_clip(clip, f"{tmp_path}/{name}")
        write_clip(moving_clip(2), f"{tmp_path}/{name}", overwrite=True)
        assert names(folder) == ["000000.png", "000001.png"]

    def test_a_folder_with_the_users_files_is_never_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "granny.jpg").write_text("dear")
        with pytest.raises(OutputError, match=r"holds other files.*granny"):
            write_clip(moving_clip(2), tmp_path / "photos", overwrite=True)
        assert names(tmp_path / "photos") == ["granny.jpg"]

    def test_unknown_format(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match=r"not \.webm"):
            ClipWriter(tmp_path / "a.webm", size=(8, 8), fps=8)


class TestWholeOrNothing:
    @pytest.mark.parametrize("name", ["a.mp4", "a.gif", "frames"])
    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_an_exception_leaves_nothing(self, tmp_path: Path, name: str, error: type[BaseException]) -> None:
        clip = moving_clip()
        with pytest.raises(error), ClipWriter(tmp_path / name, size=clip.size, fps=8) as writer:  # noqa: PT012
            writer.write(clip.frames[0])
            assert name not in names(tmp_path)
            assert len(names(tmp_path)) == 1
            raise error
        assert not names(tmp_path)

    def test_an_exception_leaves_the_old_file(self, tmp_path: Path) -> None:
        path = write_clip(moving_clip(), tmp_path / "a.mp4")
        old = path.read_bytes()
        with pytest.raises(RuntimeError), ClipWriter(path, size=(48, 64), fps=8, overwrite=True) as writer:  # noqa: PT012
            writer.write(moving_clip().frames[0])
            raise RuntimeError
        assert path.read_bytes() == old
        assert names(tmp_path) == ["a.mp4"]

    def test_ctrl_c_in_another_process(self, tmp_path: Path) -> None:
        code = (
            "import signal, sys, numpy as np\n"
            "from xdyna.media import ClipWriter\n"
            # a shell's background jobs, and so some CI, start with Ctrl-C ignored
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "rng = np.random.default_rng(0)\n"
            "with ClipWriter(sys.argv[1], size=(256, 256), fps=8) as writer:\n"
            "    while True:\n"
            "        writer.write(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8))\n"
            "        print(writer.frames, flush=True)\n"
        )
        command = [sys.executable, "-c", code, str(tmp_path / "a.mp4")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if int(line) == 5:
                    break
            assert names(tmp_path) != []
            process.send_signal(2)
            _, trace = process.communicate(timeout=30)
        assert process.returncode != 0
        assert "KeyboardInterrupt" in trace
        assert not names(tmp_path)

    def test_existing_file_is_refused_before_any_work(self, tmp_path: Path) -> None:
        path = write_clip(moving_clip(), tmp_path / "a.mp4")
        begin = time.perf_counter()
        with pytest.raises(OutputError, match="exists already"), ClipWriter(path, size=(48, 64), fps=8):
            pytest.fail("the block must not be entered")
        assert time.perf_counter() - begin < 1
        write_clip(moving_clip(3), path, overwrite=True)
        assert count_frames(path) == 3

    def test_the_driving_video_itself_may_be_overwritten(self, tmp_path: Path) -> None:
        path = write_sound_video(tmp_path / "a.mp4", moving_clip(), tone(1.2, 48000, change=9), 48000)
        write_clip(moving_clip(6), path, audio_from=path, overwrite=True)
        assert count_frames(path) == 6
        assert probe(path).has_audio

    def test_unwritable_folder(self) -> None:
        with (
            pytest.raises(OutputError, match="cannot be written"),
            ClipWriter("/proc/a.mp4", size=(8, 8), fps=8),
        ):
            pytest.fail("the block must not be entered")

    def test_parent_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match="a part of its path is a file"):
            write_clip(moving_clip(), tmp_path / "file" / "a.mp4")

    @pytest.mark.parametrize("name", ["a.mp4", "a.gif", "frames"])
    @pytest.mark.parametrize("room", [100, 5_000, 60_000, "whole - 1"])
    def test_full_disk(self, tmp_path: Path, name: str, room: int | str) -> None:
        # A real limit of the operating system: no file of the process may grow beyond it (EFBIG).
        size = 0
        if room == "whole - 1":
            done = run_with_room(tmp_path / "whole" / name, None)
            assert done.returncode == 0, done.stderr
            written = tmp_path / "whole" / name
            size = max(p.stat().st_size for p in (written.iterdir() if written.is_dir() else [written]))
        done = run_with_room(tmp_path / "full" / name, size - 1 if size else int(room))
        assert done.returncode == 2, done.stdout + done.stderr
        assert f"{name}" in done.stdout
        assert "no room left" in done.stdout or "arrived in the file" in done.stdout
        assert not names(tmp_path / "full")

    def test_no_frames(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="no frame"):
            write_clip(iter([]), tmp_path / "a.mp4", fps=8)
        with pytest.raises(OutputError, match="no frame"), ClipWriter(tmp_path / "a.mp4", size=(8, 8), fps=8):
            pass
        assert not names(tmp_path)

    def test_wrong_frames(self, tmp_path: Path) -> None:
        writer = ClipWriter(tmp_path / "a.mp4", size=(8, 8), fps=8)
        with pytest.raises(ValueError, match="inside the `with` block"):
            writer.write(np.zeros((8, 8, 3), np.uint8))
        with pytest.raises(ValueError, match=r"takes frames of \(8, 8\)"), writer:
            writer.write(np.zeros((8, 10, 3), np.uint8))
        with pytest.raises(ValueError, match="uint8"), writer:
            writer.write(np.zeros((8, 8, 3), np.float32))
        assert not names(tmp_path)


def run_with_room(path: Path, room: int | None) -> subprocess.CompletedProcess[str]:
    """Write 24 noisy frames in a process whose files may grow to `room` bytes only."""
    code = (
        "import resource, sys, numpy as np\n"
        "from fractions import Fraction\n"
        "from xdyna.errors import XdynaError\n"
        "from xdyna.media import Clip, write_clip\n"
        "frames = np.random.default_rng(0).integers(0, 256, (24, 160, 160, 3), dtype=np.uint8)\n"
        "if len(sys.argv) > 2:\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)\n"
        "try:\n"
        "    write_clip(Clip(frames, Fraction(8)), sys.argv[1])\n"
        "except XdynaError as error:\n"
        "    print(type(error).__name__, error); sys.exit(2)\n"
    )
    command = [sys.executable, "-c", code, str(path)] + ([str(room)] if room is not None else [])
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
