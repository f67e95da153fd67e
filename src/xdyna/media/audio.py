"""The sound of a driving video, cut to the sample, for the film made from it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from xdyna.errors import InputError
from xdyna.media.files import existing_file

log = logging.getLogger(__name__)

_RATES = (44100, 48000)


class AudioTrack:
    """Encodes a stretch of another file's sound as AAC into an open PyAV container, as far as is asked.

    Args:
        container: PyAV's output container; the track is added to it.
        source: the file with the sound.
        start: second of the source's picture at which the stretch begins.
    """

    def __init__(self, container: Any, source: Path, start: float) -> None:
        self._container, self._source = container, source
        self._blocks = _samples(source, start)
        rate, channels, _ = next(self._blocks)
        self._rate, self._layout = rate, "mono" if channels == 1 else "stereo"
        self._stream = container.add_stream("aac", rate=rate)
        self._stream.layout = self._layout
        self._stream.bit_rate = 96_000 * channels
        self._waiting = np.zeros((channels, 0), np.float32)
        self._encoded = 0

    def write_until(self, seconds: float) -> None:
        """Encode what lies before `seconds` of the stretch, in the encoder's whole blocks."""
        self._read(seconds)
        block = self._stream.codec_context.frame_size or 1024
        ready = min(round(seconds * self._rate) - self._encoded, self._waiting.shape[1])
        for _ in range(ready // block):
            self._encode(block)

    def finish(self, seconds: float) -> None:
        """Encode the rest, ending exactly at `seconds`, or earlier where the source does."""
        self.write_until(seconds)
        rest = min(round(seconds * self._rate) - self._encoded, self._waiting.shape[1])
        if rest > 0:
            self._encode(rest)
        self._container.mux(self._stream.encode(None))

    def _read(self, seconds: float) -> None:
        wanted = round(seconds * self._rate) - self._encoded
        while self._waiting.shape[1] < wanted:
            block = next(self._blocks, None)
            if block is None:
                return
            self._waiting = np.concatenate([self._waiting, block[2]], axis=1)

    def _encode(self, count: int) -> None:
        import av

        samples, self._waiting = self._waiting[:, :count], self._waiting[:, count:]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=self._layout)
        frame.sample_rate = self._rate
        frame.pts = self._encoded
        self._encoded += count
        self._container.mux(self._stream.encode(frame))


def has_sound(path: str | Path) -> bool:
    """Whether a file has a sound track that opens.

    Raises:
        InputError: the file is missing, empty, a folder, or nothing that can have sound.
    """
    import av

    path = existing_file(path, "a video or a sound")
    try:
        with av.open(f"file:{path.absolute()}", metadata_errors="replace") as container:
            return bool(container.streams.audio)
    except (av.error.FFmpegError, ValueError) as error:
        raise InputError(path, f"has no sound that can be read ({error})", "Turn the sound off") from None


def _samples(path: Path, start: float) -> Iterator[tuple[int, int, np.ndarray]]:
    """(rate, channels, (channels n) float32) from second `start` of the picture on.

    The first item is empty, for its rate and channels. Sound that begins after `start` is preceded by
    silence; damaged sound ends the track, with a warning.
    """
    import av

    with av.open(f"file:{path.absolute()}", metadata_errors="replace") as container:
        stream = container.streams.audio[0]
        rate = stream.rate if stream.rate in _RATES else _RATES[-1]
        channels = min(stream.channels, 2)
        yield rate, channels, np.zeros((channels, 0), np.float32)
        begin = start + _picture_start(container)
        resampler = av.AudioResampler(format="fltp", layout="mono" if channels == 1 else "stereo", rate=rate)
        position: int | None = None  # of the next sample, counted from `begin`
        try:
            if begin > 0:
                container.seek(int(begin / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                if position is None:
                    position = round(((frame.time or 0.0) - begin) * rate)
                    if position > 0:
                        yield rate, channels, np.zeros((channels, position), np.float32)
                for piece in resampler.resample(frame):
                    samples = piece.to_ndarray()
                    late = max(0, -position)
                    position += samples.shape[1]
                    if late < samples.shape[1]:
                        yield rate, channels, samples[:, late:]
            for piece in resampler.resample(None):
                yield rate, channels, piece.to_ndarray()
        except av.error.FFmpegError as error:
            log.warning("%s: its sound is damaged (%s); the film's sound ends there.", path, error.strerror)


def _picture_start(container: Any) -> float:
    """The second at which the first picture is shown, by the container's clock."""
    for stream in container.streams.video:
        if stream.start_time is not None and stream.time_base is not None:
            return float(stream.start_time * stream.time_base)
    return 0.0
