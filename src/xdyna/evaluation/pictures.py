"""Checks of what is measured: pictures, clips and masks, so that no metric sees what it was not made for."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from xdyna.errors import InputError
from xdyna.evaluation.masks import check_masks

_AS_UINT8 = "Give pixels as numpy uint8 in 0 to 255 (height width 3), RGB"


def as_picture(pixels: np.ndarray, *, subject: str = "picture") -> np.ndarray:
    """The picture as (h w 3) uint8 RGB; grey (h w) or (h w 1) is repeated to three channels.

    Raises:
        InputError: it is no uint8 array, has another number of axes or channels, or holds no pixels.
    """
    if not isinstance(pixels, np.ndarray):
        raise InputError(subject, f"is a {type(pixels).__name__}, not an array of pixels", _AS_UINT8)
    if pixels.dtype != np.uint8:
        raise InputError(subject, f"its pixels are {pixels.dtype}, not uint8", _AS_UINT8)
    shape = "x".join(map(str, pixels.shape)) or "a number"
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise InputError(subject, f"is {shape}, not height x width x 3 (or grey)", _AS_UINT8)
    if 0 in pixels.shape:
        raise InputError(subject, f"is {shape}: it holds no pixels", _AS_UINT8)
    return np.ascontiguousarray(pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2))


def as_pair(
    generated: np.ndarray, truth: np.ndarray, *, subject: str = "picture"
) -> tuple[np.ndarray, np.ndarray]:
    """Both as (h w 3) uint8 of the truth's size.

    A generated picture of another size is resized to the truth's with OpenCV's bilinear filter without
    antialiasing, as DisCo's evaluation does (tool/metrics/ssim_l1_lpips_psnr.py); never the other way round.

    Raises:
        InputError: one of them is no picture, see `as_picture`.
    """
    generated = as_picture(generated, subject=f"generated {subject}")
    truth = as_picture(truth, subject=f"true {subject}")
    if generated.shape != truth.shape:
        size = (truth.shape[1], truth.shape[0])
        generated = cv2.resize(generated, size, interpolation=cv2.INTER_LINEAR)
    return generated, truth


def as_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask as (h w) bool.

    Args:
        mask: (h w) or (h w 1) bool, or uint8 of which 128 and more is inside.
        size: (height, width) that it must have.

    Raises:
        InputError: it has another type or size. Masks are not resized: a mask that does not fit is a mistake.
    """
    held = np.asarray(mask)
    flat = held[..., 0] if held.ndim == 3 and held.shape[2] == 1 else held
    return check_masks(flat[None], (1, *size))[0]


def as_clip(frames: np.ndarray | Sequence[np.ndarray], *, subject: str = "clip") -> list[np.ndarray]:
    """The frames, each (h w 3) uint8.

    Raises:
        InputError: there are none, or one is no picture.
    """
    listed = [as_picture(frame, subject=f"{subject}, frame {n}") for n, frame in enumerate(frames)]
    if not listed:
        raise InputError(subject, "holds no frames", "Give at least one")
    return listed


def as_clip_pair(
    generated: np.ndarray | Sequence[np.ndarray],
    truth: np.ndarray | Sequence[np.ndarray],
    *,
    subject: str = "clip",
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The clips' frames in pairs, see `as_pair`.

    Raises:
        InputError: a clip is empty, a frame is no picture, or the clips are not equally long.
    """
    first = as_clip(generated, subject=f"generated {subject}")
    second = as_clip(truth, subject=f"true {subject}")
    if len(first) != len(second):
        raise InputError(
            subject,
            f"{len(first)} generated frames and {len(second)} true ones",
            "Cut both to the same frames: which one belongs to which cannot be guessed",
        )
    return [
        as_pair(a, b, subject=f"{subject}, frame {n}")
        for n, (a, b) in enumerate(zip(first, second, strict=True))
    ]
