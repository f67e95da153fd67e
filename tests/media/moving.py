"""Clips and sounds that the tests of `media` are made from."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from xdyna.media import Clip


def moving_clip(frames: int = 12, size: tuple[int, int] = (48, 64), fps: Fraction | int = 10) -> Clip:
    """A smooth gradient with a bright block; frame i has a brightness and a block place of its own."""
    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    pictures = []
    for index in range(frames):
        picture = np.stack([40 + 8 * index + 0 * x, 60 + 100 * x / width, 60 + 100 * y / height], axis=-1)
        left = (4 * index) % (width - 12)
        picture[8:20, left : left + 12] = (230, 220, 40)
        pictures.append(picture.clip(0, 255).astype(np.uint8))
    return Clip(np.stack(pictures), Fraction(fps))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal to noise ratio of two uint8 arrays, in dB."""
    return float(10 * np.log10(255**2 / max(((a.astype(float) - b) ** 2).mean(), 1e-9)))


def tone(seconds: float, rate: int, *, change: float) -> np.ndarray:
    """(2 n) float32: a tone of 440 Hz up to the second `change`, then one of 1760 Hz."""
    t = np.arange(round(seconds * rate)) / rate
    wave = 0.4 * np.sin(2 * np.pi * np.where(t < change, 440, 1760) * t)
    return np.stack([wave, wave]).astype(np.float32)


def write_sound_video(path: Path, clip: Clip | None, sound: np.ndarray, rate: int) -> Path:
    """A file with sound, and with the clip's pictures unless None, written with PyAV alone."""
    with av.open(str(path), "w") as container:
        audio = container.add_stream("aac", rate=rate)
        audio.layout = "stereo"
        video = None
        if clip is not None:
            video = container.add_stream("libx264", rate=clip.fps)
            video.height, video.width = clip.size
            video.pix_fmt = "yuv420p"
            for frame in clip.frames:
                container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(video.encode(None))
        for begin in range(0, sound.shape[1], 1024):
            block = np.ascontiguousarray(sound[:, begin : begin + 1024])
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = rate, begin
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    return path


def read_sound(path: Path) -> tuple[np.ndarray, int]:
    """((channels n) float32, rate) of a file's sound, as a player would hear it (encoder delay cut off)."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        pieces = [frame.to_ndarray() for frame in container.decode(stream) if (frame.pts or 0) >= 0]
        return np.concatenate(pieces, axis=1), stream.rate
