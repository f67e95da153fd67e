"""Clips out: MP4, GIF or a folder of PNGs, frame by frame, complete or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from xdyna.errors import OutputError
from xdyna.media import files, provenance
from xdyna.media.audio import AudioTrack, has_sound
from xdyna.media.image import check_picture, write_image
from xdyna.media.video import Clip

_OUR_PNG = re.compile(r"\d{6}\.png")


class _Sink(Protocol):
    """One output format: takes frames, then either finishes or is dropped."""

    def write(self, frame: np.ndarray) -> None: ...

    def finish(self) -> None: ...

    def drop(self) -> None: ...


class ClipWriter:
    """Writes a clip frame by frame; a context manager.

    ::

        with ClipWriter("dance.mp4", size=(896, 512), fps=Fraction(30)) as writer:
            for frame in frames:
                writer.write(frame)

    The format follows the name: `.mp4` (H.264, 4:2:0, BT.709; odd sides get one more row or column, a copy of
    the last, as the format needs even ones), `.gif` (256 colours a frame), no suffix or a final slash (a folder
    of 000000.png, 000001.png, ...). The file has its name only after the block ended well; after any exception,
    Ctrl-C included, nothing is left of it.

    Args:
        path: the file or folder to write. Missing parent folders are made.
        size: (height, width) of every frame.
        fps: frames a second, exact; a float is taken as the nearest fraction with a denominator up to 1001.
        overwrite: whether an existing file, or a folder with nothing but our PNGs, may be replaced.
        audio_from: a file whose sound goes with the frames; MP4 only, ignored for the others and when it has
            none. It is cut to the exact duration of the frames.
        audio_start: second of that file's picture at which the first frame lies.
        metadata: small facts (seed, model, ...) for the file's comment, when marked.
        ai_generated: mark the file as made by a model, see `xdyna.media.provenance`; off for plain drawings.
        crf: x264's constant quality: 0 lossless, 18 hardly to tell from it, 51 worst.

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
    ) -> None:
        self.path = Path(path).expanduser()
        self.size = size
        self.fps = fps if isinstance(fps, Fraction) else Fraction(fps).limit_denominator(1001)
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
        self._crf = crf
        self._temporary: Path | None = None
        self._sink: _Sink | None = None

    def __enter__(self) -> ClipWriter:
        try:
            if self._format == "png":
                _check_folder(self.path, self._overwrite)
                self._temporary = files.temporary_folder(self.path)
                self._sink = _PngSink(self._temporary, self._tags is not None)
            else:
                files.check_output(self.path, overwrite=self._overwrite)
                self._temporary = files.temporary_file(self.path)
                if self._format == "mp4":
                    self._sink = _Mp4Sink(
                        self._temporary, self.size, self.fps, self._crf, self._audio, self._tags
                    )
                else:
                    self._sink = _GifSink(self._temporary, self.size, self.fps, self._tags)
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


class _Mp4Sink:
    """H.264 in MP4, playable while it downloads, with sound if there is some."""

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        fps: Fraction,
        crf: int,
        audio: tuple[Path, float] | None,
        tags: Mapping[str, str] | None,
    ) -> None:
        import av
        from av.video.reformatter import ColorRange, Colorspace

        self._path, self._fps, self._tags, self._count = path, fps, tags, 0
        self._even = (size[0] + size[0] % 2, size[1] + size[1] % 2)
        self._to_yuv = {
            "format": "yuv420p",
            "dst_colorspace": Colorspace.ITU709,
            "dst_color_range": ColorRange.MPEG,
            "interpolation": "BICUBIC",
        }
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        self._container.metadata.update(tags or {})
        self._stream = self._container.add_stream("libx264", rate=fps, options={"crf": str(crf)})
        self._stream.height, self._stream.width = self._even
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.time_base = 1 / fps
        context.color_range, context.colorspace = ColorRange.MPEG, Colorspace.ITU709
        context.color_primaries = context.color_trc = 1  # 1 is BT.709 in both tables of ISO 23001-8
        self._audio = AudioTrack(self._container, *audio) if audio else None

    def write(self, frame: np.ndarray) -> None:
        import av

        height, width = frame.shape[:2]
        if (height, width) != self._even:
            frame = np.pad(
                frame, ((0, self._even[0] - height), (0, self._even[1] - width), (0, 0)), mode="edge"
            )
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(**self._to_yuv)
        picture.pts, picture.time_base = self._count, 1 / self._fps
        self._count += 1
        self._container.mux(self._stream.encode(picture))
        if self._audio:
            self._audio.write_until(float(self._count / self._fps))

    def finish(self) -> None:
        import av

        self._container.mux(self._stream.encode(None))
        if self._audio:
            self._audio.finish(float(self._count / self._fps))
        self._container.close()
        if self._tags is not None:
            provenance.append_xmp_to_mp4(self._path)
        # The muxer reports not every failed write, so the file has to show that it is whole.
        with av.open(str(self._path)) as written:
            frames = written.streams.video[0].frames
        if frames != self._count:
            raise OSError(f"{frames} of {self._count} frames arrived in the file")

    def drop(self) -> None:
        _close_quietly(self._container)


class _GifSink:
    """GIF with a palette of its own for every frame, looping for ever."""

    def __init__(
        self, path: Path, size: tuple[int, int], fps: Fraction, tags: Mapping[str, str] | None
    ) -> None:
        import av

        self._path, self._fps, self._tags, self._count = path, fps, tags, 0
        self._container = av.open(str(path), "w", format="gif")
        self._stream = self._container.add_stream("gif", rate=fps)
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = "pal8"
        self._stream.codec_context.time_base = 1 / fps
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=size[1], height=size[0], format=av.VideoFormat("rgb24"), time_base=1 / fps
        )
        split = graph.add("split")
        palette = graph.add("palettegen", "stats_mode=single:reserve_transparent=0")
        use = graph.add("paletteuse", "new=1:dither=sierra2_4a")
        sink = graph.add("buffersink")
        source.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(palette, 1, 0)
        palette.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()
        self._graph, self._source, self._drawn = graph, source, sink

    def write(self, frame: np.ndarray) -> None:
        import av

        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        picture.pts, picture.time_base = self._count, 1 / self._fps
        self._count += 1
        self._source.push(picture)
        self._drain()

    def _drain(self) -> None:
        import av

        while True:
            try:
                frame = self._drawn.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        self._source.push(None)
        self._drain()
        self._container.mux(self._stream.encode(None))
        self._container.close()
        if self._tags is not None:
            provenance.append_comment_to_gif(self._path, self._tags["comment"])

    def drop(self) -> None:
        _close_quietly(self._container)


class _PngSink:
    """A folder of numbered PNGs."""

    def __init__(self, folder: Path, ai_generated: bool) -> None:
        self._folder, self._marked, self._count = folder, ai_generated, 0

    def write(self, frame: np.ndarray) -> None:
        write_image(self._folder / f"{self._count:06d}.png", frame, ai_generated=self._marked)
        self._count += 1

    def finish(self) -> None:
        pass

    def drop(self) -> None:
        pass


def _close_quietly(container: Any) -> None:
    """Close a container whose file is thrown away; closing writes, so it may fail for the same reason again."""
    import av

    try:
        container.close()
    except (av.error.FFmpegError, OSError):
        pass


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
