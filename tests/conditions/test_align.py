from __future__ import annotations

import numpy as np
import pytest

from tests.conditions.skeletons import bone_length, mirrored, person, without
from xdyna.conditions.align import align, warp_frame
from xdyna.conditions.keypoints import PARTS, Keypoints
from xdyna.errors import OptionError

CANVAS = (600, 400)
LEGS = [8, 9, 10, 11, 12, 13]
MODES = ["retarget", "rigid", "none"]


def assert_finite(aligned: object) -> None:
    for name in PARTS:
        assert np.isfinite(getattr(aligned.keypoints, name)).all(), name  # type: ignore[attr-defined]
    assert np.isfinite(aligned.frame_to_canvas).all()  # type: ignore[attr-defined]


@pytest.mark.parametrize("mode", ["retarget", "rigid"])
def test_onto_oneself_nothing_changes(mode: str) -> None:
    driver = person(24, motion=0.5)
    aligned = align(driver, driver[:1], canvas=CANVAS, mode=mode)  # type: ignore[arg-type]
    for name in PARTS:
        np.testing.assert_allclose(getattr(aligned.keypoints, name), getattr(driver, name), atol=1.0)
    np.testing.assert_allclose(aligned.frame_to_canvas[0], [[1, 0, 0], [0, 1, 0]], atol=1.0)
    np.testing.assert_allclose(aligned.frame_to_canvas[:, 0, 0], 1, atol=0.01)


def test_a_tall_driver_does_not_stretch_a_short_person() -> None:
    driver = person(32, motion=0.5, torso=1.1, legs=1.35, arms=1.2, scale=1.2, at=(180, 80), size=(700, 400))
    short = person(legs=0.8, arms=0.9, head=1.2, scale=0.7, at=(260, 240))
    aligned = align(driver, short, canvas=CANVAS).keypoints
    for a, b in ((1, 2), (2, 3), (3, 4), (5, 6), (6, 7), (8, 9), (9, 10), (11, 12), (12, 13)):
        got, wanted = bone_length(aligned, a, b), bone_length(short, a, b)
        np.testing.assert_allclose(got, wanted[0], rtol=0.04, err_msg=f"{a}-{b}")
    height = np.ptp(aligned.body[..., 1], axis=1)
    assert height.max() < 1.05 * np.ptp(short.body[0, :, 1])
    # The rigid way keeps the driver's long legs: that it differs shows that the check above can fail.
    rigid = align(driver, short, canvas=CANVAS, mode="rigid").keypoints
    assert bone_length(rigid, 8, 9)[0] / bone_length(rigid, 1, 2)[0] > 1.2 * (
        bone_length(short, 8, 9)[0] / bone_length(short, 1, 2)[0]
    )


def test_the_person_starts_where_the_reference_stands_and_moves_in_proportion() -> None:
    driver = person(32, motion=0.5, scale=1.5, at=(150, 100), size=(900, 600))
    reference = person(scale=0.75, at=(250, 200))
    aligned = align(driver, reference, canvas=CANVAS).keypoints
    hips = aligned.body[:, [8, 11], :2].mean(1)
    np.testing.assert_allclose(hips[0], reference.body[0, [8, 11], :2].mean(0), atol=1)
    moved = driver.body[:, [8, 11], :2].mean(1) - driver.body[0, [8, 11], :2].mean(0)
    np.testing.assert_allclose(hips - hips[0], 0.5 * moved, atol=1)


def test_bones_keep_their_directions_and_their_shortening() -> None:
    driver = person(24, motion=0.4)
    body = driver.body.copy()
    body[10, 4, :2] = body[10, 3, :2] + 0.3 * (
        body[10, 4, :2] - body[10, 3, :2]
    )  # forearm towards the camera
    driver = Keypoints(body, driver.left_hand, driver.right_hand, driver.face, driver.size)
    aligned = align(driver, person(arms=0.85, legs=1.2, scale=0.8), canvas=CANVAS).keypoints
    for a, b in ((2, 3), (3, 4), (8, 9)):
        before, after = (k.body[:, b, :2] - k.body[:, a, :2] for k in (driver, aligned))
        angle = np.arctan2(before[:, 1], before[:, 0]) - np.arctan2(after[:, 1], after[:, 0])
        np.testing.assert_allclose(np.sin(angle), 0, atol=1e-3)
    lengths = bone_length(aligned, 3, 4)
    assert lengths[10] / lengths[0] == pytest.approx(0.3, abs=0.02)


def test_a_squat_keeps_the_feet_on_the_ground() -> None:
    driver = person(20)
    body = driver.body.copy()
    drop = 60 * np.sin(np.linspace(0, np.pi, 20))
    upper = [j for j in range(18) if j not in (9, 10, 12, 13)]
    body[:, upper, 1] += drop[:, None]
    body[:, [9, 12], 1] += drop[:, None] / 2
    driver = Keypoints(body, driver.left_hand, driver.right_hand, driver.face, driver.size)
    reference = person(legs=1.25, scale=0.8, at=(150, 200))
    aligned = align(driver, reference, canvas=CANVAS).keypoints
    feet = aligned.body[:, [10, 13], :2]
    np.testing.assert_allclose(feet, feet[:1].repeat(20, 0), atol=0.1)
    np.testing.assert_allclose(feet[0], reference.body[0, [10, 13], :2], atol=2)


def test_foreshortened_arms_of_the_reference_do_not_shrink_the_result_much() -> None:
    reference = person()
    body = reference.body.copy()
    for shoulder, elbow, wrist in ((2, 3, 4), (5, 6, 7)):
        body[:, elbow, :2] = body[:, shoulder, :2] + 0.4 * (body[:, elbow, :2] - body[:, shoulder, :2])
        body[:, wrist, :2] = body[:, elbow, :2] + 0.3 * (body[:, wrist, :2] - body[:, elbow, :2])
    reference = Keypoints(body, reference.left_hand, reference.right_hand, reference.face, reference.size)
    aligned = align(person(16, motion=0.3), reference, canvas=CANVAS).keypoints
    assert bone_length(aligned, 2, 3).max() > 0.75 * bone_length(person(), 2, 3)[0]


def test_half_body_reference_and_full_body_driver() -> None:
    reference = without(person(scale=2.5, at=(200, 300)), [*LEGS])
    driver = person(24, motion=0.4, at=(200, 120))
    aligned = align(driver, reference, canvas=CANVAS)
    assert_finite(aligned)
    np.testing.assert_allclose(
        bone_length(aligned.keypoints, 1, 2), bone_length(reference, 1, 2)[0], rtol=0.03
    )
    np.testing.assert_allclose(aligned.keypoints.body[0, 1, :2], reference.body[0, 1, :2], atol=1)
    assert (aligned.keypoints.body[:, [9, 10, 12, 13], 1] > CANVAS[0]).all()
    assert (aligned.keypoints.body[..., 2] == driver.body[..., 2]).all()


def test_full_body_reference_and_half_body_driver() -> None:
    reference = person(scale=0.8, at=(200, 200))
    driver = without(person(24, motion=0.4, scale=3, at=(200, 300)), LEGS)
    aligned = align(driver, reference, canvas=CANVAS).keypoints
    np.testing.assert_allclose(bone_length(aligned, 1, 2), bone_length(reference, 1, 2)[0], rtol=0.03)
    np.testing.assert_allclose(aligned.body[:, LEGS], reference.body[:, LEGS].repeat(24, 0), atol=1e-3)


def test_a_driver_shown_down_to_the_hips_keeps_the_reference_s_legs() -> None:
    driver, reference = without(person(12, motion=0.5), [9, 10, 12, 13]), person()
    aligned = align(driver, reference, canvas=CANVAS).keypoints
    assert (aligned.body[:, 8:14, 2] > 0).all()
    np.testing.assert_allclose(
        aligned.body[5, [9, 10, 12, 13]], reference.body[0, [9, 10, 12, 13]], atol=1e-3
    )


def test_a_driver_who_comes_nearer_starts_at_the_reference_size() -> None:
    far, near = person(scale=0.5, at=(200, 250)).body, person(scale=1.5, at=(200, 100)).body
    share = np.linspace(0, 1, 30)[:, None, None]
    body = (far * (1 - share) + near * share).astype(np.float32)
    still = person(30)
    driver = Keypoints(body, still.left_hand * 0, still.right_hand * 0, still.face * 0, still.size)
    aligned = align(driver, person(scale=0.6, at=(200, 250)), canvas=CANVAS).keypoints
    assert bone_length(aligned, 9, 10)[0] == pytest.approx(0.6 * 81, rel=0.1)
    assert bone_length(aligned, 9, 10)[-1] == pytest.approx(1.8 * 81, rel=0.1)


def test_the_face_goes_with_the_head() -> None:
    driver = person(16, motion=0.4)
    reference = person(head=1.5, at=(120, 180))
    aligned = align(driver, reference, canvas=CANVAS)
    moved = driver.moved(aligned.frame_to_canvas, CANVAS)
    np.testing.assert_allclose(aligned.keypoints.face, moved.face, atol=0.01)
    np.testing.assert_allclose(
        aligned.keypoints.face[..., :2].mean(1), aligned.keypoints.body[:, 0, :2], atol=0.1
    )
    width = np.ptp(aligned.keypoints.face[..., 0], axis=1)
    np.testing.assert_allclose(width, np.ptp(reference.face[0, :, 0]), rtol=0.03)


def test_hands_stay_on_their_wrists() -> None:
    driver = person(16, motion=0.4)
    aligned = align(driver, person(arms=0.85, at=(250, 200)), canvas=CANVAS).keypoints
    for hand, wrist in ((aligned.left_hand, 7), (aligned.right_hand, 4)):
        np.testing.assert_allclose(hand[:, 0], aligned.body[:, wrist], atol=1e-3)
    assert np.ptp(aligned.left_hand[0, :, 0]) == pytest.approx(0.85 * 16, rel=0.05)


@pytest.mark.parametrize("mode", MODES)
def test_mirrored_input_gives_mirrored_output(mode: str) -> None:
    driver, reference = person(16, motion=0.4, at=(170, 140)), person(legs=0.9, arms=1.1, at=(260, 190))
    one = align(driver, reference, canvas=CANVAS, mode=mode).keypoints  # type: ignore[arg-type]
    other = align(mirrored(driver), mirrored(reference), canvas=CANVAS, mode=mode).keypoints  # type: ignore[arg-type]
    for name in PARTS:
        np.testing.assert_allclose(getattr(mirrored(other), name), getattr(one, name), atol=0.05)


def test_none_cuts_and_resizes_as_the_official_code() -> None:
    driver = person(3, size=(1080, 1920), at=(960, 400))
    aligned = align(driver, person(), canvas=(896, 512), mode="none")
    # crop_to_ratio of this size is 651, 0 to 1268, 1080 (fixture x)
    expected = (driver.body[..., 0] - 651) * 512 / 617, driver.body[..., 1] * 896 / 1080
    np.testing.assert_allclose(aligned.keypoints.body[..., 0], expected[0], atol=1e-2)
    np.testing.assert_allclose(aligned.keypoints.body[..., 1], expected[1], atol=1e-2)
    assert aligned.keypoints.size == (896, 512)


def test_without_a_reference_the_clip_is_cut() -> None:
    driver = person(3)
    for reference in (None, Keypoints.empty(1, CANVAS)):
        aligned = align(driver, reference, canvas=(300, 200))
        np.testing.assert_allclose(aligned.keypoints.body[..., :2], driver.body[..., :2] / 2, atol=1e-3)


def test_rigid_is_one_similarity() -> None:
    driver = person(16, motion=0.4)
    aligned = align(driver, person(legs=0.8, scale=0.7, at=(260, 220)), canvas=CANVAS, mode="rigid")
    assert (aligned.frame_to_canvas == aligned.frame_to_canvas[0]).all()
    assert (
        aligned.frame_to_canvas[0, 0, 0] == aligned.frame_to_canvas[0, 1, 1] == pytest.approx(0.66, abs=0.06)
    )
    np.testing.assert_allclose(
        aligned.keypoints.body, driver.moved(aligned.frame_to_canvas[0], CANVAS).body, atol=1e-3
    )


def test_a_reference_of_another_size_is_cut_to_the_canvas() -> None:
    driver = person(4)
    wide = person(size=(600, 1000), at=(500, 150))  # the middle 400 columns are the canvas
    aligned = align(driver, wide, canvas=CANVAS).keypoints
    np.testing.assert_allclose(aligned.body[..., :2], driver.body[..., :2], atol=1.0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(6))
def test_missing_points_never_give_nan(mode: str, seed: int) -> None:
    random = np.random.default_rng(seed)

    def holes(keypoints: Keypoints, share: float) -> Keypoints:
        parts = {}
        for name in PARTS:
            points = getattr(keypoints, name).copy()
            points[random.random(points.shape[:2]) < share] = 0
            points[random.random(points.shape[:2]) < 0.02] = np.nan
            parts[name] = points
        return Keypoints(**parts, size=keypoints.size)

    for share in (0.3, 0.9, 1.0):
        driver, reference = holes(person(9, motion=0.4), share), holes(person(scale=0.6), share)
        aligned = align(driver, reference, canvas=CANVAS, mode=mode)  # type: ignore[arg-type]
        assert_finite(aligned)
        assert np.abs(aligned.keypoints.body[..., :2]).max() < 1e5


@pytest.mark.parametrize("seen", [[0], [1], [2], [10], [0, 14, 15], [8, 11], [2, 5]])
def test_a_driver_of_whom_little_is_seen(seen: list[int]) -> None:
    driver = without(person(5), [j for j in range(18) if j not in seen])
    assert_finite(align(driver, person(scale=0.7), canvas=CANVAS))
    assert_finite(
        align(person(5), without(person(scale=0.7), [j for j in range(18) if j not in seen]), canvas=CANVAS)
    )


def test_a_profile_view_keeps_a_body() -> None:
    profile = person(1, shoulders=0.02)
    aligned = align(person(8, motion=0.4), profile, canvas=CANVAS)
    assert_finite(aligned)
    assert bone_length(aligned.keypoints, 1, 2).min() > 0.7 * 33
    aligned = align(person(8, motion=0.4, shoulders=0.02), person(), canvas=CANVAS)
    assert_finite(aligned)
    assert np.ptp(aligned.keypoints.body[..., 0]) < CANVAS[1]


def test_bad_options() -> None:
    with pytest.raises(OptionError, match="'bend' is not one of"):
        align(person(), person(), canvas=CANVAS, mode="bend")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="at least 1 x 1"):
        align(person(), person(), canvas=(0, 5))


def test_warp_frame_carries_pixels_exactly() -> None:
    frame = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    shifted = warp_frame(frame, np.array([[1, 0, 3], [0, 1, 2]]), (40, 30))
    np.testing.assert_array_equal(shifted[2:, 3:], frame[:-2, :-3])
    doubled = warp_frame(
        np.repeat(np.repeat(frame, 2, 0), 2, 1), np.array([[0.5, 0, 0], [0, 0.5, 0]]), (40, 30)
    )
    np.testing.assert_array_equal(doubled, frame)


def test_warp_frame_averages_when_it_shrinks() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    small = warp_frame(stripes, np.array([[0.25, 0, 0], [0, 0.25, 0]]), (16, 16))
    np.testing.assert_allclose(small, 100, atol=1)
