from __future__ import annotations

import logging

import cv2
import numpy as np
import pytest

from tests.data.prepared.people import overlap, person
from xdyna.data.prepared.options import PrepareOptions
from xdyna.data.prepared.person import Found, follow
from xdyna.errors import InputError

OPTIONS = PrepareOptions(kind="human")
GONE = slice(8, 11)


@pytest.fixture(scope="module")
def interrupted() -> Found:
    """The person, with three frames in which nothing is to be seen."""
    frames = person()[0].copy()
    frames[GONE] = 128
    return follow(iter(frames), options=OPTIONS, source="made")


def unpacked(png: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE) > 0


def test_keypoints_and_masks_are_near_the_truth(interrupted: Found) -> None:
    batch = person()[1]
    seen = [index for index in range(20) if not 6 <= index < 13]
    body, truth = interrupted.keypoints.body[seen], batch.body[0, 1:].numpy()[seen]
    assert (body[:, :14, 2] > 0).all()
    assert np.linalg.norm(body[:, :14, :2] - truth[:, :14, :2], axis=-1).mean() < 5
    assert interrupted.masks is not None
    assert len(interrupted.masks) == 20
    shapes = [overlap(unpacked(interrupted.masks[i]), batch.mask[0, 1 + i, 0].numpy() > 0.5) for i in seen]
    assert min(shapes) > 0.7
    assert 0.5 < interrupted.height <= 1


def test_a_short_gap_is_filled_and_counted(interrupted: Found) -> None:
    assert (interrupted.keypoints.body[GONE, :8, 2] > 0).all()
    assert 0.7 <= interrupted.person <= 17 / 20
    assert interrupted.masks is not None
    assert all(unpacked(mask).any() for mask in interrupted.masks), "the nearest frame's"
    assert interrupted.people == 1


def test_without_masks() -> None:
    found = follow(iter(person()[0][:6]), options=PrepareOptions(kind="human", masks=False), source="made")
    assert found.masks is None
    assert found.person == 1


def test_nobody(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(InputError, match="no person found"):
        follow(iter(np.full((6, 96, 96, 3), 90, np.uint8)), options=OPTIONS, source="wall")
    assert logging.getLogger("xdyna.conditions.track").level == logging.NOTSET
