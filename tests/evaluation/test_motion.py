from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.clip_folders import moving
from xdyna.evaluation.motion import outside, read_motion


def test_the_true_clip_against_itself() -> None:
    clip = moving(0, frames=8)
    read = read_motion(clip, clip)
    assert read.scene_motion_ratio == pytest.approx(1)
    assert read.flicker == pytest.approx(read.flicker_true)
    assert read.false_motion == 0, "what rests in the true clip rests in the generated one"
    assert read.colour_drift == pytest.approx(0, abs=1e-9)
    assert len(read.motion_curve) == 7
    assert read.person_flicker is None


def test_a_frozen_scene_and_a_wall_that_stirs() -> None:
    truth = moving(1, frames=8)
    frozen = np.repeat(truth[:1], 8, 0)
    assert read_motion(frozen, truth).scene_motion_ratio == 0
    stirring = truth.copy()
    stirring[1::2, :, 20:] = np.clip(stirring[1::2, :, 20:].astype(int) + 6, 0, 255).astype(np.uint8)
    read = read_motion(stirring, truth)
    assert read.false_motion == pytest.approx(6, rel=0.1)
    assert read.flicker is not None
    assert read.flicker_true is not None
    assert read.flicker > read.flicker_true


def test_a_true_scene_that_never_moves_has_no_ratio() -> None:
    still = np.repeat(moving(2)[:1], 6, 0)
    read = read_motion(moving(2), still)
    assert read.scene_motion_ratio is None
    assert read.false_motion is not None
    assert read.false_motion > 1


def test_colours_that_wander() -> None:
    truth = np.full((8, 16, 16, 3), 100, np.uint8)
    wandering = truth + (np.arange(8, dtype=np.uint8)[:, None, None, None] * np.array([2, 0, 0], np.uint8))
    read = read_motion(wandering, truth)
    assert read.colour_drift == pytest.approx(2 * 6, abs=0.5)
    assert read.drift_curve[0] == 0
    assert read.drift_curve[-1] == pytest.approx(14)


def test_only_what_lies_outside_of_the_person_counts() -> None:
    truth = moving(3, frames=6, size=(64, 64))
    person = np.zeros((6, 64, 64), bool)
    person[:, :, :32] = True
    read = read_motion(truth, truth, person=person)
    assert read.scene_motion == 0, "the moving half is the person"
    assert read.person_flicker is not None
    assert not outside(person)[:, :, :33].any(), "nor does a margin round it"
    everywhere = read_motion(truth, truth, person=np.ones((6, 64, 64), bool))
    assert everywhere.scene_motion is None
    assert everywhere.false_motion is None


@pytest.mark.parametrize("frames", [1, 2])
def test_clips_too_short_for_a_change_give_none_never_nan(frames: int) -> None:
    clip = moving(4, frames=frames)
    read = read_motion(clip, clip)
    assert (read.scene_motion is None) == (frames == 1)
    assert read.flicker is None
    assert all(np.isfinite(v) for v in read.drift_curve)


def test_what_does_not_fit_is_refused() -> None:
    clip = moving(5)
    with pytest.raises(ValueError, match="one shape"):
        read_motion(clip, clip[:, :16])
    with pytest.raises(ValueError, match="uint8"):
        read_motion(clip.astype(np.float32), clip.astype(np.float32))
    with pytest.raises(ValueError, match="masks"):
        read_motion(clip, clip, person=np.ones((2, 2, 2), bool))
