from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from xdyna import media
from xdyna.conditions.detect import make_detector
from xdyna.conditions.draw import JOINT_COLOURS
from xdyna.conditions.mediapipe import (
    BODY_FROM_POSE,
    FACE_FROM_MESH,
    MediapipeDetector,
    to_keypoints,
)
from xdyna.conditions.track import track

EXAMPLES = Path(os.environ.get("XDYNA_SHARED", Path(__file__).parents[3] / "shared")) / "examples"
needs_examples = pytest.mark.skipif(
    not (EXAMPLES / "driving_1.mp4").exists(), reason="the example videos are not on this machine"
)


@pytest.fixture(scope="module")
def driving() -> np.ndarray:
    return media.read_clip(EXAMPLES / "driving_1.mp4", limit=6).frames


def test_the_layout_of_the_body() -> None:
    pose = np.stack([np.arange(33), 100 + np.arange(33), np.full(33, 0.9)], 1).astype(np.float32)
    pose[12, 2] = 0.5
    one = to_keypoints(pose, None, None, None, (10, 20))
    # right arm 12 14 16, left arm 11 13 15, right leg 24 26 28, left leg 23 25 27, eyes 5 2, ears 8 7
    assert one.body[0, [0, *range(2, 18)], 0].tolist() == [
        0,
        12,
        14,
        16,
        11,
        13,
        15,
        24,
        26,
        28,
        23,
        25,
        27,
        5,
        2,
        8,
        7,
    ]
    np.testing.assert_allclose(one.body[0, 1], [11.5, 111.5, 0.5])
    assert one.face.max() == one.left_hand.max() == one.right_hand.max() == 0
    hand = np.ones((21, 3), np.float32)
    assert to_keypoints(pose, None, 2 * hand, 3 * hand, (10, 20)).left_hand.max() == 2


def test_the_layout_of_the_face() -> None:
    assert len(FACE_FROM_MESH) == len(set(FACE_FROM_MESH)) == 68
    assert max(FACE_FROM_MESH) < 468
    assert len(BODY_FROM_POSE) == 18


def test_nobody_and_pictures_too_small() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    for still in (True, False):
        assert list(MediapipeDetector(still=still).stream([noise, noise])) == [[], []]
    assert list(MediapipeDetector().stream([np.zeros((1, 1, 3), np.uint8)])) == [[]]
    assert list(MediapipeDetector().stream([])) == []


@needs_examples
def test_joints_lie_where_the_official_pose_video_has_them(
    driving: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    official = media.read_clip(EXAMPLES / "pose_1.mp4", limit=6).frames.astype(int)
    found = track(make_detector("mediapipe").stream(driving))
    assert capfd.readouterr().err == ""  # MediaPipe's own log is silent
    distances = []
    for frame, picture in enumerate(official):
        for joint in (0, 1, 2, 3, 5, 6, 8, 9, 10, 11, 13):
            disc = np.argwhere(np.abs(picture - JOINT_COLOURS[joint]).max(-1) < 34)
            if len(disc) >= 20:
                centre = disc.mean(0)[::-1] + 0.5
                distances.append(np.hypot(*(found.body[frame, joint, :2] - centre)))
    assert len(distances) > 40
    # The shoulders span 100 pixels.
    assert np.median(distances) < 8
    # Some of the fingers have joints' colours, so not every disc found is a joint.
    assert np.percentile(distances, 85) < 16


@needs_examples
def test_the_face_table_on_a_face() -> None:
    picture = media.read_image(EXAMPLES / "reference_1.png")
    found = track(make_detector("mediapipe", still=True).stream([picture]), source="reference_1.png")
    face, body = found.face[0], found.body[0]
    assert face[:, 2].min() == 1
    x, y = face[:, 0], face[:, 1]
    # The picture's left comes first, everywhere.
    assert (np.diff(x[:17]) > -2).all()
    assert (np.diff(x[17:27]) > 0).all()
    assert (np.diff(x[48:55]) > 0).all()
    assert x[36] < x[39] < x[42] < x[45]
    # From above to below: brows, eyes, tip of the nose, mouth, chin.
    eyes = y[36:48].mean()
    assert y[17:27].mean() < eyes < y[30] < y[48:68].mean() < y[8] == y.max()
    assert (np.diff(y[27:31]) > 0).all()
    # Lids: upper over lower; lips: the inner ones within the outer ones.
    for upper, lower in (((37, 38), (41, 40)), ((43, 44), (47, 46)), ((50, 51, 52), (58, 57, 56))):
        assert (y[list(upper)] < y[list(lower)]).all()
    assert y[51] < y[62] < y[66] + 0.5 < y[57]
    # The body's own nose and eyes agree; the person's right eye is at the picture's left.
    size = np.ptp(x)
    assert np.hypot(*(body[0, :2] - face[30, :2])) < 0.2 * size
    assert np.hypot(*(body[14, :2] - face[36:42, :2].mean(0))) < 0.2 * size
    assert np.hypot(*(body[15, :2] - face[42:48, :2].mean(0))) < 0.2 * size


@needs_examples
def test_two_people_and_their_masks(driving: np.ndarray) -> None:
    other = media.read_clip(EXAMPLES / "driving_2.mp4", limit=2).frames
    both = np.concatenate([driving[:2, :, :400], other], axis=2)
    for still in (True, False):
        frames = list(MediapipeDetector(still=still, masks=True).stream(both))
        assert [len(people) for people in frames] == [2, 2]
        for people in frames:
            left, right = sorted(people, key=lambda person: person.box[0])
            assert left.box[2] < 400 < right.box[0] + 60
            for person in people:
                assert person.mask is not None
                assert person.mask.shape == both.shape[1:3]
                x, y = person.keypoints.body[0, 1, :2].astype(int)
                assert person.mask[y + 20, x] == 255
                assert 0.02 < (person.mask > 0).mean() < 0.3


@needs_examples
def test_retry_finds_more(driving: np.ndarray) -> None:
    def parts(retry: bool) -> int:
        frames = MediapipeDetector(max_people=1, retry=retry).stream(driving)
        return sum(
            int(getattr(people[0].keypoints, name)[0, 0, 2] > 0)
            for people in frames
            for name in ("left_hand", "right_hand", "face")
        )

    assert parts(True) > parts(False)


@needs_examples
def test_a_small_person_still_has_a_face(driving: np.ndarray) -> None:
    import cv2

    small = cv2.resize(driving[0], None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)
    found = track(make_detector("mediapipe", still=True).stream([small]))
    whole = track(make_detector("mediapipe", still=True).stream([driving[0]]))
    np.testing.assert_allclose(found.face[0, :, :2], 0.4 * whole.face[0, :, :2], atol=3)
