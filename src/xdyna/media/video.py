"""Videos in: what they are, and their frames one by one, so that memory does not grow with their length."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from xdyna.errors import InputError, OptionError
from xdyna.media.files import existing_file
from xdyna.media.image import MAX_PIXELS

log = logging.getLogger(__name__)

MAX_FPS = 240
"""Rates above this come from broken time stamps, not from cameras that people drive pictures with."""

_DEFAULT_FPS = Fraction(25)
_TO_VIDEO = "Give a video file, e.g. an .mp4"
_PLAYLISTS = ("hls", "dash", "concat", "concatf", "applehttp")


@dataclass(frozen=True)
class Clip:
    """Frames in memory.

    Attributes:
        frames: (f h w 3) uint8, RGB.
        fps: frames a second, exact.
    """

    frames: np.ndarray
    fps: Fraction

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[3] != 3 or self.frames.dtype != np.uint8:
            raise ValueError(f"Clip.frames is (f h w 3) uint8, got {self.frames.shape} {self.frames.dtype}")
        object.__setattr__(self, "fps", Fraction(self.fps))
        if self.fps <= 0:
            raise ValueError(f"Clip.fps must be positive, got {self.fps}")

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.frames.shape[1], self.frames.shape[2]


@dataclass(frozen=True)
class VideoInfo:
    """What a video file is, as its frames come out of `stream_frames`.

    Attributes:
        path: the file.
        height: of a frame in pixels, upright and with square pixels.
        width: likewise.
        fps: average frames a second.
        frames: how many the file says it has; None when it does not say. `count_frames` counts.
        duration: seconds; None when unknown.
        has_audio: whether there is a sound track.
    """

    path: Path
    height: int
    width: int
    fps: Fraction
    frames: int | None
    duration: float | None
    has_audio: bool


def probe(path: str | Path) -> VideoInfo:
    """Find out what a video is; its first frame is decoded to be sure that it is one.

    Raises:
        InputError: missing, a folder, empty, truncated before the first frame, not a video, a picture,
            sound only, without frames, or of more than 80 million pixels a frame.
    """
    path = existing_file(path, "a video")
    with _opened(path) as (container, stream):
        first = next(_decoded(path, container, stream, []), None)
        if first is None:
            raise _no_frames(path)
        height, width = _upright_size(first, stream.sample_aspect_ratio)
        if height * width > MAX_PIXELS:
            most = f"at most {MAX_PIXELS // 1_000_000} million pixels"
            problem = f"has frames that are too large ({width} x {height}, {most})"
            raise InputError(path, problem, "Make the video smaller first")
        fps, trusted = _rate(path, stream)
        frames = stream.frames or None
        seconds = None
        if not trusted and frames:
            seconds = frames / float(fps)
        elif stream.duration is not None and stream.time_base is not None:
            seconds = float(stream.duration * stream.time_base)
        elif container.duration is not None:
            seconds = container.duration / 1e6
        return VideoInfo(path, height, width, fps, frames, seconds, bool(container.streams.audio))


def stream_frames(
    path: str | Path, *, start: int = 0, stride: int = 1, limit: int | None = None
) -> Iterator[np.ndarray]:
    """The frames of a video, one by one, in the order shown; memory does not grow with the video's length.

    Frames are taken by their number whatever their time stamps say, so videos of variable rate keep every
    frame. Rotation marks and non-square pixels are applied. Damaged frames are left out, with a warning at
    the end.

    Args:
        path: a video, or an animated GIF.
        start: number of the first frame wanted, from 0.
        stride: take every `stride`-th frame from there.
        limit: at most this many frames; None takes all.

    Yields:
        (h w 3) uint8 RGB, each a new array, all of one size.

    Raises:
        InputError: see `probe` (raised by the call itself); or the video has no frame number `start`.
        OptionError: start below 0, stride or limit below 1.
    """
    for name, value, least in (("start", start, 0), ("stride", stride, 1), ("limit", limit, 1)):
        if value is not None and value < least:
            raise OptionError(name, f"must be {least} or more, got {value}")
    info = probe(path)
    return _frames(info, start, stride, limit)


def _frames(info: VideoInfo, start: int, stride: int, limit: int | None) -> Iterator[np.ndarray]:
    damage: list[str] = []
    seen = 0
    to_picture = Pictures(info)
    with _opened(info.path) as (container, stream):
        stop = None if limit is None else start + (limit - 1) * stride + 1
        for seen, frame in enumerate(
            itertools.islice(_decoded(info.path, container, stream, damage), stop), 1
        ):
            index = seen - 1
            if index >= start and (index - start) % stride == 0:
                yield to_picture(frame)
    if seen <= start:
        problem = f"has {seen} frames, so there is none from number {start} on (the first is number 0)"
        raise InputError(info.path, problem, f"Choose a start below {seen}")
    promised = min(info.frames or 0, stop or info.frames or 0)
    if seen < promised:
        damage.append(f"its index promises {promised}")
    if damage:
        log.warning("%s: is damaged or cut short (%s); %d frames could be read.", info.path, damage[0], seen)


def read_clip(path: str | Path, *, start: int = 0, stride: int = 1, limit: int | None = None) -> Clip:
    """Read frames into memory.

    Args:
        path: a video, or an animated GIF.
        start: number of the first frame wanted, from 0.
        stride: take every `stride`-th frame from there.
        limit: at most this many frames; None takes all.

    Returns:
        The clip; its rate is the video's divided by `stride`, so that it plays at the video's speed.

    Raises:
        InputError, OptionError: see `stream_frames`.
    """
    frames = np.stack(list(stream_frames(path, start=start, stride=stride, limit=limit)))
    return Clip(frames, probe(path).fps / stride)


def count_frames(path: str | Path) -> int:
    """How many frames `stream_frames` would give.

    A count that the file states is believed when the file's packets agree with it, which takes no decoding;
    else the frames are decoded and counted.

    Raises:
        InputError: see `probe`.
    """
    info = probe(path)
    with _opened(info.path) as (container, stream):
        # VP8 has packets that show nothing, so there a packet is not a frame.
        if (
            info.frames
            and stream.codec_context.name != "vp8"
            and _sound_packets(container, stream) == info.frames
        ):
            return info.frames
    with _opened(info.path) as (container, stream):
        return sum(1 for _ in _decoded(info.path, container, stream, []))


def _sound_packets(container: Any, stream: Any) -> int:
    """Packets that show a frame; -1 when one of them is damaged."""
    import av

    count = 0
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                return -1
            count += bool(packet.size) and not packet.is_discard
    except av.error.FFmpegError:
        return -1
    return count


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """PyAV's container and its video stream."""
    import av

    try:
        # "file:" keeps ffmpeg from reading a name like `a:b.mp4` as an address.
        container = av.open(f"file:{path.absolute()}", metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        problem = f"is not a video, or is cut short ({reason})"
        raise InputError(path, problem, f"{_TO_VIDEO}, or download it again") from None
    with container:
        kinds = container.format.name.split(",")
        if any(kind in _PLAYLISTS for kind in kinds):
            raise InputError(path, "is a list of videos, not a video", _TO_VIDEO)
        if _is_animated_webp(path):
            raise InputError(
                path, "is an animated WebP, which cannot be read as a video", "Convert it to .mp4 or .gif"
            )
        if any(kind.endswith("_pipe") or kind == "image2" for kind in kinds):
            problem = "is a picture, not a video"
            raise InputError(
                path, problem, "Give the driving video here; the picture to animate is the other argument"
            )
        if "tty" in kinds:  # ffmpeg plays text files as terminal art
            raise InputError(path, "is text, not a video", _TO_VIDEO)
        attached = _attached_picture()
        videos = [stream for stream in container.streams.video if not stream.disposition & attached]
        if not videos:
            what = "has sound but no picture" if container.streams.audio else "has no video track"
            raise InputError(path, what, _TO_VIDEO)
        videos[0].thread_type = "AUTO"
        yield container, videos[0]


def _is_animated_webp(path: Path) -> bool:
    with open(path, "rb") as file:
        head = file.read(64)
    return head[8:16] == b"WEBPVP8X" and b"ANIM" in head


def _attached_picture() -> Any:
    """The mark of a cover picture, which ffmpeg lists as a video track."""
    from av.stream import Disposition

    return Disposition.attached_pic


def _decoded(path: Path, container: Any, stream: Any, damage: list[str]) -> Iterator[Any]:
    """Sound frames in the order shown. What is damaged is left out and named in `damage`."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as error:  # the container itself ends too early: nothing can follow
            damage.append(error.strerror)
            return
        if packet is None:
            return
        try:
            frames = packet.decode()
        except av.error.FFmpegError as error:
            damage.append(error.strerror)
            continue
        for frame in frames:
            if frame.is_corrupt:
                damage.append("damaged frames")
            else:
                yield frame


def _no_frames(path: Path) -> InputError:
    return InputError(path, "has no frame that can be read", f"{_TO_VIDEO}, or export it again")


def _rate(path: Path, stream: Any) -> tuple[Fraction, bool]:
    """Frames a second, and whether it comes from the time stamps (rather than from a guess)."""
    if stream.average_rate and stream.average_rate <= MAX_FPS:
        return Fraction(stream.average_rate), True
    # The examples of the official repository have time stamps that are all zero; the codec knows the rate.
    guesses = (stream.guessed_rate, stream.codec_context.framerate)
    for guess in guesses:
        if guess and 1 <= guess <= MAX_FPS:
            return Fraction(guess), False
    measured = _measured_rate(path)
    if measured is not None:
        return measured, True
    log.warning("%s: does not tell its frame rate; %s is taken.", path, _DEFAULT_FPS)
    return _DEFAULT_FPS, False


def _measured_rate(path: Path) -> Fraction | None:
    """The rate by the packets' times; for browser recordings, whose header says nothing."""
    with _opened(path) as (container, stream):
        times = [packet.pts for packet in container.demux(stream) if packet.pts is not None]
        span = (max(times) - min(times)) * stream.time_base if times else 0
        if len(times) < 2 or span <= 0:
            return None
        rate = Fraction((len(times) - 1) / span).limit_denominator(1001)
        return rate if 0 < rate <= MAX_FPS else None


def _upright_size(frame: Any, aspect: Fraction | None) -> tuple[int, int]:
    """(height, width) of a frame, upright, after its pixels of width / height `aspect` were made square."""
    height, width = frame.height, frame.width
    if aspect:
        width = max(1, round(width * aspect))
    return (width, height) if round(frame.rotation / 90) % 2 else (height, width)


class Pictures:
    """Turns PyAV's frames of a video into pictures, upright, in the size of the first frame."""

    def __init__(self, info: VideoInfo) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self._height, self._width = info.height, info.width
        # Without these flags swscale rounds down and repeats chroma columns: half a level darker on average.
        self._flags = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
        self._reformatter = VideoReformatter()  # one for all frames: to set it up takes longer than a frame

    def __call__(self, frame: Any) -> np.ndarray:
        """(h w 3) uint8 of a decoded frame, a new array."""
        quarters = round(frame.rotation / 90) % 4  # counter-clockwise, as numpy's
        height, width = (self._width, self._height) if quarters % 2 else (self._height, self._width)
        # Planes, since swscale is four times as slow with these flags where it has to interleave; same values.
        planes = self._reformatter.reformat(
            frame, width=width, height=height, format="gbrp", interpolation=self._flags
        )
        picture = planes.to_ndarray()  # PyAV puts the planes of gbrp together as (h w 3) RGB
        return np.ascontiguousarray(np.rot90(picture, quarters)) if quarters else picture
