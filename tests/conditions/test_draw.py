from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.conditions.skeletons import person, without
from xdyna.conditions.draw import (
    HAND_EDGE_COLOURS,
    HAND_EDGES,
    JOINT_COLOURS,
    LIMB_COLOURS,
    LIMBS,
    draw_pose,
    stroke_widths,
)
from xdyna.conditions.keypoints import Keypoints


def alone(points: dict[int, tuple[float, float]], size: tuple[int, int]) -> Keypoints:
    one = Keypoints.empty(1, size)
    for index, xy in points.items():
        one.body[0, index] = (*xy, 1)
    return one


def official(keypoints: Keypoints) -> np.ndarray:
    """The body as DWPose draws it, with OpenCV's own shapes, at 896 x 512."""
    canvas = np.zeros((*keypoints.size, 3), np.uint8)
    body = keypoints.body[0]
    for (a, b), colour in zip(LIMBS, LIMB_COLOURS, strict=True):
        (x1, y1), (x2, y2) = body[a, :2], body[b, :2]
        angle = np.degrees(np.arctan2(y2 - y1, x2 - x1))
        half = int(np.hypot(x2 - x1, y2 - y1) / 2)
        outline = cv2.ellipse2Poly((int((x1 + x2) / 2), int((y1 + y2) / 2)), (half, 4), int(angle), 0, 360, 1)
        cv2.fillConvexPoly(canvas, outline, colour)
    for joint, colour in enumerate(JOINT_COLOURS):
        cv2.circle(canvas, (int(body[joint, 0]), int(body[joint, 1])), 4, colour, -1)
    return canvas


def test_constants() -> None:
    assert len(LIMBS) == len(LIMB_COLOURS) == 13
    assert len(HAND_EDGES) == len(HAND_EDGE_COLOURS) == 20
    assert HAND_EDGES[:5] == ((0, 1), (1, 2), (2, 3), (3, 4), (0, 5))
    for limb, joint in zip(LIMB_COLOURS, JOINT_COLOURS, strict=False):
        assert limb == tuple(int(0.6 * c) for c in joint)
    # No eyes and ears anywhere.
    assert max(max(limb) for limb in LIMBS) == 13


def test_the_official_drawing_is_met() -> None:
    keypoints = person(size=(896, 512), at=(256, 250), scale=1.5)
    ours, theirs = draw_pose(keypoints, 0, hands=False).astype(int), official(keypoints).astype(int)
    lit = (ours.max(-1) > 0) | (theirs.max(-1) > 0)
    # Only the borders differ: theirs are whole pixels.
    assert np.abs(ours - theirs).max(-1)[lit].mean() < 25
    assert abs((ours.max(-1) > 60).sum() / (theirs.max(-1) > 60).sum() - 1) < 0.04
    inner = cv2.erode((theirs.max(-1) > 0).astype(np.uint8), np.ones((5, 5))) > 0
    assert (np.abs(ours - theirs).max(-1)[inner] < 60).mean() > 0.97


def test_area_and_colour_of_a_joint_and_a_limb() -> None:
    joint = draw_pose(alone({0: (100.5, 100.5)}, (896, 512)), 0)
    assert tuple(joint[100, 100]) == (255, 0, 0)
    assert (joint[..., 0] / 255).sum() == pytest.approx(np.pi * 4**2, rel=0.01)
    limb = draw_pose(alone({2: (100, 300), 3: (220, 300)}, (896, 512)), 0)
    column = limb[:, 160].astype(float)
    assert tuple(limb[300, 160]) == (153, 102, 0)
    assert (column[:, 0] / 153).sum() == pytest.approx(9, rel=0.02)


def test_places_are_finer_than_pixels() -> None:
    for x in (50.0, 50.25, 50.5, 50.9):
        picture = draw_pose(alone({0: (x, 40.3)}, (896, 512)), 0)[..., 0].astype(float)
        rows, columns = np.mgrid[:896, :512] + 0.5
        assert (columns * picture).sum() / picture.sum() == pytest.approx(x, abs=0.03)
        assert (rows * picture).sum() / picture.sum() == pytest.approx(40.3, abs=0.03)


@pytest.mark.parametrize("size", [(448, 256), (336, 192)])
def test_a_small_frame_looks_like_a_large_one_scaled_down(size: tuple[int, int]) -> None:
    large = person(size=(896, 512), at=(256, 250), scale=1.5)
    share = size[0] / 896
    small = large.moved(np.array([[share, 0, 0], [0, share, 0]]), size)
    wanted = cv2.resize(draw_pose(large, 0), (size[1], size[0]), interpolation=cv2.INTER_AREA).astype(int)
    got = draw_pose(small, 0).astype(int)
    lit = wanted.max(-1) > 0
    assert np.abs(got - wanted)[lit].mean() < 8
    assert got.sum() / wanted.sum() == pytest.approx(1, abs=0.02)


def test_widths_go_with_the_area() -> None:
    assert stroke_widths((896, 512)) == stroke_widths((512, 896))
    assert stroke_widths((448, 256)).limb == pytest.approx(2.25)
    assert stroke_widths((448, 256)).hand_edge == pytest.approx(0.75)


def test_missing_points_and_hands_are_left_out() -> None:
    whole = person(size=(896, 512), at=(256, 250))
    assert draw_pose(Keypoints.empty(1, (64, 64)), 0).max() == 0
    assert (draw_pose(without(whole, [13]), 0)[..., :] == (85, 0, 255)).all(-1).sum() == 0
    assert (draw_pose(whole, 0) == (85, 0, 255)).all(-1).sum() > 20
    with_hands = (draw_pose(whole, 0) == (0, 0, 255)).all(-1).sum()
    without_hands = (draw_pose(whole, 0, hands=False) == (0, 0, 255)).all(-1).sum()
    assert with_hands > without_hands + 300


def test_eyes_and_ears_change_nothing() -> None:
    whole = person(size=(896, 512), at=(256, 250))
    np.testing.assert_array_equal(draw_pose(whole, 0), draw_pose(without(whole, [14, 15, 16, 17]), 0))


def test_outside_far_away_and_not_finite() -> None:
    size = (256, 192)
    for place in ((-1e9, 5.0), (1e12, 1e12), (np.nan, 3.0), (np.inf, 3.0)):
        assert draw_pose(alone({0: place, 1: (1e7, -1e7)}, size), 0).shape == (*size, 3)
    # A limb that crosses the frame is seen although both its ends are outside.
    assert draw_pose(alone({2: (-40, 32), 3: (230, 32)}, size), 0)[32, 95].max() > 100


def test_a_limb_of_no_length() -> None:
    picture = draw_pose(alone({2: (20, 20), 3: (20, 20)}, (896, 512)), 0)
    assert picture.max() == 255


def test_any_frame_of_a_clip() -> None:
    clip = person(8, motion=0.5, size=(448, 256), at=(128, 100))
    np.testing.assert_array_equal(draw_pose(clip, 4), draw_pose(clip[[4]], 0))
    assert (draw_pose(clip, 0) != draw_pose(clip, 4)).any()


def test_landmarks_are_white_discs_over_everything() -> None:
    size = (896, 512)
    bare = Keypoints.empty(1, size)
    for index, xy in enumerate(((100.5, 100.5), (200.5, 300.5), (-3.0, 40.0))):
        bare.face[0, index] = (*xy, 1)
    picture = draw_pose(bare, 0, landmarks=True)
    assert tuple(picture[100, 100]) == tuple(picture[300, 200]) == (255, 255, 255)
    assert (picture / 255).sum() / 3 == pytest.approx(2 * np.pi * 3**2, rel=0.01)
    assert draw_pose(bare, 0).max() == 0
    bare.body[0, 0] = (100.5, 102.5, 1)
    over = draw_pose(bare, 0, landmarks=True)
    assert tuple(over[100, 100]) == (255, 255, 255)
    assert tuple(over[105, 100]) == (255, 0, 0)


def test_landmarks_are_what_opencv_draws() -> None:
    """DWPose: a filled circle of radius 3 at the whole pixel of each landmark."""
    size = (896, 512)
    face = Keypoints.empty(1, size)
    angle = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    # in the middle of pixels, where theirs have their centre
    face.face[0, :, :2] = np.floor(np.stack([256 + 60 * np.cos(angle), 200 + 80 * np.sin(angle)], -1)) + 0.5
    face.face[0, :, 2] = 1
    theirs = np.zeros((*size, 3), np.uint8)
    for x, y, _ in face.face[0]:
        cv2.circle(theirs, (int(x), int(y)), 3, (255, 255, 255), -1)
    ours = draw_pose(face, 0, landmarks=True)
    assert (ours > 127).sum() / (theirs > 127).sum() == pytest.approx(1, abs=0.3)
    assert (theirs[ours == 255] == 255).all(), "nothing far from theirs"
    assert ours[theirs == 255].mean() > 200
