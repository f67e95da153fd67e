"""Differences of two pictures pixel by pixel, in the conventions that papers' tables are made with.

=====================  =============================================================================================
`mae`                  mean absolute difference over pixels and channels, 0 to 255
`l1_disco`             the same divided by height times width once more: the "L1" of DisCo and those after it. It
                       depends on the size of the pictures, which must be told beside it
`psnr`                 in dB, from the squared error in float64; 100 for equal pictures
`psnr_disco_legacy`    DisCo's first version, which squared differences in uint8, so that they wrap at 256: about 28
                       dB for any two pictures. For comparison with tables made with it, and for nothing else
`ssim_disco`           scikit-image's `structural_similarity` of OpenCV's grey pictures: uniform 7x7 window, sample
                       covariance, 3 pixels at each border left out
`ssim_gaussian`        HumanVid's (3DGS's): Gaussian 11x11 window of sigma 1.5 on each of R, G and B, zeros beyond the
                       borders
=====================  =============================================================================================

Each also measures a part of the picture (a mask) in two ways. *fill*: everything outside of the mask is painted
black in both pictures, and the whole canvas is measured; values stay on the scale of whole pictures but flatter
small masks. *mean*: only pixels inside of the mask count (for SSIM, windows centred on them).

Sources: Wangt-CN/DisCo tool/metrics/ssim_l1_lpips_psnr.py; zhenzhiwang/HumanVid metrics/metrics.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from xdyna.errors import InputError, OptionError
from xdyna.evaluation.frame_scores import FrameScores
from xdyna.evaluation.pictures import as_clip_pair, as_mask, as_pair

PSNR_OF_EQUAL = 100.0
"""What PSNR is said to be, in dB, where there is no difference at all."""

MASK_MODES = ("fill", "mean")

DISCO_WINDOW = 7
GAUSSIAN_WINDOW, GAUSSIAN_SIGMA = 11, 1.5

Measure = Callable[[np.ndarray, np.ndarray, "np.ndarray | None"], "float | None"]
"""(h w 3) uint8 twice and the pixels that count (h w) bool or None for all -> the value, None if none count."""


def mae(
    generated: np.ndarray, truth: np.ndarray, *, mask: np.ndarray | None = None, mode: str = "fill"
) -> float | None:
    """Mean absolute difference, 0 to 255.

    Args:
        generated: (h w 3) uint8 RGB, or grey (h w). Another size than the truth's is resized to it.
        truth: (h w 3) uint8 RGB, or grey (h w).
        mask: (h w) bool, or uint8 with 255 inside: what counts. None for the whole picture.
        mode: "fill" or "mean", see the module.

    Returns:
        the value, or None where no pixel counts (an empty mask).

    Raises:
        InputError: a picture or mask is of the wrong type or size.
        OptionError: `mode` is unknown.
    """
    return measure("mae", generated, truth, mask=mask, mode=mode)


def l1_disco(
    generated: np.ndarray, truth: np.ndarray, *, mask: np.ndarray | None = None, mode: str = "fill"
) -> float | None:
    """DisCo's L1: `mae` over height times width of the true picture. As `mae` otherwise."""
    return measure("l1_disco", generated, truth, mask=mask, mode=mode)


def psnr(
    generated: np.ndarray, truth: np.ndarray, *, mask: np.ndarray | None = None, mode: str = "fill"
) -> float | None:
    """Peak signal-to-noise ratio in dB over pixels and channels; 100 for no difference. As `mae` otherwise."""
    return measure("psnr", generated, truth, mask=mask, mode=mode)


def psnr_disco_legacy(
    generated: np.ndarray, truth: np.ndarray, *, mask: np.ndarray | None = None, mode: str = "fill"
) -> float | None:
    """The faulty PSNR of DisCo's first version, in dB: squared differences modulo 256. As `mae` otherwise."""
    return measure("psnr_disco_legacy", generated, truth, mask=mask, mode=mode)


def ssim_disco(
    generated: np.ndarray, truth: np.ndarray, *, mask: np.ndarray | None = None, mode: str = "fill"
) -> float | None:
    """SSIM of the grey pictures, at most 1, as DisCo gets it from scikit-image. As `mae` otherwise.

    Raises:
        InputError: also where the pictures are smaller than the 7x7 window.
    """
    return measure("ssim_disco", generated, truth, mask=mask, mode=mode)


def ssim_gaussian(
    generated: np.ndarray, truth: np.ndarray, *, mask: np.ndarray | None = None, mode: str = "fill"
) -> float | None:
    """SSIM of R, G and B with a Gaussian window, at most 1, as HumanVid measures it. As `mae` otherwise."""
    return measure("ssim_gaussian", generated, truth, mask=mask, mode=mode)


def measure(
    name: str,
    generated: np.ndarray,
    truth: np.ndarray,
    *,
    mask: np.ndarray | None = None,
    mode: str = "fill",
) -> float | None:
    """One metric of `PIXEL_METRICS` by name; arguments, result and errors as those of `mae`."""
    return _measure_pair(_known(name), *as_pair(generated, truth), mask, _mode(mode))


def measure_clip(
    name: str,
    generated: np.ndarray | Sequence[np.ndarray],
    truth: np.ndarray | Sequence[np.ndarray],
    *,
    masks: Sequence[np.ndarray] | np.ndarray | None = None,
    mode: str = "fill",
    part: str = "",
) -> FrameScores:
    """One metric of `PIXEL_METRICS` for each frame of a clip; PSNR is thus averaged in dB, as DisCo does.

    Args:
        name: the metric.
        generated: (f h w 3) uint8, or a list of frames, which may differ in size.
        truth: as many frames.
        masks: (f h w) bool or uint8, or a list: what counts in each frame. Frames of an empty mask are not judged.
        mode: "fill" or "mean", see the module.
        part: what the masks hold, such as "fg"; it goes into the name.

    Raises:
        InputError: the clips or masks are not equally long, or a frame cannot be measured.
        OptionError: `name` or `mode` is unknown.
    """
    function, pairs = _known(name), as_clip_pair(generated, truth)
    if masks is not None and len(masks) != len(pairs):
        raise InputError("masks", f"{len(masks)} of them for {len(pairs)} frames", "Give one for each frame")
    listed = [None] * len(pairs) if masks is None else list(masks)
    values = [
        _measure_pair(function, a, b, mask, _mode(mode)) for (a, b), mask in zip(pairs, listed, strict=True)
    ]
    sizes = sorted({f"{truth.shape[0]}x{truth.shape[1]}" for _, truth in pairs})
    masked = {} if masks is None else {"mask": part or "given", "mask_mode": mode}
    return FrameScores.of(_full_name(name, masks is not None, mode, part), values, size=sizes, **masked)


def _full_name(name: str, masked: bool, mode: str, part: str) -> str:
    return f"{name}[{part or 'masked'},{mode}]" if masked else name


def _known(name: str) -> Measure:
    if name not in PIXEL_METRICS:
        raise OptionError(
            "metric", f"there is no pixel metric {name!r}", f"Known are {', '.join(PIXEL_METRICS)}"
        )
    return PIXEL_METRICS[name]


def _mode(mode: str) -> str:
    if mode not in MASK_MODES:
        raise OptionError("mask mode", f"{mode!r} is unknown", f"Known are {', '.join(MASK_MODES)}")
    return mode


def _measure_pair(
    function: Measure, generated: np.ndarray, truth: np.ndarray, mask: np.ndarray | None, mode: str
) -> float | None:
    if mask is None:
        return function(generated, truth, None)
    inside = as_mask(mask, (truth.shape[0], truth.shape[1]))
    if not inside.any():
        return None
    if mode == "mean":
        return function(generated, truth, inside)
    return function(generated * inside[..., None], truth * inside[..., None], None)


def _mean(per_pixel: np.ndarray, inside: np.ndarray | None) -> float | None:
    if inside is None:
        return float(per_pixel.mean(dtype=np.float64))
    chosen = per_pixel[inside]
    return float(chosen.mean(dtype=np.float64)) if chosen.size else None


def _mae(generated: np.ndarray, truth: np.ndarray, inside: np.ndarray | None) -> float | None:
    # whole numbers up to the mean, so that no order of summation matters
    return _mean(cv2.absdiff(generated, truth), inside)


def _l1_disco(generated: np.ndarray, truth: np.ndarray, inside: np.ndarray | None) -> float | None:
    value = _mae(generated, truth, inside)
    return None if value is None else value / (truth.shape[0] * truth.shape[1])


def _psnr(generated: np.ndarray, truth: np.ndarray, inside: np.ndarray | None) -> float | None:
    difference = cv2.absdiff(generated, truth).astype(np.int32)
    return _decibels(_mean(difference * difference, inside))


def _psnr_disco_legacy(generated: np.ndarray, truth: np.ndarray, inside: np.ndarray | None) -> float | None:
    # What uint8 arithmetic makes of (a - b)^2: (256 - d)^2 and d^2 are equal modulo 256.
    difference = cv2.absdiff(generated, truth).astype(np.int32)
    return _decibels(_mean(difference * difference % 256, inside))


def _decibels(squared_error: float | None) -> float | None:
    if squared_error is None:
        return None
    return 20 * math.log10(255 / math.sqrt(squared_error)) if squared_error else PSNR_OF_EQUAL


def _ssim_disco(generated: np.ndarray, truth: np.ndarray, inside: np.ndarray | None) -> float | None:
    height, width = truth.shape[:2]
    if min(height, width) < DISCO_WINDOW:
        raise InputError(
            "ssim_disco",
            f"the true picture is {height}x{width}, and its window needs {DISCO_WINDOW}x{DISCO_WINDOW} pixels",
            "Give larger pictures, or measure ssim_gaussian, whose window may reach beyond them",
        )
    grey = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY).astype(np.float64) for p in (generated, truth)]
    kernel = np.full(DISCO_WINDOW, 1 / DISCO_WINDOW)
    number = DISCO_WINDOW**2
    border = DISCO_WINDOW // 2
    similar = _ssim_map(grey[0], grey[1], kernel, peak=255.0, covariance=number / (number - 1))
    inner = (slice(border, height - border), slice(border, width - border))
    return _mean(similar[inner], None if inside is None else inside[inner])


def _ssim_gaussian(generated: np.ndarray, truth: np.ndarray, inside: np.ndarray | None) -> float | None:
    reach = np.arange(GAUSSIAN_WINDOW) - GAUSSIAN_WINDOW // 2
    kernel = np.exp(-(reach**2) / (2 * GAUSSIAN_SIGMA**2))
    scaled = [picture.astype(np.float64) / 255 for picture in (generated, truth)]
    return _mean(_ssim_map(scaled[0], scaled[1], kernel / kernel.sum(), peak=1.0, covariance=1.0), inside)


def _ssim_map(
    a: np.ndarray, b: np.ndarray, kernel: np.ndarray, *, peak: float, covariance: float
) -> np.ndarray:
    """SSIM at every pixel and channel, from float64 pictures; zeros lie beyond the borders.

    Args:
        a, b: (h w) or (h w c).
        kernel: the window's weights along each axis; they sum to 1.
        peak: the largest value a pixel can have.
        covariance: what the window's variances are multiplied with: n / (n - 1) for those of a sample.
    """

    def blurred(values: np.ndarray) -> np.ndarray:
        return cv2.sepFilter2D(values, cv2.CV_64F, kernel, kernel, borderType=cv2.BORDER_CONSTANT)

    mean_a, mean_b = blurred(a), blurred(b)
    variance_a = covariance * (blurred(a * a) - mean_a * mean_a)
    variance_b = covariance * (blurred(b * b) - mean_b * mean_b)
    shared = covariance * (blurred(a * b) - mean_a * mean_b)
    luminance, contrast = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    return ((2 * mean_a * mean_b + luminance) * (2 * shared + contrast)) / (
        (mean_a**2 + mean_b**2 + luminance) * (variance_a + variance_b + contrast)
    )


PIXEL_METRICS: dict[str, Measure] = {
    "mae": _mae,
    "l1_disco": _l1_disco,
    "psnr": _psnr,
    "psnr_disco_legacy": _psnr_disco_legacy,
    "ssim_disco": _ssim_disco,
    "ssim_gaussian": _ssim_gaussian,
}
"""Every pixel metric by its name."""
