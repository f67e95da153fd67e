"""A driving video: which of its frames are used, at which rate, on which canvas."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from xdyna import media
from xdyna.errors import InputError
from xdyna.media import Clip
from xdyna.model_preset import ModelPreset
from xdyna.options import AnimateOptions, parse_size

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DrivingVideo:
    """The chosen frames of a driving video, readable again and again.

    Attributes:
        source: the video's path, or a clip in memory.
        name: how messages call it.
        size: (height, width) of its frames.
        fps: frame rate of the chosen frames, and so of the result.
        start: first frame.
        step: driving frames per chosen frame; a fraction when the video is re-timed.
        limit: how many frames were asked for, or None for all.
        expected: how many frames there should be by the file's own word, for progress bars.
        sound: whether the result may carry the video's sound: it has some, and speed stays true.
    """

    source: Path | Clip
    name: str
    size: tuple[int, int]
    fps: Fraction
    start: int
    step: Fraction
    limit: int | None
    expected: int | None
    sound: bool
    source_fps: Fraction

    def __iter__(self) -> Iterator[np.ndarray]:
        """The chosen frames, (h w 3) uint8 each.

        Raises:
            InputError: the video ends before the asked number of frames.
        """
        count = 0
        for index, frame in enumerate(self._decoded()):
            # a re-timed video may show one driving frame several times
            while math.floor(count * self.step) == index and count != self.limit:
                yield frame
                count += 1
            if count == self.limit:
                return
        if self.limit is not None and count < self.limit:
            raise too_few_frames(self.name, self.limit, count)

    def _decoded(self) -> Iterator[np.ndarray]:
        if isinstance(self.source, Clip):
            return iter(self.source.frames[self.start :])
        return media.stream_frames(self.source, start=self.start)


def too_few_frames(name: str, asked: int, available: int) -> InputError:
    """The error for more frames asked than there are."""
    return InputError(
        name,
        f"{asked} frames were asked for and there are {available} with this --start, --stride and --fps",
        f"Use --frames {available} or less, or leave --frames out" if available else "Lower --start",
    )


def open_driving(video: str | Path | np.ndarray | Clip, options: AnimateOptions) -> DrivingVideo:
    """Look at a driving video and settle which of its frames are used.

    Args:
        video: a path, a `Clip`, or frames (f h w 3) uint8, taken to be 8 a second.
        options: frames, start, stride and fps are read.

    Raises:
        InputError: the file is no usable video, or has fewer frames than asked for.
    """
    if isinstance(video, np.ndarray):
        video = Clip(frames=video, fps=Fraction(8))
    if isinstance(video, Clip):
        source: Path | Clip = video
        name, sound = "driving clip", False
        total: int | None = len(video.frames)
        rate, size = Fraction(video.fps), (video.frames.shape[1], video.frames.shape[2])
    else:
        source = Path(video)
        info = media.probe(source)
        name, total, rate, sound = str(video), info.frames, info.fps, info.has_audio
        size = (info.height, info.width)
    step, fps = Fraction(options.stride), rate / options.stride
    if options.fps is not None:
        asked = Fraction(options.fps).limit_denominator(1001)
        if options.stride == 1:
            step, fps = rate / asked, asked
        else:
            sound, fps = False, asked
    expected = None
    if total is not None:
        expected = max(0, math.ceil((total - options.start) / step))
        if expected == 0:
            raise InputError(
                name, f"has {total} frames, so none is left from --start {options.start}", "Lower --start"
            )
        if options.frames is not None and expected < options.frames:
            # the file's own count may be wrong: believe it only when it is exact
            exact = total if isinstance(source, Clip) else media.count_frames(source)
            expected = max(0, math.ceil((exact - options.start) / step))
            if expected < options.frames:
                raise too_few_frames(name, options.frames, expected)
        expected = min(expected, options.frames or expected)
    return DrivingVideo(
        source, name, size, fps, options.start, step, options.frames, expected, sound, source_fps=rate
    )


def canvas_size(picture: tuple[int, ...], size: str | None, preset: ModelPreset) -> tuple[int, int]:
    """(height, width) of the result: as asked, or the picture's aspect at the model's native area."""
    asked = None if size is None else parse_size(size)
    if isinstance(asked, tuple):
        rounded = (max(64, asked[0] // 8 * 8), max(64, asked[1] // 8 * 8))
        if rounded != asked:
            logger.warning("--size: sides are multiples of 8, so the result is %dx%d", rounded[1], rounded[0])
        return rounded
    area = preset.height * preset.width if asked is None else asked**2
    # very long pictures are cut to 3:1, beyond what any model here was made for
    aspect = min(3.0, max(1 / 3, picture[0] / picture[1]))
    multiple = preset.multiple if asked is None or asked >= 4 * preset.multiple else 8

    def rounded_to(side: float) -> int:
        return max(64, round(side / multiple) * multiple)

    return rounded_to(math.sqrt(area * aspect)), rounded_to(math.sqrt(area / aspect))


def as_picture(image: str | Path | np.ndarray | Any) -> np.ndarray:
    """A path, Pillow image or array as (h w 3) uint8."""
    if isinstance(image, (str, Path)):
        return media.read_image(image)
    picture = np.asarray(image.convert("RGB") if hasattr(image, "convert") else image)
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise InputError(
            "reference picture",
            f"an array of shape {picture.shape} and type {picture.dtype}",
            "Give (h w 3) uint8 RGB",
        )
    return picture
