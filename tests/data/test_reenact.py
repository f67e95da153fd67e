"""The built-in re-enactor: another person, doing the same."""

from __future__ import annotations

import logging
from dataclasses import replace

import cv2
import numpy as np
import pytest

from tests.data.reenacted import clips, people
from xdyna.conditions.face import FaceTracker
from xdyna.data.reenact import STILL_LIFE, Face, Gallery, ReenactOptions, Reenactor, SameFace, agreement
from xdyna.data.reenact.expression import at_rest, lid_gaps, mouth_gap, transfer
from xdyna.data.reenact.gaze import gaze_offsets
from xdyna.data.reenact.geometry import AVERAGE_FACE, MIRRORED, HeadPose, read_faces
from xdyna.data.reenact.mesh import head_points, hidden_side, mesh_points, triangles, visible
from xdyna.data.reenact.warp import FaceWarper, Inside
from xdyna.data.synthetic import EXPRESSIONS, make_batch
from xdyna.errors import InputError, OptionError


def turned(yaw: float, pitch: float = 0.0, *, scale: float = 30.0) -> HeadPose:
    """A pose in degrees, the face's origin at (100, 80)."""
    a, b = np.radians([yaw, pitch])
    about_y = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return HeadPose((about_x @ about_y)[None], np.array([scale]), np.array([[100.0, 80.0]]))


def run(face: Face, clip: tuple[np.ndarray, np.ndarray], options: ReenactOptions = STILL_LIFE, seed: int = 0):
    return Reenactor(Gallery((face,)), options)(*clip, generator=np.random.default_rng(seed))


# --- Geometry -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (25, 0), (-40, 10), (10, -20)])
def test_the_pose_of_an_average_face_is_found_exactly(yaw: float, pitch: float) -> None:
    pose = turned(yaw, pitch)
    reading = read_faces(pose.project(AVERAGE_FACE))
    assert np.allclose(reading.pose.rotation, pose.rotation, atol=2e-3)
    assert np.allclose(reading.pose.scale, 30, rtol=2e-3)
    assert np.allclose(reading.pose.project(reading.points), pose.project(AVERAGE_FACE))


def test_the_synthetic_head_s_turns_are_found() -> None:
    batch = make_batch(3, 4, frames=15, size=(64, 64), human_share=1.0, maps=False)
    for landmarks, truth in zip(batch.face.numpy(), batch.expression.numpy(), strict=True):
        found = read_faces(landmarks).pose.yaw
        assert np.corrcoef(found, truth[:, EXPRESSIONS.index("yaw")])[0, 1] > 0.95


def test_triangles_cover_the_face_once_and_hide_the_far_cheek_of_a_turned_head() -> None:
    head = head_points(AVERAGE_FACE)
    for yaw, hidden in ((0, 0), (35, 1), (-35, -1)):
        pose = turned(yaw)
        flat = pose.project(AVERAGE_FACE)[0]
        assert hidden_side(flat) == hidden
        shown = visible(mesh_points(flat, head, pose), AVERAGE_FACE, head, pose)
        assert len(set(shown.tolist())) == len(shown)
        assert (len(shown) == len(triangles())) == (yaw == 0)
    outline = mesh_points(turned(0).project(AVERAGE_FACE)[0], head, turned(0))
    corners = outline[triangles()]
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / 2
    assert area == pytest.approx(cv2.contourArea(cv2.convexHull(outline[-16:].astype(np.float32))), rel=1e-3)


# --- What is carried over -------------------------------------------------------------------------------------


def test_the_expression_is_the_target_s_and_the_identity_is_the_source_s() -> None:
    found = []
    for number, clip in enumerate(clips()):
        face = people().faces[number]
        found.append(agreement(clip, run(face, clip), (face.picture, face.landmarks)))
    for name in ("mouth", "lids", "smile", "brows", "yaw", "pitch"):
        assert np.nanmin([f.expression[name] for f in found]) > 0.9, name
    assert np.mean([f.proportions for f in found]) == pytest.approx(1, abs=0.15)
    assert np.mean([f.colour for f in found]) == pytest.approx(1, abs=0.15)
    # The measure itself tells a leak: the target's own face.
    own = clips()[0]
    face = people().faces[0]
    leak = agreement(own, own, (face.picture, face.landmarks))
    assert leak.proportions == pytest.approx(0, abs=1e-6)
    assert leak.colour == pytest.approx(0, abs=1e-6)


def test_pixels_are_where_the_landmarks_say() -> None:
    face, clip = people().faces[1], clips()[2]
    marked = np.full_like(face.picture, 40)
    points = (17, 26, 30, 48, 54, 8)
    for point in points:
        cv2.circle(marked, np.round(face.landmarks[point]).astype(int).tolist(), 4, (255, 255, 255), -1)
    pictures, placed = run(replace(face, picture=marked, mask=None), clip)
    checked = 0
    for picture, landmarks in zip(pictures, placed, strict=True):
        if abs(float(read_faces(landmarks[None]).pose.yaw[0])) > 0.3:
            continue
        for point in points:
            x, y = np.floor(landmarks[point, :2]).astype(int)
            if 2 <= x < 158 and 2 <= y < 158:
                assert picture[y - 1 : y + 2, x - 1 : x + 2].max() > 110, point
                checked += 1
    assert checked > 20


def test_nothing_of_the_target_s_pixels_comes_along_unless_a_mouth_is_borrowed() -> None:
    frames, landmarks = clips()[1]
    plain = ReenactOptions(mouth="painted", gaze=False)
    first, places = run(people().faces[0], (frames, landmarks), plain)
    again, same = run(people().faces[0], (255 - frames, landmarks), plain)
    assert np.array_equal(first, again)
    assert np.array_equal(places, same)


def test_lasting_smiles_count_as_much_as_asked() -> None:
    smiling = np.repeat(AVERAGE_FACE[None], 6, axis=0)
    smiling[:, [48, 54, 60, 64], 1] -= 0.15
    reading = read_faces(turned(0).project(smiling[0]))
    reading = replace(reading, points=smiling)
    lifts = []
    for lasting in (0.0, 0.5, 1.0):
        out = transfer(reading, AVERAGE_FACE, lasting=lasting)
        lifts.append(float(AVERAGE_FACE[[48, 54], 1].mean() - out[:, [48, 54], 1].mean()))
    assert lifts[0] == pytest.approx(0, abs=1e-6)
    assert lifts[0] < lifts[1] < lifts[2]
    assert lifts[2] == pytest.approx(0.15, abs=0.06)


def test_a_shut_mouth_opens_and_a_lid_closes() -> None:
    face = people().faces[0]
    warper = FaceWarper(face.picture, face.landmarks)
    pose = turned(0)
    away = Inside(None, np.zeros((68, 2)), np.ones(3))
    box = (0, 0, 200, 200)
    opened, shut = warper.points.copy(), warper.points.copy()
    opened[[65, 66, 67], 1] += 0.35
    opened[[55, 56, 57, 58, 59, 6, 7, 8, 9, 10], 1] += 0.35
    shut[[37, 38, 43, 44]] = shut[[41, 40, 47, 46]]
    assert mouth_gap(opened) > mouth_gap(warper.points) + 0.3
    assert lid_gaps(shut).max() == 0
    rest, mouth, lids = (
        warper.paint(p, pose, box=box, inside=away)[0] for p in (warper.points, opened, shut)
    )
    x, y = np.round(pose.project(opened)[0][[62, 66]].mean(0)).astype(int)
    assert int(mouth[y, x].sum()) < 0.5 * int(warper.skin.sum())
    # What was the white and the iris is the lid's skin now.
    eye = np.round(pose.project(warper.points)[0][[37, 38]].mean(0)).astype(int)
    around = (slice(eye[1], eye[1] + 3), slice(eye[0] - 3, eye[0] + 4))
    unlike = [np.abs(picture[around] - warper.skin).mean() for picture in (rest, lids)]
    assert unlike[0] > 1.5 * unlike[1]


def test_the_mouth_is_borrowed_when_the_target_shows_one() -> None:
    face = people().faces[2]
    warper = FaceWarper(face.picture, face.landmarks)
    points = warper.points.copy()
    points[[65, 66, 67], 1] += 0.35
    pose = turned(0)
    landmarks = pose.project(points)[0]
    green = np.zeros((200, 200, 3), np.uint8)
    green[..., 1] = 200
    x, y = np.round(landmarks[[62, 66]].mean(0)).astype(int)
    made, _ = warper.paint(points, pose, box=(0, 0, 200, 200), inside=Inside(green, landmarks, np.ones(3)))
    assert made[y, x, 1] > 150
    assert made[y, x, 0] < 60


def test_a_head_lying_on_its_side_opens_its_mouth_too() -> None:
    face = people().faces[2]
    warper = FaceWarper(face.picture, face.landmarks)
    points = warper.points.copy()
    points[[65, 66, 67], 1] += 0.35
    upright = turned(0)
    side = replace(upright, rotation=np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]) @ upright.rotation)
    away = Inside(None, np.zeros((68, 2)), np.ones(3))
    picture, _ = warper.paint(points, side, box=(0, 0, 200, 200), inside=away)
    x, y = np.round(side.project(points)[0][[62, 66]].mean(0)).astype(int)
    assert int(picture[y, x].sum()) < 0.5 * int(warper.skin.sum())


def test_gaze_is_read_from_pixels_and_painted() -> None:
    looks, truth, shown = [], [], []
    face = max(people().faces, key=lambda f: float(np.ptp(f.landmarks, axis=0).max()))
    batch = make_batch(31, 12, frames=5, size=(256, 256), human_share=1.0, maps=False)
    frames = (batch.frames.permute(0, 1, 3, 4, 2).numpy() * 255 + 0.5).astype(np.uint8)
    for clip, landmarks, values in zip(frames, batch.face.numpy(), batch.expression.numpy(), strict=True):
        if np.hypot(*(landmarks[0, 39] - landmarks[0, 36])[:2]) < 10:
            continue
        pictures, placed = run(face, (clip, landmarks))
        for frame, points, picture, where, value in zip(
            clip, landmarks, pictures, placed, values, strict=True
        ):
            own, theirs = gaze_offsets(frame, points), gaze_offsets(picture, where)
            if own[:, 2].all() and theirs[:, 2].all():
                looks.append(own[:, 0].mean())
                shown.append(theirs[:, 0].mean())
                truth.append(value[EXPRESSIONS.index("gaze_x")])
    assert len(truth) > 25
    assert np.corrcoef(looks, truth)[0, 1] > 0.8
    assert np.corrcoef(shown, truth)[0, 1] > 0.6


# --- Clips as they come ---------------------------------------------------------------------------------------


def test_a_seed_means_one_person_and_one_look() -> None:
    clip = clips()[0]
    source = Reenactor(people())
    first, again, other = (source(*clip, generator=np.random.default_rng(seed))[0] for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 5


def test_lost_faces_hold_the_last_and_missing_points_are_filled() -> None:
    frames, landmarks = clips()[0]
    gaps = landmarks.copy()
    gaps[5] = 0
    gaps[8, 60:68] = 0
    pictures, placed = run(people().faces[0], (frames, gaps))
    whole, _ = run(people().faces[0], (frames, landmarks))
    assert not placed[5].any()
    assert np.array_equal(pictures[5], pictures[4])
    assert (placed[8, :, 2] == 1).all()
    assert np.abs(pictures[8].astype(int) - whole[8]).mean() < 4
    nobody = np.zeros_like(landmarks)
    pictures, placed = run(people().faces[0], (frames, nobody))
    assert not pictures.any()
    assert not placed.any()


def test_crops_of_the_clip_show_a_face_in_every_frame() -> None:
    clip = clips()[3]
    pictures, placed = Reenactor(people())(*clip, generator=np.random.default_rng(1))
    assert pictures.dtype == np.uint8
    assert pictures.shape == clip[0].shape
    tracker = FaceTracker()
    for picture, points in zip(pictures, placed, strict=True):
        local, whole = tracker.step(picture, points)
        assert whole.any()
        assert local.any()
        # What the tracker may cut was painted: no edge of the painted part inside the face's box.
        assert (whole.max(-1) > 0).mean() >= (local.max(-1) > 0).mean()


def test_a_face_half_outside_of_the_picture_is_no_trouble() -> None:
    frames, landmarks = clips()[0]
    for shift in ((-150, 0), (150, 40), (0, -170), (900, 900)):
        moved = landmarks.copy()
        moved[..., :2] += shift
        pictures, placed = run(people().faces[0], (frames, moved))
        assert np.allclose(placed[..., 2], 1)
        assert pictures.shape == frames.shape


def test_a_known_mask_gives_another_background() -> None:
    clip = clips()[0]
    face = people().faces[3]
    own = run(face, clip, STILL_LIFE, seed=2)[0]
    drawn = run(face, clip, replace(STILL_LIFE, background=1.0), seed=2)[0]
    different = np.abs(own.astype(int) - drawn).max(-1) > 12
    centre = np.round(clip[1][0, 30, :2]).astype(int)
    assert different[:, 0].all()
    assert not different[0, centre[1] - 2 : centre[1] + 3, centre[0] - 2 : centre[0] + 3].any()


def test_mirrored_twice_is_the_face_itself() -> None:
    face = people().faces[0]
    back = face.mirrored().mirrored()
    assert np.allclose(back.landmarks, face.landmarks)
    assert np.array_equal(back.picture, face.picture)
    assert face.mirrored().yaw == pytest.approx(-face.yaw, abs=1e-6)
    assert (MIRRORED[MIRRORED] == np.arange(68)).all()
    assert at_rest(face.landmarks).shape == (68, 3)


def test_the_fallback_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    frames, landmarks = clips()[0]
    source = SameFace()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            pictures, placed = source(frames, landmarks, generator=np.random.default_rng(0))
    assert np.array_equal(pictures, frames)
    assert np.array_equal(placed, landmarks)
    assert len(caplog.records) == 1
    assert "own face" in caplog.text


def test_options_out_of_range_and_empty_galleries_are_refused() -> None:
    with pytest.raises(OptionError, match="mouth"):
        ReenactOptions(mouth="stolen")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="lasting"):
        ReenactOptions(lasting=1.5)
    with pytest.raises(OptionError, match="gallery"):
        Reenactor(Gallery(()))
    alone = Gallery(people().faces[:1])
    with pytest.raises(OptionError, match="gallery"):
        Reenactor(alone).without([alone.faces[0].name])
    with pytest.raises(InputError, match="no face"):
        Gallery(()).draw(np.random.default_rng(0))
