from __future__ import annotations

import numpy as np
import pytest
import torch

from xdyna.errors import InputError, OptionError
from xdyna.evaluation import preparing
from xdyna.evaluation.preparing import (
    KINETICS_MEAN,
    clip_for_dtfvd,
    load_as_cd_fvd,
    segments_of,
    windows_of,
)


def clip(frames: int = 4, height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3)).astype(np.uint8)


def numbered(frames: int) -> np.ndarray:
    return np.zeros((frames, 2, 2, 3), np.uint8) + np.arange(frames, dtype=np.uint8)[:, None, None, None]


def shown(prepared: torch.Tensor) -> list[int]:
    """The numbers of `numbered` frames in a prepared clip (3 f h w) in [-1, 1]."""
    return ((prepared[0, :, 0, 0] + 1) * 127.5).round().int().tolist()


PREPARED = {
    "pictures_for_fid": ((4, 3, 299, 299), -1, 1),
    "pictures_for_clean_fid": ((4, 3, 299, 299), 0, 255),
    "clip_for_disco_fvd": ((3, 4, 224, 224), -1, 1),
    "clip_for_tats_fvd": ((3, 4, 224, 224), -1, 1),
    "clip_for_cd_fvd": ((3, 4, 224, 224), 0, 1),
}


@pytest.mark.parametrize("name", PREPARED)
def test_shapes_and_ranges(name: str) -> None:
    prepare = getattr(preparing, name)
    shape, low, high = PREPARED[name]
    result = prepare(clip())
    assert result.shape == shape
    assert result.dtype == torch.float32
    # constant frames keep their value under every resizing
    for level, value in ((0, low), (255, high)):
        constant = prepare(np.full((4, 20, 30, 3), level, np.uint8))
        assert constant.numpy() == pytest.approx(value, abs=1e-4)


def test_fid_vid_takes_the_mean_colour_off() -> None:
    prepared = preparing.clip_for_fid_vid(np.full((2, 9, 7, 3), 100, np.uint8))
    assert prepared.shape == (3, 2, 112, 112)
    assert prepared[:, 0, 50, 50].tolist() == pytest.approx([100 - mean for mean in KINETICS_MEAN], abs=1e-4)


def test_discos_bicubic_overshoots_and_clean_fids_does_not() -> None:
    edge = np.zeros((1, 16, 16, 3), np.uint8)
    edge[:, :, 8:] = 255
    assert float(preparing.clip_for_disco_fvd(edge).max()) > 1.01
    assert float(preparing.pictures_for_clean_fid(edge).max()) == 255


@pytest.mark.parametrize(
    ("frames", "looped", "as_published"),
    [
        (16, 16, 16),
        (7, 16, 16),
        (6, 16, 16),
        (5, 16, 15),
        (1, 16, 3),
    ],
)
def test_dtfvd_repeats_short_clips(frames: int, looped: int, as_published: int) -> None:
    order = (list(range(frames)) * 16)[:16]
    assert shown(clip_for_dtfvd(numbered(frames), size=4)) == order[:looped]
    assert shown(clip_for_dtfvd(numbered(frames), size=4, short="reference")) == order[:as_published]


def test_dtfvd_refuses_lengths_that_its_networks_do_not_have() -> None:
    assert clip_for_dtfvd(numbered(32), length=32, size=4).shape == (3, 32, 4, 4)
    for frames, length in ((17, 16), (31, 32), (33, 32)):
        with pytest.raises(InputError, match=f"{frames} frames"):
            clip_for_dtfvd(numbered(frames), length=length)
    with pytest.raises(OptionError, match="short"):
        clip_for_dtfvd(numbered(3), short="mirror")


def test_cd_fvds_loader_cuts_the_middle_and_truncates() -> None:
    frames = clip(2, 40, 61)
    truncated, floats = load_as_cd_fvd(frames, resolution=20)
    rounded, _ = load_as_cd_fvd(frames, resolution=20, rounding="nearest")
    assert truncated.shape == floats.shape == (2, 20, 20, 3)
    levels = floats.astype(np.float64) * 255
    clear = np.abs(levels - levels.round()) > 1e-3
    assert np.array_equal(truncated[clear], np.floor(levels[clear]))
    assert np.array_equal(rounded, np.round(levels))
    assert 0.3 < (rounded.astype(int) - truncated).mean() < 0.7
    square = clip(1, 20, 20)
    assert np.array_equal(load_as_cd_fvd(square, resolution=20)[0], square)
    with pytest.raises(OptionError, match="rounding"):
        load_as_cd_fvd(frames, rounding="up")


def test_windows_and_segments() -> None:
    frames = numbered(19)
    starts = [int(window[0, 0, 0, 0]) for window in windows_of(frames)]
    assert starts == [0, 1, 2, 3]
    assert [int(window[0, 0, 0, 0]) for window in windows_of(frames, length=4, step=5)] == [0, 5, 10, 15]
    assert list(windows_of(numbered(15))) == []
    for options in ({"step": 0}, {"length": 0}):
        with pytest.raises(OptionError):
            list(windows_of(frames, **options))
    first, second = segments_of(frames)
    assert first[:, 0, 0, 0].tolist() == list(range(16))
    assert second[:, 0, 0, 0].tolist() == [16, 17] + [18] * 14
    assert len(segments_of(numbered(16))) == len(segments_of(numbered(1))) == 1


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((4, 8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((4, 8, 8, 1), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
        np.zeros((4, 8, 0, 3), np.uint8),
        [[0]],
    ],
)
@pytest.mark.parametrize("name", [*PREPARED, "clip_for_fid_vid", "clip_for_dtfvd", "load_as_cd_fvd"])
def test_what_are_no_frames(name: str, frames: np.ndarray) -> None:
    with pytest.raises(InputError):
        getattr(preparing, name)(frames)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (700, 3)])
@pytest.mark.parametrize("name", [*PREPARED, "clip_for_fid_vid", "clip_for_dtfvd"])
def test_odd_sizes(name: str, size: tuple[int, int]) -> None:
    assert torch.isfinite(getattr(preparing, name)(clip(2, *size))).all()
