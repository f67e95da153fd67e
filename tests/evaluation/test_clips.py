from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.clip_folders import moving, write_frames, write_video
from xdyna.errors import InputError
from xdyna.evaluation.clips import check_names, find_clips
from xdyna.evaluation.pairs import pair_up


def test_folders_of_frames_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    clip = moving(0, frames=12)
    write_frames(tmp_path / "a", clip, name="frame_{}.png")
    write_frames(tmp_path / "a" / "poses", clip[::-1], name="frame_{}.png")
    found = find_clips(tmp_path, "--pred")
    assert list(found) == ["a"]
    assert found["a"].count() == 12
    assert found["a"].size() == (32, 40)
    assert np.array_equal(found["a"].read(), clip), "frame_10 comes after frame_9"
    assert np.array_equal(found["a"].read(limit=3), clip[:3])


def test_frames_in_a_sub_folder_and_the_reference_beside_them(tmp_path: Path) -> None:
    clip = moving(1)
    write_frames(tmp_path / "case-1" / "images", clip)
    write_frames(tmp_path / "case-1" / "faces", clip[::-1])
    write_frames(tmp_path / "case-2", clip, name="frame_{}.png")
    write_frames(tmp_path / "case-2", clip[:1], name="reference.png")
    found = find_clips(tmp_path, "--pred")
    assert sorted(found) == ["case-1", "case-2"]
    assert np.array_equal(found["case-1"].read(), clip)
    assert found["case-2"].count() == len(clip)


def test_discos_flat_frames(tmp_path: Path) -> None:
    one, two = moving(2), moving(3)
    write_frames(tmp_path, one, name="TiktokDance_00337_{:04d}png.png")
    write_frames(tmp_path, two, name="TiktokDance_201_1x1_{:04d}png.png")
    found = find_clips(tmp_path, "--pred")
    assert sorted(found) == ["TiktokDance_00337", "TiktokDance_201"]
    assert np.array_equal(found["TiktokDance_00337"].read(), one)
    assert np.array_equal(found["TiktokDance_201"].read(), two)


def test_videos_and_a_folder_of_bare_numbers(tmp_path: Path) -> None:
    write_video(tmp_path / "v" / "a.mp4", moving(4, size=(64, 64)))
    found = find_clips(tmp_path / "v", "--pred")
    assert found["a"].is_video
    assert found["a"].count() == 6
    assert found["a"].read().shape == (6, 64, 64, 3)
    write_frames(tmp_path / "single", moving(5), name="{:03d}.png")
    assert list(find_clips(tmp_path / "single", "--pred")) == ["single"]


def test_the_digest_follows_the_content_not_the_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_frames(tmp_path / name, moving(6))
    write_frames(tmp_path / "c", moving(7))
    found = find_clips(tmp_path, "--pred")
    assert found["a"].digest() == found["b"].digest() != found["c"].digest()


def test_bad_sets_are_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_clips(tmp_path / "none", "--pred")
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        find_clips(tmp_path / "file.txt", "--pred")
    with pytest.raises(InputError, match="neither videos nor folders"):
        find_clips(tmp_path, "--pred")
    write_frames(tmp_path / "a", moving(8))
    write_video(tmp_path / "a.mp4", moving(8, size=(64, 64)))
    with pytest.raises(InputError, match="second clip called 'a'"):
        find_clips(tmp_path, "--pred")


def test_frames_of_two_sizes_are_refused(tmp_path: Path) -> None:
    write_frames(tmp_path / "a", moving(9, frames=2))
    write_frames(tmp_path / "a", moving(9, frames=1, size=(16, 16)), name="0009.png")
    with pytest.raises(InputError, match="16 x 16"):
        find_clips(tmp_path, "--pred")["a"].read()


def test_names_must_agree_unless_partial(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_frames(tmp_path / "pred" / name, moving(10))
    for name in ("b", "c"):
        write_frames(tmp_path / "truth" / name, moving(10))
    pred, truth = find_clips(tmp_path / "pred", "--pred"), find_clips(tmp_path / "truth", "--truth")
    with pytest.raises(InputError, match="--pred lacks c; --truth lacks a"):
        check_names(pred, truth, kind="--truth", partial=False)
    assert check_names(pred, truth, kind="--truth", partial=True) == ["b"]
    assert [p.name for p in pair_up(tmp_path / "pred", truth=tmp_path / "truth", partial=True)] == ["b"]
    write_frames(tmp_path / "other" / "z", moving(10))
    with pytest.raises(InputError, match="has no clip of a name"):
        pair_up(tmp_path / "pred", truth=tmp_path / "other", partial=True)


def test_counts_must_agree_and_all_that_do_not_are_named(tmp_path: Path) -> None:
    write_frames(tmp_path / "pred" / "a", moving(11, frames=5))
    write_frames(tmp_path / "truth" / "a", moving(11, frames=6))
    with pytest.raises(InputError, match=r"different numbers of frames: a \(pred 5, truth 6\)"):
        pair_up(tmp_path / "pred", truth=tmp_path / "truth")
    (pair,) = pair_up(tmp_path / "pred", truth=tmp_path / "truth", frames=4)
    assert pair.read_pred().shape[0] == pair.read_truth().shape[0] == 4
    with pytest.raises(InputError, match="fewer than 6 frames"):
        pair_up(tmp_path / "pred", truth=tmp_path / "truth", frames=6)


def test_generated_frames_come_at_the_true_size(tmp_path: Path) -> None:
    write_frames(tmp_path / "pred" / "a", moving(12, size=(24, 30)))
    write_frames(tmp_path / "truth" / "a", moving(12))
    write_frames(tmp_path / "masks" / "a", np.full((6, 64, 80, 3), 255, np.uint8))
    (pair,) = pair_up(tmp_path / "pred", truth=tmp_path / "truth", masks=tmp_path / "masks")
    assert pair.resized
    assert pair.read_pred().shape == pair.read_truth().shape == (6, 32, 40, 3)
    masks = pair.read_masks()
    assert masks is not None
    assert masks.shape == (6, 32, 40)
    assert masks.all()
