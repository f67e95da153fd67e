from __future__ import annotations

import numpy as np
import pytest

from xdyna.conditions.keypoints import Keypoints
from xdyna.data.prepared.crops import Crop, choose_crop, person_box


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("frame", [(100, 100), (90, 160), (160, 90), (896, 512), (33, 47)])
@pytest.mark.parametrize("size", [(64, 64), (56, 32), (32, 56)])
def test_crops_lie_in_the_frame_and_have_the_aspect(frame: tuple[int, int], size: tuple[int, int]) -> None:
    for seed in range(20):
        crop = choose_crop(frame, size, zoom=1 + seed / 10, keep=None, generator=generator(seed))
        assert 0 <= crop.left <= frame[1] - crop.width
        assert 0 <= crop.top <= frame[0] - crop.height
        assert crop.width / crop.height == pytest.approx(size[1] / size[0], rel=0.12)
    whole = choose_crop(frame, size, zoom=1, keep=None, generator=generator(0))
    assert whole.width == frame[1] or whole.height == frame[0]


def test_the_person_stays_in_sight() -> None:
    keep = (120.0, 10.0, 150.0, 80.0)
    lefts = set()
    for seed in range(30):
        crop = choose_crop((90, 160), (64, 48), zoom=1.0, keep=keep, generator=generator(seed))
        assert crop.left <= keep[0]
        assert crop.left + crop.width >= keep[2]
        lefts.add(crop.left)
    assert len(lefts) > 5, "anywhere that fits"


def test_of_what_does_not_fit_the_upper_end_and_the_middle_are_shown() -> None:
    keep = (20.0, 30.0, 140.0, 90.0)
    for seed in range(10):
        crop = choose_crop((90, 160), (64, 64), zoom=2.0, keep=keep, generator=generator(seed))
        assert crop.top <= 30 < crop.top + crop.height
        assert crop.left + crop.width / 2 == pytest.approx(80, abs=1)
        crop = choose_crop((90, 160), (64, 64), zoom=2.0, keep=keep, middle=60, generator=generator(seed))
        assert crop.left + crop.width / 2 == pytest.approx(60, abs=1)


def test_points_and_pictures_move_together() -> None:
    frames = np.zeros((2, 60, 80, 3), np.uint8)
    frames[:, 30:34, 50:54] = 255
    crop = Crop(left=32, top=20, width=40, height=20, size=(80, 160))
    pictures = crop.pictures(frames)
    assert pictures.shape == (2, 80, 160, 3)
    rows, columns = np.nonzero(pictures[0, ..., 0] > 127)
    x, y = crop.matrix() @ np.array([52.0, 32.0, 1.0])
    assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx((x, y), abs=0.51)
    same = Crop(0, 0, 80, 60, (60, 80))
    np.testing.assert_array_equal(same.pictures(frames), frames)
    np.testing.assert_array_equal(same.matrix(), [[1, 0, 0], [0, 1, 0]])


def test_the_persons_box_is_of_the_points_that_are_there() -> None:
    keypoints = Keypoints.empty(2, (50, 40))
    assert person_box(keypoints) is None
    keypoints.body[0, 3] = (10, 20, 0.9)
    keypoints.left_hand[1, 0] = (60, -5, 0.4)
    assert person_box(keypoints) == (10, 0, 40, 20)
