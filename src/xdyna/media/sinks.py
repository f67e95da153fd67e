"""The formats a clip is written in: each takes frames one by one, then finishes its file."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from xdyna.media import provenance
from xdyna.media.audio import AudioTrack
from xdyna.media.image import write_image


class Sink(Protocol):
    """One output format: takes frames, then either finishes or is dropped."""

    def write(self, frame: np.ndarray) -> None:
        """Add a frame, (h w 3) uint8."""

    def finish(self) -> None:
        """Complete the file and close it."""

    def drop(self) -> None:
        """Close without completing; the file will be thrown away."""


class Mp4Sink:
    """H.264 in MP4, playable while it downloads, with sound if there is some; lossless ones keep RGB."""

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        fps: Fraction,
        crf: int,
        audio: tuple[Path, float] | None,
        tags: Mapping[str, str] | None,
        *,
        lossless: bool = False,
        key_every: int | None = None,
    ) -> None:
        import av
        from av.video.reformatter import ColorRange, Colorspace, Interpolation

        self._path, self._fps, self._tags, self._count = path, fps, tags, 0
        # 4:2:0 halves both sides; RGB does not
        self._even = size if lossless else (size[0] + size[0] % 2, size[1] + size[1] % 2)
        self._to_yuv: dict[str, Any] | None = (
            None
            if lossless
            else {
                "format": "yuv420p",
                "dst_colorspace": Colorspace.ITU709,
                "dst_color_range": ColorRange.MPEG,
                "interpolation": Interpolation.BICUBIC
                | Interpolation.ACCURATE_RND
                | Interpolation.FULL_CHR_H_INP,
            }
        )
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        self._container.metadata.update(tags or {})
        # Without this, x264's approximations in its macroblock tree come out otherwise from run to run, even with one
        # thread, and with them the file (seen in a third of small clips made beside torch).
        options = {"crf": "0" if lossless else str(crf), "x264-params": "cpu-independent=1"}
        if key_every is not None:
            options |= {"g": str(key_every), "keyint_min": str(key_every), "sc_threshold": "0"}
        codec = "libx264rgb" if lossless else "libx264"
        self._stream = self._container.add_stream(codec, rate=fps, options=options)
        self._stream.height, self._stream.width = self._even
        self._stream.pix_fmt = "rgb24" if lossless else "yuv420p"
        context = self._stream.codec_context
        context.time_base = 1 / fps
        if not lossless:
            context.color_range, context.colorspace = ColorRange.MPEG, Colorspace.ITU709
            context.color_primaries = context.color_trc = 1  # 1 is BT.709 in both tables of ISO 23001-8
        self._audio = AudioTrack(self._container, *audio) if audio else None

    def write(self, frame: np.ndarray) -> None:
        """Add a frame, (h w 3) uint8."""
        import av

        height, width = frame.shape[:2]
        if (height, width) != self._even:
            frame = np.pad(
                frame, ((0, self._even[0] - height), (0, self._even[1] - width), (0, 0)), mode="edge"
            )
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        if self._to_yuv is not None:
            picture = picture.reformat(**self._to_yuv)
        picture.pts, picture.time_base = self._count, 1 / self._fps
        self._count += 1
        self._container.mux(self._stream.encode(picture))
        if self._audio:
            self._audio.write_until(float(self._count / self._fps))

    def finish(self) -> None:
        """Complete the file and close it."""
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
        """Close without completing; the file will be thrown away."""
        _close_quietly(self._container)


class GifSink:
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
        """Add a frame, (h w 3) uint8."""
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
        """Complete the file and close it."""
        self._source.push(None)
        self._drain()
        self._container.mux(self._stream.encode(None))
        self._container.close()
        if self._tags is not None:
            provenance.append_comment_to_gif(self._path, self._tags["comment"])

    def drop(self) -> None:
        """Close without completing; the file will be thrown away."""
        _close_quietly(self._container)


class PngSink:
    """A folder of numbered PNGs."""

    def __init__(self, folder: Path, ai_generated: bool) -> None:
        self._folder, self._marked, self._count = folder, ai_generated, 0

    def write(self, frame: np.ndarray) -> None:
        """Add a frame, (h w 3) uint8."""
        write_image(self._folder / f"{self._count:06d}.png", frame, ai_generated=self._marked)
        self._count += 1

    def finish(self) -> None:
        """Complete the file and close it."""

    def drop(self) -> None:
        """Close without completing; the file will be thrown away."""


def _close_quietly(container: Any) -> None:
    """Close a container that is thrown away; closing writes, so it may fail for the same reason again."""
    with contextlib.suppress(OSError):  # PyAV's errors are OSErrors too
        container.close()
