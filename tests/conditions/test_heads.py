"""Discs of heads from keypoints, against the synthetic world's exact ones."""

from __future__ import annotations

import numpy as np
import pytest

from xdyna.conditions.heads import head_disc
from xdyna.data.synthetic import make_batch


@pytest.fixture(scope="module")
def world() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    batch = make_batch(91, 24, frames=3, size=(64, 64), human_share=1.0, maps=False)
    return tuple(part.flatten(0, 1).numpy() for part in (batch.face, batch.body, batch.head))  # type: ignore[return-value]


def errors(found: np.ndarray, head: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of the middles and ratio of the sizes, in true half heights."""
    return np.hypot(*(found - head)[:, :2].T) / head[:, 2], found[:, 2] / head[:, 2]


def test_the_face_gives_the_exact_head(world: tuple[np.ndarray, ...]) -> None:
    face, body, head = world
    found = head_disc(face, body)
    assert found.dtype == np.float32
    distance, ratio = errors(found, head)
    assert np.median(distance) < 0.12
    assert distance.max() < 0.35
    assert 0.9 < np.median(ratio) < 1.1
    assert ratio.min() > 0.75
    assert ratio.max() < 1.15


def test_without_a_face_the_body_does(world: tuple[np.ndarray, ...]) -> None:
    face, body, head = world
    distance, ratio = errors(head_disc(0 * face, body), head)
    assert np.median(distance) < 0.15
    assert 0.8 < np.median(ratio) < 1.1
    # From behind only the neck and the nose's place may be known.
    bare = body.copy()
    bare[:, 14:18] = 0
    distance, ratio = errors(head_disc(0 * face, bare), head)
    assert np.median(distance) < 0.5
    assert 0.6 < np.median(ratio) < 1.1


def test_an_open_mouth_makes_no_larger_head(world: tuple[np.ndarray, ...]) -> None:
    face, body, _ = world
    opened = face.copy()
    drop = 0.1 * np.ptp(face[..., 1], axis=1)
    opened[:, [65, 66, 67], 1] += drop[:, None]
    opened[:, 6:11, 1] += 0.4 * drop[:, None]
    before, after = head_disc(face, body)[:, 2], head_disc(opened, body)[:, 2]
    assert (after / before).max() < 1.08


def test_nobody_has_no_head_and_odd_values_no_effect(world: tuple[np.ndarray, ...]) -> None:
    face, body, _ = world
    assert not head_disc(0 * face, 0 * body).any()
    broken = face.copy()
    broken[0, 40, :2] = np.nan
    found = head_disc(broken, body)
    assert np.isfinite(found).all()
    assert np.array_equal(found[1:], head_disc(face, body)[1:])
    lone = np.zeros_like(body)
    lone[:, 0] = body[:, 0]
    assert not head_disc(0 * face, lone).any()
