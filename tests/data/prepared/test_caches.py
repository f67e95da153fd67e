from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xdyna.conditions.keypoints import Keypoints
from xdyna.data.prepared.caches import MaskFile, head_discs, pack_mask, read_track, write_masks, write_track
from xdyna.data.synthetic import make_batch
from xdyna.errors import InputError


@pytest.fixture(scope="module")
def people() -> tuple[Keypoints, np.ndarray]:
    """Keypoints of twelve made people, and their true heads."""
    batch = make_batch(3, 12, frames=1, size=(128, 128), human_share=1, maps=False)
    parts = {name: getattr(batch, name)[:, 1].numpy() for name in ("body", "left_hand", "right_hand", "face")}
    return Keypoints(**parts, size=(128, 128)), batch.head[:, 1].numpy()


def test_a_track_comes_back(people: tuple[Keypoints, np.ndarray], tmp_path: Path) -> None:
    keypoints, head = people
    path = tmp_path / "k.npz"
    write_track(path, keypoints)
    track = read_track(path, 12)
    for name in ("body", "left_hand", "right_hand", "face"):
        np.testing.assert_array_equal(getattr(track.keypoints, name), getattr(keypoints, name))
    np.testing.assert_array_equal(track.head, head_discs(keypoints))
    assert track.expression is None
    expression = np.random.default_rng(0).random((12, 8), np.float32)
    write_track(path, keypoints, head=head, expression=expression)
    track = read_track(path, 12)
    np.testing.assert_array_equal(track.head, head)
    np.testing.assert_array_equal(track.expression, expression)
    np.testing.assert_array_equal(Keypoints.load(path).face, keypoints.face)


def test_tracks_that_do_not_fit(people: tuple[Keypoints, np.ndarray], tmp_path: Path) -> None:
    write_track(tmp_path / "k.npz", people[0])
    with pytest.raises(InputError, match="12 frames, the clip has 11"):
        read_track(tmp_path / "k.npz", 11)
    write_track(tmp_path / "k.npz", people[0], head=people[1][:3])
    with pytest.raises(InputError, match="does not fit its keypoints"):
        read_track(tmp_path / "k.npz", 12)
    (tmp_path / "k.npz").write_bytes(b"no zip")
    with pytest.raises(InputError, match="is not a keypoints file"):
        read_track(tmp_path / "k.npz", 12)


def test_heads_are_told_from_faces(people: tuple[Keypoints, np.ndarray]) -> None:
    keypoints, head = people
    found = head_discs(keypoints)
    np.testing.assert_allclose(found[:, 2], head[:, 2], rtol=0.25)
    assert np.abs((found - head)[:, :2] / head[:, 2:]).max() < 0.6


def test_heads_without_faces_come_from_the_body_or_not_at_all() -> None:
    keypoints = Keypoints.empty(3, (100, 100))
    keypoints.body[:2, 0] = (50, 40, 1)
    keypoints.body[:2, 1] = (50, 60, 1)
    keypoints.body[0, 14] = (48, 38, 1)
    heads = head_discs(keypoints)
    np.testing.assert_allclose(heads[0], [50, 35, 13])
    assert not heads[1:].any(), "from behind, or nobody"


@pytest.mark.parametrize("soft", [False, True])
def test_masks_come_back_exactly(soft: bool, tmp_path: Path) -> None:
    draws = np.random.default_rng(1)
    masks = draws.integers(0, 256, (6, 40, 56), dtype=np.uint8) if soft else np.zeros((6, 40, 56), np.uint8)
    if not soft:
        masks[:, 5:30, 8:20] = 255
        masks[3] = 0
    path = tmp_path / "m.npz"
    write_masks(path, [pack_mask(mask) for mask in masks], size=(40, 56))
    file = MaskFile(path)
    assert (len(file), file.size) == (6, (40, 56))
    np.testing.assert_array_equal(file.read([4, 0, 4]), masks[[4, 0, 4]])
    if not soft:
        assert path.stat().st_size < 2500


def test_damaged_masks(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    write_masks(path, [b"no picture", pack_mask(np.zeros((8, 8), np.uint8))], size=(8, 8))
    with pytest.raises(InputError, match="mask 0 is damaged"):
        MaskFile(path).read([1, 0])
    path.write_bytes(b"no zip")
    with pytest.raises(InputError, match="is not a mask file"):
        MaskFile(path)
    with pytest.raises(InputError, match="no such file"):
        MaskFile(tmp_path / "none.npz")
