"""Clips out: MP4, GIF or a folder of PNGs, frame by frame, complete or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from xdyna.errors import OutputError
from xdyna.media import files, provenance
from xdyna.media.audio import has_sound
from xdyna.media.image import check_picture
from xdyna.media.sinks import GifSink, Mp4Sink, PngSink, Sink
from xdyna.media.video import Clip

_OUR_PNG = re.compile(r"\d{6}\.png")


class ClipWriter:
    """Writes a clip frame by frame; a context manager.

    ::

        with ClipWriter("dance.mp4", size=(896, 512), fps=Fraction(30)) as writer:
            for frame in frames:
                writer.write(frame)

    The format follows the name: `.mp4` (H.264, 4:2:0, BT.709; odd sides get one more row or column, a copy
    of the last, as the format needs even ones), `.gif` (256 colours a frame), no suffix or a final slash (a
    folder of 000000.png, 000001.png, ...). The file has its name only after the block ended well; after any
    exception, Ctrl-C included, nothing is left of it.

    Args:
        path: the file or folder to write. Missing parent folders are made.
        size: (height, width) of every frame.
        fps: frames a second, exact; of a float 23.976 and its like become 24000/1001.
        overwrite: whether an existing file, or a folder with nothing but our PNGs, may be replaced.
        audio_from: a file whose sound goes with the frames; MP4 only, ignored for the others and when it has
            none. It is cut to the exact duration of the frames.
        audio_start: second of that file's picture at which the first frame lies.
        metadata: small facts (seed, model, ...) for the file's comment, when marked.
        ai_generated: mark the file as made by a model, see `xdyna.media.provenance`; off for plain drawings.
        crf: x264's constant quality: 0 best, 18 hardly to tell from it, 51 worst.
        lossless: MP4 only: keep every RGB value exactly (High 4:4:4 profile, which few players show).
        key_every: MP4 only: a key frame every so many frames, so that a reader finds any frame quickly; None
            leaves it to the encoder, which places one in 250.

    Raises:
        OutputError: the name is taken, its format unknown, or the place cannot be written (on entering); the
            disk is full, or no frame was written (later).
        InputError: `audio_from` is missing or no media file.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        size: tuple[int, int],
        fps: Fraction | float,
        overwrite: bool = False,
        audio_from: str | Path | None = None,
        audio_start: float = 0.0,
        metadata: Mapping[str, Any] | None = None,
        ai_generated: bool = True,
        crf: int = 18,
        lossless: bool = False,
        key_every: int | None = None,
    ) -> None:
        self.path = Path(path).expanduser()
        self.size = size
        self.fps = fps if isinstance(fps, Fraction) else _exact(fps)
        self.frames = 0
        if self.fps <= 0:
            raise ValueError(f"fps must be positive, got {fps}")
        if size[0] < 1 or size[1] < 1:
            raise ValueError(f"size must be positive, got {size}")
        self._format = _format_of(path)
        self._overwrite = overwrite
        self._audio = None
        if audio_from is not None and self._format == "mp4" and has_sound(audio_from):
            self._audio = (Path(audio_from).expanduser(), audio_start)
        self._tags = provenance.tags(metadata) if ai_generated else None
        self._crf, self._lossless, self._key_every = crf, lossless, key_every
        self._temporary: Path | None = None
        self._sink: Sink | None = None

    def __enter__(self) -> ClipWriter:
        try:
            if self._format == "png":
                _check_folder(self.path, self._overwrite)
                self._temporary = files.temporary_folder(self.path)
                self._sink = PngSink(self._temporary, self._tags is not None)
            else:
                files.check_output(self.path, overwrite=self._overwrite)
                self._temporary = files.temporary_file(self.path)
                if self._format == "mp4":
                    self._sink = Mp4Sink(
                        self._temporary, self.size, self.fps, self._crf, self._audio, self._tags,
                        lossless=self._lossless, key_every=self._key_every,
                    )  # fmt: skip
                else:
                    self._sink = GifSink(self._temporary, self.size, self.fps, self._tags)
        except OSError as error:
            self._discard()
            raise files.write_failure(self.path, error) from error
        except BaseException:
            self._discard()
            raise
        return self

    def write(self, frame: np.ndarray) -> None:
        """Add a frame, (h w 3) uint8 RGB of the writer's size.

        Raises:
            OutputError: it cannot be written.
            ValueError: another shape or dtype, or outside the `with` block.
        """
        check_picture(frame)
        if frame.shape[:2] != tuple(self.size):
            raise ValueError(f"the writer takes frames of {tuple(self.size)}, got {frame.shape[:2]}")
        if self._sink is None:
            raise ValueError("ClipWriter.write works inside the `with` block only")
        try:
            self._sink.write(np.ascontiguousarray(frame))
        except OSError as error:
            raise files.write_failure(self.path, error) from error
        self.frames += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        except OSError as failure:
            raise files.write_failure(self.path, failure) from failure
        finally:
            self._discard()

    def _finish(self) -> None:
        assert self._sink is not None
        assert self._temporary is not None
        if self.frames == 0:
            raise OutputError(self.path, "no frame was written to it", "Check the number of frames asked for")
        self._sink.finish()
        self._sink = None
        if self._format == "png" and self.path.exists():
            _check_folder(self.path, self._overwrite)
            files.remove(self.path)
        files.publish(self._temporary, self.path, overwrite=self._overwrite)

    def _discard(self) -> None:
        """Leave nothing but the finished result."""
        if self._sink is not None:
            self._sink.drop()
            self._sink = None
        if self._temporary is not None:
            files.remove(self._temporary)


def _exact(fps: float) -> Fraction:
    """The rate that a float stands for: one of television's n * 1000/1001 where it is that close."""
    television = Fraction(round(fps * 1.001) * 1000, 1001)
    return television if abs(fps - television) < 0.002 else Fraction(fps).limit_denominator(1001)


def _format_of(path: str | Path) -> str:
    suffix = Path(path).suffix.lower()
    if str(path).endswith(("/", "\\")) or not suffix:
        return "png"
    if suffix in (".mp4", ".gif"):
        return suffix[1:]
    problem = f"clips are written as .mp4, .gif, or (without a suffix) a folder of PNGs, not {suffix}"
    raise OutputError(path, problem, "Choose another name")


def _check_folder(path: Path, overwrite: bool) -> None:
    """A folder may be replaced only when nothing of the user's is in it."""
    if not path.is_dir():
        files.check_output(path, overwrite=False)
        return
    names = [entry.name for entry in path.iterdir()]
    if names and not overwrite:
        raise OutputError(path, "is a folder with files in it", "Choose another name, or pass --overwrite")
    others = [name for name in names if not _OUR_PNG.fullmatch(name)]
    if others:
        problem = f"holds other files than a clip's pictures ({others[0]})"
        raise OutputError(path, problem, "Choose another folder; this one will not be replaced")


def write_clip(
    clip: Clip | Iterable[np.ndarray],
    path: str | Path,
    *,
    fps: Fraction | float | None = None,
    overwrite: bool = False,
    audio_from: str | Path | None = None,
    audio_start: float = 0.0,
    metadata: Mapping[str, Any] | None = None,
    ai_generated: bool = True,
) -> Path:
    """Write a clip, or an iterator of pictures of one size, to a file or a folder of PNGs.

    Args:
        clip: the frames; an iterator needs `fps`.
        path: see `ClipWriter`, as for the arguments that follow.
        fps: frames a second; None takes the clip's.
        overwrite: whether an existing result may be replaced.
        audio_from: a file whose sound goes with the frames.
        audio_start: second of that file at which the first frame lies.
        metadata: small facts for the file's comment.
        ai_generated: mark the file as made by a model.

    Returns:
        The path written.

    Raises:
        OutputError: the place cannot be written, or there is no frame.
    """
    rate = fps if fps is not None else getattr(clip, "fps", None)
    if rate is None:
        raise ValueError("write_clip needs fps when it is not given a Clip")
    frames = iter(clip.frames if isinstance(clip, Clip) else clip)
    first = next(frames, None)
    if first is None:
        raise OutputError(path, "there is no frame to write", "Check the number of frames asked for")
    with ClipWriter(
        path,
        size=(first.shape[0], first.shape[1]),
        fps=rate,
        overwrite=overwrite,
        audio_from=audio_from,
        audio_start=audio_start,
        metadata=metadata,
        ai_generated=ai_generated,
    ) as writer:
        writer.write(first)
        for frame in frames:
            writer.write(frame)
    return writer.path
