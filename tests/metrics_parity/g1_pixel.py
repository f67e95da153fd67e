"""Group g1_pixel: L1, PSNR and its legacy, SSIM, of single pairs and of sets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.metrics_parity.fixture import Case, Check, UnknownCase, absolute, relative
from xdyna.evaluation import pixel
from xdyna.evaluation.pictures import as_pair

_NAMES = {
    "L1": "l1_disco",
    "PSNR": "psnr",
    "PSNR_legacy_uint8_wrap": "psnr_disco_legacy",
    "SSIM": "ssim_disco",
}
_EXACT_SUMS, _SSIM, _OTHER_RESIZE = 1e-9, 1e-7, 2e-3


def check_pixel(case: Case) -> Iterator[Check]:
    """One pair (h w 3) or a set (f h w 3); every output by its own name."""
    generated, truth = case.input("gen_rgb"), case.input("gt_rgb")
    one = generated.ndim == 3
    frames = ([generated], [truth]) if one else (generated, truth)
    # OpenCV's versions may round a resized pixel otherwise; the fixture then allows more
    sums, similarity = _EXACT_SUMS, _SSIM
    if "resized_gen_rgb" in case.outputs:
        resized, _ = as_pair(generated, truth)
        yield absolute("resized_gen_rgb", resized, case.output("resized_gen_rgb"), 1)
        if not np.array_equal(resized, case.output("resized_gen_rgb")):
            sums = similarity = _OTHER_RESIZE
    for name in case.outputs:
        wanted = case.output(name)
        if name == "resized_gen_rgb":
            continue
        elif name == "MAE_0_255":
            yield relative(name, pixel.mae(generated, truth), wanted, sums)
        elif name == "MSE_0_255":
            # PSNR is our only squared error; turned back
            error = 255.0**2 / 10 ** (float(pixel.psnr(generated, truth) or 0) / 10)
            yield relative(name, error, wanted, sums)
        elif name.removeprefix("per_frame_") in _NAMES:
            yield _metric(name, name.removeprefix("per_frame_"), frames, wanted, (sums, similarity))
        else:
            raise UnknownCase(f"output {name!r}")


def _metric(
    label: str, name: str, frames: tuple[Any, Any], wanted: Any, allowed: tuple[float, float]
) -> Check:
    scores = pixel.measure_clip(_NAMES[name], *frames)
    got = np.array(scores.values, np.float64) if label.startswith("per_frame_") else scores.mean
    if name == "SSIM":
        return absolute(label, got, wanted, allowed[1])
    return relative(label, got, wanted, allowed[0])


GROUPS = {"g1_pixel": check_pixel}
