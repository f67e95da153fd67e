"""Frames of a video by their number, without decoding all that lies before them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from xdyna.errors import InputError
from xdyna.media.video import Pictures, _opened, probe, stream_frames


class FrameReader:
    """Reads any frames of a video; numbers are those of `stream_frames`.

    A table of the packets' times is made once, without decoding. A video whose times tell nothing (all zero, as
    in the official examples, or repeated) is not `seekable`: its frames are decoded from the beginning each time.

    Args:
        path: the video.
        sequential: do without the table, as for a damaged video: damaged frames then have no number.

    Attributes:
        info: as `probe` gives it.
        seekable: whether frames are found without decoding the whole video.
        frames: how many frames the table has; None when not seekable.

    Raises:
        InputError: see `probe`.
    """

    def __init__(self, path: str | Path, *, sequential: bool = False) -> None:
        self.info = probe(path)
        times, keys = ([], []) if sequential else _packet_times(self.info.path)
        self.seekable = bool(times) and len(set(times)) == len(times) and bool(keys)
        self.frames = len(times) if self.seekable else None
        self._times = sorted(times) if self.seekable else []
        self._numbers = {time: number for number, time in enumerate(self._times)}
        # Number 0 counts as a key frame: decoding that begins there begins at the file's first one.
        self._keys = sorted({0, *(self._numbers[time] for time in keys)}) if self.seekable else []

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        """Frames by their numbers, in any order, as (f h w 3) uint8.

        Raises:
            InputError: a number that the video does not have, or a frame that cannot be decoded.
        """
        pictures = np.empty((len(numbers), self.info.height, self.info.width, 3), np.uint8)
        places: dict[int, list[int]] = {}
        for place, number in enumerate(numbers):
            places.setdefault(int(number), []).append(place)
        wanted = sorted(places)
        for number, picture in zip(wanted, self.stream(wanted), strict=True):
            pictures[places[number]] = picture
        return pictures

    def stream(self, numbers: Iterable[int]) -> Iterator[np.ndarray]:
        """Frames by their numbers, which rise, one by one: (h w 3) uint8.

        Raises:
            InputError: as `read`.
        """
        if self.seekable:
            yield from self._sought(iter(numbers))
            return
        wanted = iter(numbers)
        number = next(wanted, None)
        if number is None:
            return
        for index, picture in enumerate(stream_frames(self.info.path)):
            if index == number:
                yield picture
                number = next(wanted, None)
                if number is None:
                    return
        raise self._absent(number)

    def _sought(self, wanted: Iterator[int]) -> Iterator[np.ndarray]:
        number = next(wanted, None)
        if number is None:
            return
        to_picture = Pictures(self.info)
        with _opened(self.info.path) as (container, stream):
            # Few frames are decoded at a time, often by many processes: threads would only wait for each other.
            stream.thread_type = "NONE"
            stream.codec_context.thread_count = 1
            while number is not None:
                if not 0 <= number < len(self._times):
                    raise self._absent(number)
                begin = bisect_right(self._keys, number) - 1
                container.seek(self._times[self._keys[begin]], stream=stream, backward=True)
                found = False
                for frame in container.decode(stream):
                    seen = self._numbers.get(frame.pts, -1)
                    if seen < number:
                        continue
                    if seen > number:
                        break
                    found = True
                    yield to_picture(frame)
                    number = next(wanted, None)
                    if number is None:
                        return
                    if not 0 <= number < len(self._times):
                        raise self._absent(number)
                    if bisect_right(self._keys, number) - 1 > bisect_right(self._keys, seen):
                        break  # a key frame between spares decoding up to it
                if not found:
                    raise InputError(
                        self.info.path,
                        f"frame {number} cannot be decoded",
                        "Download or export the video again, or prepare it with --rewrite",
                    )

    def _absent(self, number: int) -> InputError:
        has = "" if self.frames is None else f"; it has {self.frames} frames"
        return InputError(
            self.info.path, f"there is no frame number {number}{has}", "Write the manifest again"
        )


def _packet_times(path: Path) -> tuple[list[int], list[int]]:
    """Times of the packets that show a frame, and of those that are key frames; empty when they are not to be used."""
    import av

    times: list[int] = []
    keys: list[int] = []
    try:
        with _opened(path) as (container, stream):
            if stream.codec_context.name == "vp8":  # has packets that show nothing
                return [], []
            for packet in container.demux(stream):
                if not packet.size or packet.is_discard:
                    continue
                if packet.pts is None or packet.is_corrupt:
                    return [], []
                times.append(packet.pts)
                if packet.is_keyframe:
                    keys.append(packet.pts)
    except av.error.FFmpegError:
        return [], []
    return times, keys
