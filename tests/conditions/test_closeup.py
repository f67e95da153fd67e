from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.tiny import dancer
from xdyna.conditions.closeup import REACH, CloseUp, joined_maps, plan_close_up
from xdyna.conditions.heads import head_disc
from xdyna.conditions.keypoints import Keypoints

SIZE = (200, 160)


def people(frames: int = 9) -> Keypoints:
    return dancer(frames, SIZE)


def without_head(keypoints: Keypoints, frames: list[int]) -> Keypoints:
    face, body = keypoints.face.copy(), keypoints.body.copy()
    face[frames] = 0
    body[np.ix_(frames, [0, 14, 15, 16, 17])] = 0
    return replace(keypoints, face=face, body=body)


def plan(driven: Keypoints | None = None, own: Keypoints | None = None, side: int = 128) -> CloseUp:
    path = plan_close_up(driven or people(), own or people(1), side=side)
    assert path is not None
    return path


def test_windows_are_in_the_picture_and_have_the_head_in_their_middle() -> None:
    keypoints, path = people(), plan()
    heads = head_disc(keypoints.face, keypoints.body)
    left, top, side = path.boxes.T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (left + side <= SIZE[1]).all()
    assert (top + side <= SIZE[0]).all()
    assert (side == round(REACH * float(np.median(heads[:, 2])))).all(), "a head that nods does not zoom"
    near = keypoints.moved(path.matrices(), (128, 128))
    inside = head_disc(near.face, near.body)
    np.testing.assert_allclose(inside[:, 2], heads[:, 2] * 128 / side, rtol=1e-4)
    assert np.abs(inside[:, 0] - 64).max() < 10
    own = people(1).moved(path.reference_matrix(), (128, 128))
    assert abs(head_disc(own.face, own.body)[0, 0] - 64) < 2
    assert (path.weights == 1).all()


def enlarged(keypoints: Keypoints, factor: float) -> Keypoints:
    """Scaled about the middle of the picture's head."""
    x, y = head_disc(keypoints.face, keypoints.body)[0, :2] * (1 - factor)
    return keypoints.moved(np.array([[factor, 0, x], [0, factor, y]]), SIZE)


def test_heads_of_about_one_size_have_windows_of_one_size_others_their_own() -> None:
    half = float(np.median(head_disc(people().face, people().body)[:, 2]))
    for factor in (1.25, 0.8):
        assert plan(own=enlarged(people(1), factor)).reference[2] == pytest.approx(REACH * half)
    own = enlarged(people(1), 0.5)
    assert plan(own=own).reference[2] == pytest.approx(REACH * head_disc(own.face, own.body)[0, 2])


def test_large_tiny_and_unknown_heads_need_no_close_up() -> None:
    driven, own = people(), people(1)
    assert plan_close_up(driven, without_head(own, [0]), side=128) is None
    assert plan_close_up(without_head(driven, list(range(9))), own, side=128) is None
    half = float(np.median(head_disc(driven.face, driven.body)[:, 2]))
    assert plan_close_up(driven, own, side=int(REACH * half)) is None, "it would shrink"
    tiny = driven.moved(np.array([[0.1, 0, 0], [0, 0.1, 0]]), SIZE)
    assert plan_close_up(tiny, own, side=128) is None
    large = driven.moved(np.array([[5.0, 0, -300], [0, 5.0, 0]]), SIZE)
    assert plan_close_up(large, own, side=512) is None


def test_a_lost_head_is_faded_out_and_its_window_goes_on() -> None:
    lost = plan(without_head(people(15), [6, 7]))
    assert (lost.weights[[6, 7]] == 0).all()
    assert (lost.weights[[5, 8]] < 0.8).all()
    assert (lost.weights[[0, 1, 13, 14]] == 1).all()
    assert np.isfinite(lost.heads).all()
    assert np.abs(np.diff(lost.boxes[:, :2], axis=0)).max() < 20


def test_only_the_head_is_put_back() -> None:
    path = plan()
    frame, near = np.full((*SIZE, 3), 10, np.uint8), np.full((128, 128, 3), 210, np.uint8)
    mixed = path.put_back(frame, near, 4)
    assert (frame == 10).all(), "what was given stays"
    x, y, half = path.heads[4]
    down, across = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    away = np.hypot(across - x, down - y) / half
    assert (mixed[away < 1.1] == 210).all()
    assert (mixed[away > 1.75] == 10).all()
    edge = mixed[(away > 1.3) & (away < 1.6)]
    assert ((edge > 10) & (edge < 210)).all()
    gone = replace(path, weights=np.zeros(9, np.float32))
    assert gone.put_back(frame, near, 4) is frame


def test_pixels_come_back_to_where_they_were_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    path = plan(side=256)
    left, top, side = path.boxes[2].tolist()
    rows = np.random.default_rng(0).integers(0, 255, (SIZE[0] // 8, SIZE[1] // 8, 3), np.uint8)
    frame = np.kron(rows, np.ones((8, 8, 1), np.uint8))
    import cv2

    near = cv2.resize(
        frame[top : top + side, left : left + side], (256, 256), interpolation=cv2.INTER_NEAREST
    )
    mixed = path.put_back(frame, near, 2)
    assert np.abs(mixed.astype(int) - frame).mean() < 1.0


def test_maps_are_joined_in_order() -> None:
    first, second = np.array([[2.0, 0, 1], [0, 2, 3]]), np.array([[1.0, 0, -4], [0, 1, 5]])
    np.testing.assert_allclose(joined_maps(second, first) @ [10, 20, 1], [17, 48])
