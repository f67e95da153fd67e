from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conditions.skeletons import person
from xdyna.conditions.keypoints import BODY_NAMES, PARTS, Keypoints
from xdyna.errors import InputError


def test_saved_and_loaded(tmp_path: Path) -> None:
    clip = person(3, motion=0.3)
    clip.save(tmp_path / "keypoints.npz")
    again = Keypoints.load(tmp_path / "keypoints.npz")
    assert again.size == clip.size
    for name in PARTS:
        np.testing.assert_array_equal(getattr(again, name), getattr(clip, name))
        assert getattr(again, name).dtype == np.float32


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        Keypoints.load(tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(InputError, match=r"text\.npz: is not a keypoints file"):
        Keypoints.load(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", body=np.zeros((1, 18, 3)))
    with pytest.raises(InputError, match="is not a keypoints file"):
        Keypoints.load(tmp_path / "other.npz")
    shapes = {name: np.zeros((2, count, 3)) for name, count in PARTS.items()}
    shapes["face"] = np.zeros((2, 5, 3))
    np.savez(tmp_path / "shapes.npz", size=np.array([4, 4]), **shapes)
    with pytest.raises(InputError, match=r"face must be \(2, 68, 3\)"):
        Keypoints.load(tmp_path / "shapes.npz")


def test_moved_slices_and_concatenated() -> None:
    clip = person(4, motion=0.3)
    moved = clip.moved(np.array([[2, 0, 5], [0, 3, -1]]), (10, 20))
    np.testing.assert_allclose(moved.body[..., 0], 2 * clip.body[..., 0] + 5, rtol=1e-6)
    np.testing.assert_allclose(moved.face[..., 1], 3 * clip.face[..., 1] - 1, rtol=1e-5)
    np.testing.assert_array_equal(moved.body[..., 2], clip.body[..., 2])
    assert moved.size == (10, 20)
    joined = Keypoints.concatenate([clip[:1], clip[[3, 2]]])
    np.testing.assert_array_equal(joined.body, clip.body[[0, 3, 2]])
    assert len(joined) == 3


def test_one_matrix_for_each_frame() -> None:
    clip = person(2)
    matrices = np.array([[[1, 0, 0], [0, 1, 0]], [[1, 0, 7], [0, 1, 0]]])
    moved = clip.moved(matrices, clip.size)
    np.testing.assert_array_equal(moved.body[0], clip.body[0])
    np.testing.assert_allclose(moved.body[1, :, 0], clip.body[1, :, 0] + 7)


def test_shapes_are_checked() -> None:
    assert len(BODY_NAMES) == PARTS["body"]
    with pytest.raises(ValueError, match="left_hand must be"):
        Keypoints(
            np.zeros((1, 18, 3)), np.zeros((2, 21, 3)), np.zeros((1, 21, 3)), np.zeros((1, 68, 3)), (4, 4)
        )
