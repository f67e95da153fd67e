from __future__ import annotations

import numpy as np
import pytest

from tests.conditions.skeletons import person, without
from xdyna.conditions.proportions import ALLOWED, USUAL, compare, lengths, torso_length


def test_lengths_of_a_known_person() -> None:
    found = lengths(person(scale=2.0))
    assert set(found) == set(USUAL)
    assert found["torso"] == pytest.approx(200)
    assert found["shoulder"] == pytest.approx(66)
    assert found["hip"] == pytest.approx(38)
    assert found["shin"] == pytest.approx(2 * np.hypot(2, 81), rel=1e-4)
    assert found["face"] == pytest.approx(64, rel=0.01)


def test_the_longer_side_and_the_long_frames_count() -> None:
    clip = person(20, scale=1.0)
    clip.body[:5, 4, :2] = clip.body[:5, 3, :2]
    clip.body[:, 7, :2] = (clip.body[:, 6, :2] + clip.body[:, 7, :2]) / 2
    assert lengths(clip)["forearm"] == pytest.approx(np.hypot(5, 50), rel=1e-4)


def test_parts_not_seen_are_absent() -> None:
    found = lengths(without(person(), [8, 9, 10, 13]))
    assert "torso" not in found
    assert found["thigh"] == pytest.approx(np.hypot(3, 84), rel=1e-4)
    assert "shin" not in found


def test_ratios_of_equal_people_are_one() -> None:
    ratios = compare(lengths(person(scale=1.3)), lengths(person(scale=0.65)))
    assert ratios.whole == pytest.approx(0.5)
    assert all(ratio == pytest.approx(0.5) for ratio in ratios.parts.values())
    assert set(ratios.parts) == set(ALLOWED)


def test_real_proportions_are_kept_and_impossible_ones_are_not() -> None:
    ratios = compare(lengths(person()), lengths(person(legs=0.75, head=1.5)))
    assert ratios.whole == pytest.approx(1, abs=0.02)
    assert ratios.legs == pytest.approx(0.75, abs=0.02)
    assert ratios.parts["face"] == pytest.approx(1.5, abs=0.05)
    squeezed = compare(lengths(person()), lengths(person(shoulders=0.05, legs=0.1)))
    assert squeezed.parts["shoulder"] == pytest.approx(0.75, abs=0.02)
    assert squeezed.parts["thigh"] == pytest.approx(0.6, abs=0.02)


def test_hidden_parts_follow_the_whole_and_half_limbs_each_other() -> None:
    half = compare(lengths(person()), lengths(without(person(scale=3), [8, 9, 10, 11, 12, 13])))
    assert half.whole == pytest.approx(3)
    assert half.legs == pytest.approx(3)
    shin_hidden = compare(lengths(person()), lengths(without(person(legs=1.3), [10, 13])))
    assert (
        shin_hidden.parts["shin"] == pytest.approx(shin_hidden.parts["thigh"]) == pytest.approx(1.3, abs=0.02)
    )


def test_nothing_in_common() -> None:
    legs_only, head_only = {"shin": 81.0}, {"face": 66.0}
    assert compare(legs_only, head_only).whole == pytest.approx(2.0)
    assert torso_length({}) == 1.0
    assert compare({}, {}).whole == 1.0
