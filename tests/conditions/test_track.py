from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pytest

from tests.conditions.skeletons import person
from xdyna.conditions.keypoints import PARTS, Keypoints
from xdyna.conditions.people import Person, box_of, overlap
from xdyna.conditions.track import filled, smoothed, track, without_weak
from xdyna.errors import InputError, OptionError


def sighting(clip: Keypoints, index: int) -> Person:
    one = clip[[index]]
    box = box_of(one)
    assert box is not None
    return Person(one, box, np.zeros(clip.size, np.uint8))


def stream(*clips: Keypoints, lost: tuple[int, ...] = (), shuffle: bool = False) -> Iterator[list[Person]]:
    """Everybody of the clips; the first is missing in the frames `lost`."""
    for index in range(len(clips[0])):
        people = [sighting(clip, index) for number, clip in enumerate(clips) if number or index not in lost]
        yield people[::-1] if shuffle and index % 2 else people


def test_one_person_as_seen() -> None:
    clip = person(12, motion=0.4)
    got = track(stream(clip), smooth=False)
    for name in PARTS:
        np.testing.assert_array_equal(getattr(got, name), getattr(clip, name))


def test_the_largest_is_followed_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    large, small = person(12, motion=0.4, at=(250, 150)), person(12, motion=0.3, scale=0.5, at=(60, 200))
    with caplog.at_level(logging.WARNING):
        got = track(stream(small, large, shuffle=True), source="dance.mp4", smooth=False)
    np.testing.assert_array_equal(got.body, large.body)
    assert "dance.mp4: 2 people found; following the largest" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        second = track(stream(small, large, shuffle=True), person=2, smooth=False)
    np.testing.assert_array_equal(second.body, small.body)
    assert not caplog.records


def test_people_who_come_close_are_not_mixed_up() -> None:
    left, right = person(20, at=(120, 150)), person(20, scale=0.9, at=(280, 150))
    for index in range(20):
        left.body[index, :, 0] += 3 * index
    got = track(stream(left, right, shuffle=True), person=1, smooth=False)
    np.testing.assert_array_equal(got.body, left.body)


def test_no_such_person() -> None:
    with pytest.raises(OptionError, match=r"2 was asked for but 1 person was found in a\.mp4.*Give 1 to 1"):
        track(stream(person(4)), person=2, source="a.mp4")
    with pytest.raises(OptionError, match="counted from 1"):
        track(stream(person(4)), person=0)


def test_nobody() -> None:
    with pytest.raises(InputError, match=r"dance\.mp4: no person found in any of 5 frames"):
        track(iter([[]] * 5), source="dance.mp4")
    with pytest.raises(InputError, match=r"me\.png: no person found\."):
        track(iter([[]]), source="me.png")
    with pytest.raises(InputError, match="has no frames"):
        track(iter([]))


def test_missing_in_some_frames_warns_and_in_most_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    clip = person(20, motion=0.4)
    with caplog.at_level(logging.WARNING):
        got = track(stream(clip, lost=(7, 8)), source="dance.mp4", smooth=False)
    assert "dance.mp4: no person found in 2 of 20 frames (first: 7)" in caplog.text
    assert (got.body[7, :, 2] > 0).all()  # filled
    with pytest.raises(InputError, match=r"no person found in 15 of 20 frames \(first: 5\)\. Trim the clip"):
        track(stream(clip, lost=tuple(range(5, 20))), source="dance.mp4")


def test_a_person_found_again_elsewhere_is_the_same() -> None:
    clip = person(20, at=(60, 150))
    clip.body[10:, :, 0] += 120
    got = track(stream(clip, lost=tuple(range(5, 10))), smooth=False, max_gap=0)
    np.testing.assert_array_equal(got.body[10:], clip.body[10:])
    assert got.body[5:10].max() == 0


def test_gaps_are_filled_in_a_line_up_to_their_length() -> None:
    clip = person(10)
    clip.body[:, 3, 0] = 10.0 * np.arange(10)
    holed = clip.body.copy()
    holed[3:6, 3] = 0
    holed[0, 3] = 0
    gap = Keypoints(holed, clip.left_hand, clip.right_hand, clip.face, clip.size)
    np.testing.assert_allclose(filled(gap, 3).body[1:, 3], clip.body[1:, 3], atol=1e-4)
    assert filled(gap, 2).body[3:6, 3].max() == 0
    assert filled(gap, 3).body[0, 3].max() == 0


def test_a_hand_is_filled_on_its_moving_wrist() -> None:
    clip = person(9, motion=0.8)
    hand = clip.right_hand.copy()
    hand[3:6] = 0
    holed = Keypoints(clip.body, clip.left_hand, hand, clip.face, clip.size)
    np.testing.assert_allclose(filled(holed, 4).right_hand, clip.right_hand, atol=0.01)


def test_weak_points_are_dropped() -> None:
    clip = person(2)
    clip.body[0, 4, 2] = 0.2
    clip.body[1, 5, 0] = np.nan
    got = without_weak(clip, 0.3)
    assert got.body[0, 4].tolist() == [0, 0, 0]
    assert got.body[1, 5].tolist() == [0, 0, 0]
    assert (got.body[..., 2] > 0).sum() == 34


def test_smoothing_calms_a_still_person() -> None:
    clip = person(60)
    noise = np.random.default_rng(0).normal(0, 1.0, clip.body[..., :2].shape)
    body = clip.body.copy()
    body[..., :2] += noise
    calm = smoothed(Keypoints(body, clip.left_hand, clip.right_hand, clip.face, clip.size))
    before, after = (np.abs(np.diff(b[..., :2], 2, axis=0)).mean() for b in (body, calm.body))
    assert after < 0.6 * before
    error = np.abs(calm.body[..., :2] - clip.body[..., :2]).mean()
    assert error < 0.9 * np.abs(noise).mean()


def test_smoothing_neither_shrinks_nor_delays_a_dance() -> None:
    clip = person(64, motion=1.0)  # a full swing every 16 frames
    got = smoothed(clip).body[:, 4, :2]
    wanted = clip.body[:, 4, :2]
    swing = np.ptp(wanted, axis=0)
    np.testing.assert_allclose(np.ptp(got, axis=0), swing, rtol=0.02)
    np.testing.assert_allclose(got, wanted, atol=0.02 * swing.max())
    # A jump, too, stays a jump in its frame.
    body = clip.body.copy()
    body[:, 7, :2] = (100, 100)
    body[32:, 7, :2] = (180, 100)
    jump = smoothed(Keypoints(body, clip.left_hand, clip.right_hand, clip.face, clip.size)).body[:, 7, 0]
    assert jump[31] < 105
    assert jump[32] > 175


def test_smoothing_respects_missing_points() -> None:
    clip = person(12, motion=0.4)
    clip.body[4:8, 4] = 0
    clip.left_hand[:] = 0
    got = smoothed(clip)
    assert (got.body[..., 2] == clip.body[..., 2]).all()
    assert got.body[4:8, 4].max() == 0
    assert got.left_hand.max() == 0
    assert np.abs(got.body[3, 4, :2] - clip.body[3, 4, :2]).max() < 3
    for frames in (1, 2, 3):
        np.testing.assert_array_equal(smoothed(clip[:frames]).body, clip.body[:frames])


def test_bad_options() -> None:
    with pytest.raises(OptionError, match="min_score"):
        track(stream(person(2)), min_score=1.5)
    with pytest.raises(OptionError, match="max_gap"):
        track(stream(person(2)), max_gap=-1)


def test_overlap() -> None:
    assert overlap((0, 0, 2, 2), (0, 0, 2, 2)) == 1
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 2, 2), (2, 2, 3, 3)) == 0
