"""Frames to network inputs, each exactly as the public code that defined the metric does it.

Frames come as (f h w 3) uint8 RGB; every function tells what leaves it. The resizings differ on purpose: the
networks were given these pixels when the published numbers were made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from xdyna.errors import InputError, OptionError

KINETICS_MEAN = (114.7748, 107.7354, 99.4750)
"""RGB, 0..255: what FID-VID's network expects to be subtracted."""

ShortClips = Literal["loop", "reference"]
Rounding = Literal["truncate", "nearest"]


def check_frames(frames: np.ndarray, *, source: str = "clip") -> np.ndarray:
    """Insist on (f h w 3) uint8 with at least one frame and pixel.

    Raises:
        InputError: anything else.
    """
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
        kind = frames.dtype if isinstance(frames, np.ndarray) else type(frames).__name__
        raise InputError(source, f"frames are {kind}, not uint8", "Give RGB frames with values 0..255")
    if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise InputError(source, f"frames have the shape {frames.shape}, not (frames, height, width, 3)")
    return frames


def pictures_for_fid(frames: np.ndarray, *, size: int = 299) -> Tensor:
    """pytorch-fid: [0, 1], bilinear without antialias (also when it shrinks), then [-1, 1].

    Returns:
        (f 3 size size) float32 in [-1, 1].

    Raises:
        InputError: as `check_frames`.
    """
    pictures = _channels_first(check_frames(frames)) / 255
    pictures = F.interpolate(pictures, size=(size, size), mode="bilinear", align_corners=False)
    return 2 * pictures - 1


def pictures_for_clean_fid(frames: np.ndarray, *, size: int = 299) -> Tensor:
    """clean-fid's resizing: Pillow bicubic with antialias on float channels, clipped to 0..255.

    Returns:
        (f 3 size size) float32 in [0, 255].

    Raises:
        InputError: as `check_frames`.
    """
    resized = np.clip(pillow_bicubic(check_frames(frames), (size, size)), 0, 255)
    return torch.from_numpy(resized).permute(0, 3, 1, 2).contiguous()


def pictures_for_nsfwjs(frames: np.ndarray, *, size: int = 299) -> Tensor:
    """nsfwjs: [0, 1], bilinear with aligned corners and without antialias.

    Returns:
        (f 3 size size) float32 in [0, 1].

    Raises:
        InputError: as `check_frames`.
    """
    pictures = _channels_first(check_frames(frames)) / 255
    return F.interpolate(pictures, size=(size, size), mode="bilinear", align_corners=True)


def pillow_bicubic(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize each channel as a float picture with Pillow's antialiased bicubic filter.

    Nothing is clamped, so values leave 0..255 at edges; DisCo's FVD and FID-VID feed them like that.

    Args:
        frames: (f h w 3) uint8.
        size: height and width; the aspect is not kept.

    Returns:
        (f size size 3) float32.
    """
    height, width = size
    resized = np.empty((frames.shape[0], height, width, 3), np.float32)
    for index, frame in enumerate(frames.astype(np.float32)):
        for channel in range(3):
            picture = Image.fromarray(np.ascontiguousarray(frame[:, :, channel]))
            picture = picture.resize((width, height), Image.Resampling.BICUBIC)
            resized[index, :, :, channel] = np.asarray(picture)
    return resized


def clip_for_disco_fvd(frames: np.ndarray, *, size: int = 224) -> Tensor:
    """DisCo's FVD: Pillow float bicubic (not bilinear), unclamped, x / 127.5 - 1.

    Returns:
        (3 f size size) float32, about [-1, 1].

    Raises:
        InputError: as `check_frames`.
    """
    resized = torch.from_numpy(pillow_bicubic(check_frames(frames), (size, size)))
    return _clip_axes(resized / 127.5 - 1)


def clip_for_fid_vid(frames: np.ndarray, *, size: int = 112) -> Tensor:
    """DisCo's FID-VID: Pillow float bicubic, unclamped, less the mean colour of Kinetics; no division.

    Returns:
        (3 f size size) float32, about [-115, 155].

    Raises:
        InputError: as `check_frames`.
    """
    resized = pillow_bicubic(check_frames(frames), (size, size)).astype(np.float64)
    return _clip_axes(torch.from_numpy((resized - KINETICS_MEAN).astype(np.float32)))


def clip_for_tats_fvd(frames: np.ndarray, *, size: int = 224) -> Tensor:
    """The FVD of cd-FVD and TATS: bilinear without antialias, 2x/255 - 1.

    Returns:
        (3 f size size) float32 in [-1, 1].

    Raises:
        InputError: as `check_frames`.
    """
    resized = F.interpolate(
        _channels_first(check_frames(frames)), size=(size, size), mode="bilinear", align_corners=False
    )
    return (2 * resized / 255 - 1).transpose(0, 1).contiguous()


def clip_for_cd_fvd(frames: np.ndarray, *, size: int = 224) -> Tensor:
    """cd-FVD: [0, 1], bilinear without antialias; no mean and no deviation are taken off.

    Returns:
        (3 f size size) float32 in [0, 1].

    Raises:
        InputError: as `check_frames`.
    """
    pictures = _channels_first(check_frames(frames)) / 255
    resized = F.interpolate(pictures, size=(size, size), mode="bilinear", align_corners=False)
    return resized.transpose(0, 1).contiguous()


def clip_for_dtfvd(
    frames: np.ndarray, *, length: int = 16, size: int = 224, short: ShortClips = "loop"
) -> Tensor:
    """DTFVD: [-1, 1], each frame bilinear with align_corners, short clips repeated in time.

    Args:
        frames: (f h w 3) uint8, f <= `length`; cut longer videos into windows first.
        length: frames that the network takes, 16 or 32.
        size: of its frames.
        short: what a shorter clip of the 16-frame network becomes: "loop" repeats it as often as needed;
            "reference" as the published code, three times and then cut, so that 5 frames become 15 and
            2 frames an error of the network. The 32-frame network takes 32 frames.

    Returns:
        (3 length size size) float32 in [-1, 1]; fewer frames with "reference" and under 6.

    Raises:
        InputError: as `check_frames`, or a number of frames that does not go.
        OptionError: an unknown `short`.
    """
    number = check_frames(frames).shape[0]
    if short not in ("loop", "reference"):
        raise OptionError("short", f"{short!r} is unknown", "Allowed are loop and reference")
    if number > length or (length == 32 and number != length):
        raise InputError(
            "clip",
            f"{number} frames; DTFVD of this length takes {'' if length == 32 else 'at most '}{length}",
            "Cut it into windows",
        )
    times = 3 if short == "reference" else math.ceil(length / number)
    order = np.tile(np.arange(number), times)[:length] if number < length else np.arange(number)
    clip = _channels_first(frames) / 127.5 - 1
    resized = F.interpolate(clip, size=(size, size), mode="bilinear", align_corners=True)
    return resized[torch.from_numpy(order)].transpose(0, 1).contiguous()


def load_as_cd_fvd(
    frames: np.ndarray, *, resolution: int = 256, rounding: Rounding = "truncate"
) -> tuple[np.ndarray, np.ndarray]:
    """What cd-FVD's own loader makes of a video before its network is asked.

    The short side becomes `resolution` (bilinear with antialias), the long side is rounded up, the middle is
    cut out, and floats become bytes.

    Args:
        frames: (f h w 3) uint8.
        resolution: side of the square.
        rounding: "truncate" as cd-FVD, which darkens by half a level on average, or "nearest".

    Returns:
        bytes (f r r 3) uint8, and the floats that they were made of, (f r r 3) float32 in [0, 1].

    Raises:
        InputError: as `check_frames`.
        OptionError: an unknown `rounding`.
    """
    if rounding not in ("truncate", "nearest"):
        raise OptionError("rounding", f"{rounding!r} is unknown", "Allowed are truncate and nearest")
    height, width = check_frames(frames).shape[1:3]
    scale = resolution / min(height, width)
    target = (
        (resolution, math.ceil(width * scale)) if height < width else (math.ceil(height * scale), resolution)
    )
    pictures = F.interpolate(
        _channels_first(frames) / 255, size=target, mode="bilinear", align_corners=False, antialias=True
    )
    top, left = (target[0] - resolution) // 2, (target[1] - resolution) // 2
    cut = pictures[:, :, top : top + resolution, left : left + resolution]
    floats = cut.permute(0, 2, 3, 1).contiguous()
    levels = floats * 255
    if rounding == "nearest":
        levels = levels.round()
    return levels.clamp(0, 255).to(torch.uint8).numpy(), floats.numpy()


def windows_of(frames: np.ndarray, *, length: int = 16, step: int = 1) -> Iterator[np.ndarray]:
    """Windows of a video that slide by `step` frames; DisCo takes length 16 and step 1.

    Args:
        frames: (f h w 3).
        length: frames a window.
        step: frames between starts; `length` for windows that do not overlap. Frames after the last whole
            window are in none.

    Returns:
        views (length h w 3); none where the video is shorter.

    Raises:
        OptionError: `length` or `step` below 1.
    """
    if length < 1 or step < 1:
        raise OptionError("windows", f"length {length} and step {step}; both are at least 1")
    for start in range(0, frames.shape[0] - length + 1, step):
        yield frames[start : start + length]


def segments_of(frames: np.ndarray, *, length: int = 16) -> list[np.ndarray]:
    """A whole video as segments side by side, its last frame repeated until the last segment is full.

    DisCo's FID-VID of whole videos averages the features of these.

    Args:
        frames: (f h w 3), at least one frame.
        length: frames a segment.

    Returns:
        (length h w 3) each.
    """
    number = math.ceil(frames.shape[0] / length)
    order = np.minimum(np.arange(number * length), frames.shape[0] - 1)
    return [frames[order[start : start + length]] for start in range(0, number * length, length)]


def _channels_first(frames: np.ndarray) -> Tensor:
    """(f h w 3) uint8 -> (f 3 h w) float32, 0..255."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()


def _clip_axes(frames: Tensor) -> Tensor:
    """(f h w 3) -> (3 f h w)."""
    return frames.permute(3, 0, 1, 2).contiguous()
