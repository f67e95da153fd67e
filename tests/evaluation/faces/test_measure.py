from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.pictures_for_tests import network_file, noise, odd_pictures, person
from xdyna.errors import InputError, OptionError, WeightsError
from xdyna.evaluation.faces.align import POINTS_112
from xdyna.evaluation.faces.found import Face, pick_face
from xdyna.evaluation.faces.load import find_sface, find_yunet
from xdyna.evaluation.faces.measure import ClipFaces, face_cos, face_det, find_clip_faces
from xdyna.evaluation.faces.opencv import SfaceEmbedder, YunetDetector


def face(score: float = 0.9, side: float = 10.0) -> Face:
    return Face(np.array([0, 0, side, side]), np.array(POINTS_112), score)


class BrightFaces:
    """A detector of our own: a face wherever the picture is bright, its identity painted into the first pixel."""

    name = "bright"

    def find(self, picture: np.ndarray) -> list[Face]:
        return [face()] if picture.mean() > 50 else []


class PaintedIdentity:
    name = "painted"

    def embed(self, picture: np.ndarray, face: Face) -> np.ndarray:
        if picture[0, 0, 0] == 13:
            raise InputError("face points", "fall together")
        if picture[0, 0, 0] == 14:
            return np.array([np.nan, 1.0])
        angle = picture[0, 0, 0] / 100
        return np.array([np.cos(angle), np.sin(angle)])


def frame(identity: int, *, bright: bool = True) -> np.ndarray:
    picture = np.full((8, 8, 3), 200 if bright else 0, np.uint8)
    picture[0, 0] = identity
    return picture


def looked_at(*frames: np.ndarray) -> ClipFaces:
    return find_clip_faces(list(frames), BrightFaces(), embedder=PaintedIdentity())


def test_face_cos_counts_frames_with_both_faces_and_tells_the_coverage() -> None:
    generated = looked_at(frame(0), frame(100), frame(0, bright=False), frame(50))
    truth = looked_at(frame(0), frame(0), frame(0), frame(0, bright=False))
    scores = face_cos(generated, truth)
    assert scores.name == "face_cos[painted]"
    assert scores.values[0] == pytest.approx(1)
    assert scores.values[1] == pytest.approx(np.cos(1))
    assert scores.values[2:] == (None, None)
    assert scores.mean == pytest.approx((1 + np.cos(1)) / 2)
    assert scores.zero_filled_mean == pytest.approx((1 + np.cos(1)) / 4)
    assert scores.coverage == 0.5
    assert scores.protocol == {"detector": "bright", "generated_seen": 3, "truth_seen": 3}
    assert face_det(generated).mean == 0.75


def test_no_face_at_all_is_no_number() -> None:
    dark = looked_at(frame(0, bright=False))
    scores = face_cos(dark, looked_at(frame(0)))
    assert scores.mean is None
    assert scores.coverage == 0
    assert scores.zero_filled_mean == 0
    assert face_det(dark).mean == 0


@pytest.mark.parametrize("identity", [13, 14])
def test_a_face_without_an_identity_counts_as_not_found(identity: int) -> None:
    clip = looked_at(frame(identity), frame(0))
    assert clip.seen.tolist() == [False, True]
    assert face_cos(clip, clip).values[0] is None


def test_clips_that_do_not_belong_together_are_refused() -> None:
    clip = looked_at(frame(0), frame(0))
    with pytest.raises(InputError, match="2 generated frames and 1"):
        face_cos(clip, looked_at(frame(0)))
    unnamed = find_clip_faces([frame(0)] * 2, BrightFaces())
    with pytest.raises(InputError, match="embedder"):
        face_cos(unnamed, clip)
    other = ClipFaces("yunet", clip.faces, clip.vectors, "painted")
    with pytest.raises(InputError, match="same networks"):
        face_cos(clip, other)
    with pytest.raises(InputError, match="no frames"):
        find_clip_faces([], BrightFaces())
    with pytest.raises(InputError, match="frame 1"):
        find_clip_faces([frame(0), frame(0) / 255], BrightFaces())


def test_which_face_is_looked_at() -> None:
    small, large = face(0.9, 5), face(0.8, 50)
    assert pick_face([small, large]) is small
    assert pick_face([small, large], "largest") is large
    assert pick_face([]) is None
    with pytest.raises(OptionError, match="score, largest"):
        pick_face([small], "first")


def test_files_that_are_no_networks_are_refused(tmp_path: object) -> None:
    path = tmp_path / "face.onnx"  # type: ignore[operator]
    for make in (YunetDetector, SfaceEmbedder):
        with pytest.raises(WeightsError, match="no such file"):
            make(path)
    path.write_bytes(b"not a network")
    for make in (YunetDetector, SfaceEmbedder):
        with pytest.raises(WeightsError, match="cannot read"):
            make(path)
    with pytest.raises(OptionError, match="threshold"):
        YunetDetector(path, threshold=1.5)


@pytest.mark.weights
@pytest.mark.parametrize("kind", odd_pictures())
def test_no_picture_breaks_yunet(kind: str) -> None:
    network_file("yunet")
    for number in range(8):
        # OpenCV once read what others left in memory
        left_over = np.random.default_rng(number).normal(0, 1e30, 50_000).astype(np.float32)
        del left_over
        assert find_yunet(threshold=0.3).find(odd_pictures()[kind]) == []


@pytest.mark.weights
def test_yunet_gives_the_same_each_time() -> None:
    network_file("yunet")
    small = person()[64:160:3, 50:130:3]
    seen = {tuple(np.round(face.box, 3)) for _ in range(8) for face in find_yunet(threshold=0.3).find(small)}
    assert len(seen) <= 1
    (first,), (second,) = (find_yunet().find(person()) for _ in range(2))
    assert np.array_equal(first.box, second.box)


@pytest.mark.weights
def test_sface_knows_a_person_again() -> None:
    network_file("sface")
    picture = person()
    brighter = np.clip(picture * 1.2, 0, 255).astype(np.uint8)
    stretched = np.ascontiguousarray(picture.repeat(2, 0)[::3].repeat(2, 1)[:, ::3])
    detector, embedder = find_yunet(), find_sface()
    truth = find_clip_faces([picture] * 4, detector, embedder=embedder)
    generated = find_clip_faces([picture, brighter, stretched, noise(64, 64)], detector, embedder=embedder)
    scores = face_cos(generated, truth)
    assert scores.name == "face_cos[sface]"
    assert scores.values[0] == pytest.approx(1)
    assert scores.values[1] > 0.8
    assert scores.values[2] > 0.5
    assert scores.values[3] is None
    assert scores.coverage == 0.75


@pytest.mark.weights
def test_sface_gives_what_opencv_gives() -> None:
    import cv2

    path = network_file("sface")
    if cv2.__version__.startswith("5."):
        pytest.skip("OpenCV 5's own class cannot run this file")
    picture = person()
    (found,) = find_yunet().find(picture)
    left, top, right, bottom = found.box
    row = np.array([left, top, right - left, bottom - top, *found.points.ravel(), found.score], np.float32)
    own = cv2.FaceRecognizerSF.create(str(path), "")
    wanted = own.feature(own.alignCrop(np.ascontiguousarray(picture[..., ::-1]), row[None]))[0]
    got = find_sface().embed(picture, found)
    assert np.allclose(got, wanted / np.linalg.norm(wanted), atol=1e-5)
