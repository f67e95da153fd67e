from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from tests.evaluation.pictures_for_tests import noise, odd_pictures
from xdyna.errors import InputError, OptionError
from xdyna.evaluation import pixel
from xdyna.evaluation.pixel import PIXEL_METRICS, measure, measure_clip

PERFECT = {"mae": 0.0, "l1_disco": 0.0, "psnr": 100.0, "psnr_disco_legacy": 100.0} | dict.fromkeys(
    ("ssim_disco", "ssim_gaussian"), 1.0
)


def ssim_by_definition(
    a: np.ndarray, b: np.ndarray, weights: np.ndarray, *, peak: float, sample: bool
) -> float:
    """SSIM window by window, as its paper writes it: a and b (h w) float, only windows wholly inside."""
    total, number = [], weights.size
    side = weights.shape[0]
    for top in range(a.shape[0] - side + 1):
        for left in range(a.shape[1] - side + 1):
            x, y = (p[top : top + side, left : left + side] for p in (a, b))
            mx, my = (x * weights).sum(), (y * weights).sum()
            factor = number / (number - 1) if sample else 1.0
            vx = factor * (weights * (x - mx) ** 2).sum()
            vy = factor * (weights * (y - my) ** 2).sum()
            vxy = factor * (weights * (x - mx) * (y - my)).sum()
            c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
            total.append((2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return float(np.mean(total))


def test_values_that_a_hand_can_count() -> None:
    truth = np.full((4, 5, 3), 100, np.uint8)
    generated = truth.copy()
    generated[0, 0] = 120
    assert pixel.mae(generated, truth) == pytest.approx(20 / 20)
    assert pixel.l1_disco(generated, truth) == pytest.approx(1 / 20)
    assert pixel.psnr(generated, truth) == pytest.approx(20 * math.log10(255 / math.sqrt(400 / 20)))
    # 400 modulo 256
    assert pixel.psnr_disco_legacy(generated, truth) == pytest.approx(
        20 * math.log10(255 / math.sqrt(144 / 20))
    )


def test_legacy_psnr_is_what_uint8_arithmetic_gives() -> None:
    a, b = noise(30, 20, seed=1), noise(30, 20, seed=2)
    wrapped = (a - b) ** 2  # uint8 throughout
    assert wrapped.dtype == np.uint8
    assert pixel.psnr_disco_legacy(a, b) == pytest.approx(20 * math.log10(255 / math.sqrt(wrapped.mean())))
    assert pixel.psnr_disco_legacy(a, b) > 25 > 12 > pixel.psnr(a, b)


def test_ssim_follows_its_definition() -> None:
    a, b = noise(16, 13, seed=1), cv2.GaussianBlur(noise(16, 13, seed=1), (0, 0), 1)
    grey = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY).astype(np.float64) for p in (a, b)]
    uniform = np.full((7, 7), 1 / 49)
    wanted = ssim_by_definition(*grey, uniform, peak=255, sample=True)
    assert pixel.ssim_disco(a, b) == pytest.approx(wanted, abs=1e-12)

    line = np.exp(-((np.arange(11) - 5) ** 2) / 4.5)
    gaussian = np.outer(line, line) / line.sum() ** 2
    channels = []
    for c in range(3):
        padded = [np.pad(p[..., c] / 255.0, 5) for p in (a, b)]
        channels.append(ssim_by_definition(*padded, gaussian, peak=1, sample=False))
    assert pixel.ssim_gaussian(a, b) == pytest.approx(np.mean(channels), abs=1e-10)


@pytest.mark.parametrize("name", PIXEL_METRICS)
@pytest.mark.parametrize("kind", odd_pictures())
def test_odd_pictures_give_a_number_or_say_why_not(name: str, kind: str) -> None:
    picture = odd_pictures()[kind]
    too_small = name == "ssim_disco" and min(picture.shape[:2]) < 7
    for other in (picture, noise(50, 60)):
        if too_small:
            with pytest.raises(InputError, match="7x7"):
                measure(name, other, picture)
            continue
        value = measure(name, other, picture)
        assert value is not None
        assert math.isfinite(value)
        if other is picture:
            assert value == PERFECT[name]


@pytest.mark.parametrize("name", PIXEL_METRICS)
def test_a_pair_is_symmetric_and_worse_with_more_noise(name: str) -> None:
    truth = cv2.GaussianBlur(noise(48, 48), (0, 0), 4)
    noisy = [
        np.clip(truth + np.random.default_rng(1).normal(0, s, truth.shape), 0, 255).astype(np.uint8)
        for s in (2, 9)
    ]
    values = [measure(name, n, truth) for n in noisy]
    assert measure(name, truth, noisy[0]) == pytest.approx(values[0])
    assert (values[0] < values[1]) == name.startswith(("mae", "l1"))


@pytest.mark.parametrize(
    "bad",
    [
        noise(9, 9).astype(np.float32),
        noise(9, 9).astype(np.int64),
        noise(9, 9)[..., :2],
        np.zeros((9, 9, 4), np.uint8),
        np.zeros((0, 9, 3), np.uint8),
        np.zeros((2, 9, 9, 3), np.uint8),
        np.uint8(3),
        [[1, 2], [3, 4]],
        None,
    ],
    ids=lambda bad: str(getattr(bad, "shape", type(bad).__name__)),
)
def test_what_is_no_picture_is_refused(bad: object) -> None:
    good = noise(9, 9)
    for pair in ((bad, good), (good, bad)):
        with pytest.raises(InputError, match="uint8"):
            measure("psnr", *pair)  # type: ignore[arg-type]


def test_the_generated_picture_takes_the_size_of_the_true_one() -> None:
    truth, generated = noise(40, 60), noise(30, 50, seed=2)
    resized = cv2.resize(generated, (60, 40), interpolation=cv2.INTER_LINEAR)
    assert pixel.mae(generated, truth) == pixel.mae(resized, truth)
    assert pixel.mae(generated, truth) != pixel.mae(truth, generated)


def test_masks_by_filling_and_by_mean() -> None:
    truth = np.full((20, 20, 3), 100, np.uint8)
    generated = truth.copy()
    generated[:10] = 110
    mask = np.zeros((20, 20), bool)
    mask[:5] = True
    assert pixel.mae(generated, truth, mask=mask, mode="mean") == 10
    assert pixel.mae(generated, truth, mask=mask) == pytest.approx(10 / 4)
    as_picture = mask.astype(np.uint8) * 255
    assert pixel.mae(generated, truth, mask=as_picture[..., None], mode="mean") == 10
    below = ~mask
    below[:12] = False
    assert pixel.psnr(generated, truth, mask=below, mode="mean") == 100
    for name in PIXEL_METRICS:
        assert measure(name, generated, truth, mask=np.zeros_like(mask)) is None
        whole = measure(name, generated, truth)
        for mode in ("fill", "mean"):
            assert measure(name, generated, truth, mask=np.ones_like(mask), mode=mode) == pytest.approx(whole)


def test_a_mask_that_only_touches_the_border_of_disco_ssim_cannot_be_judged() -> None:
    mask = np.zeros((20, 20), bool)
    mask[:2] = True
    assert pixel.ssim_disco(noise(20, 20), noise(20, 20, seed=1), mask=mask, mode="mean") is None
    assert pixel.ssim_gaussian(noise(20, 20), noise(20, 20, seed=1), mask=mask, mode="mean") is not None


@pytest.mark.parametrize(
    "mask", [np.zeros((3, 3), bool), np.zeros((9, 9), np.float32), "mask", np.zeros((9, 9, 3), bool)]
)
def test_masks_that_do_not_fit_are_refused(mask: np.ndarray) -> None:
    with pytest.raises(InputError, match="mask"):
        pixel.mae(noise(9, 9), noise(9, 9), mask=mask)


def test_a_clip_is_measured_frame_by_frame() -> None:
    truth = [noise(20, 30), noise(8, 9), noise(20, 30, seed=3)]
    generated = [noise(20, 30, seed=4), noise(10, 9, seed=5), truth[2]]
    scores = measure_clip("psnr", generated, truth)
    assert scores.values == tuple(pixel.psnr(a, b) for a, b in zip(generated, truth, strict=True))
    assert scores.mean == pytest.approx(np.mean(scores.values))
    assert scores.protocol["size"] == ["20x30", "8x9"]
    one = measure_clip("psnr", generated[:1], np.stack(truth[:1]))
    assert one.values == scores.values[:1]


def test_frames_without_a_mask_are_left_out_of_the_mean() -> None:
    truth, generated = np.stack([noise(9, 9)] * 3), np.stack([noise(9, 9, seed=1)] * 3)
    masks = np.zeros((3, 9, 9), bool)
    masks[1, 2:5] = True
    scores = measure_clip("mae", generated, truth, masks=masks, mode="mean", part="fg")
    assert scores.name == "mae[fg,mean]"
    assert [value is None for value in scores.values] == [True, False, True]
    assert scores.coverage == pytest.approx(1 / 3)
    nothing = measure_clip("mae", generated, truth, masks=np.zeros_like(masks))
    assert nothing.mean is None
    assert nothing.coverage == 0


def test_clips_that_do_not_belong_together_are_refused() -> None:
    three, two = np.stack([noise(9, 9)] * 3), np.stack([noise(9, 9)] * 2)
    with pytest.raises(InputError, match="3 generated frames and 2"):
        measure_clip("mae", three, two)
    with pytest.raises(InputError, match="no frames"):
        measure_clip("mae", [], [])
    with pytest.raises(InputError, match="2 of them for 3"):
        measure_clip("mae", three, three, masks=np.ones((2, 9, 9), bool))
    with pytest.raises(InputError, match="true clip, frame 1"):
        measure_clip("mae", two, [two[0], two[1] / 255])


def test_unknown_names_are_refused() -> None:
    with pytest.raises(OptionError, match="ssim_disco"):
        measure("ssim", noise(9, 9), noise(9, 9))
    with pytest.raises(OptionError, match="fill, mean"):
        measure("mae", noise(9, 9), noise(9, 9), mask=np.ones((9, 9), bool), mode="crop")
