from __future__ import annotations

import numpy as np
import pytest

from xdyna.errors import InputError, OptionError
from xdyna.evaluation.masks import region_of

FRAMES = np.random.default_rng(0).integers(1, 256, (3, 8, 6, 3)).astype(np.uint8)
MASKS = np.zeros((3, 8, 6), bool)
MASKS[0, 2:5, 1:4] = True
MASKS[1] = True


def test_foreground_and_background_share_the_frame() -> None:
    inside, outside = region_of(FRAMES, MASKS, "fg"), region_of(FRAMES, MASKS, "bg")
    assert np.array_equal(inside[MASKS], FRAMES[MASKS])
    assert not inside[~MASKS].any()
    assert np.array_equal(inside.astype(int) + outside, FRAMES)
    assert not inside[2].any()
    assert np.array_equal(outside[2], FRAMES[2])
    assert inside.dtype == outside.dtype == np.uint8


def test_grey_masks_fill_and_the_whole_frame() -> None:
    grey = np.where(MASKS, 200, 90).astype(np.uint8)
    assert np.array_equal(region_of(FRAMES, grey, "bg"), region_of(FRAMES, MASKS, "bg"))
    assert (region_of(FRAMES, MASKS, "fg", fill=128)[~MASKS] == 128).all()
    assert region_of(FRAMES, None, "all") is FRAMES


@pytest.mark.parametrize(
    ("masks", "problem"),
    [
        (None, "there is none"),
        (MASKS[:2], "2x8x6, the clip is 3x8x6"),
        (MASKS[:, :4], "3x4x6"),
        (MASKS.astype(np.float32), "float32"),
        (MASKS[..., None], "3x8x6x1"),
    ],
)
def test_masks_that_do_not_fit(masks: np.ndarray | None, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        region_of(FRAMES, masks, "fg")


def test_options() -> None:
    with pytest.raises(OptionError, match="region"):
        region_of(FRAMES, MASKS, "face")
    with pytest.raises(OptionError, match="fill"):
        region_of(FRAMES, MASKS, "fg", fill=256)
