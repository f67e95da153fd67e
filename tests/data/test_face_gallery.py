"""Galleries of faces: drawn, from pictures, from clips, kept in a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.data.reenacted import clips, people
from xdyna.conditions.keypoints import Keypoints
from xdyna.conditions.people import Person
from xdyna.data.reenact import Gallery, clip_face, cut_face, folder_gallery, gallery_of, synthetic_gallery
from xdyna.data.reenact.gallery import FACE_SIDE, face_problem
from xdyna.data.reenact.geometry import AVERAGE_FACE
from xdyna.data.synthetic import HELD_OUT_SEED, make_batch
from xdyna.errors import InputError
from xdyna.media import write_image


class Known:
    """A detector of pictures whose landmarks are known: looked up by the picture's mean colour."""

    def __init__(self, known: list[tuple[np.ndarray, np.ndarray]]) -> None:
        self.known = [(picture.mean((0, 1)), landmarks) for picture, landmarks in known]

    def stream(self, frames: Iterable[np.ndarray]) -> Iterator[list[Person]]:
        for frame in frames:
            near = [
                points for colour, points in self.known if np.allclose(colour, frame.mean((0, 1)), atol=1e-6)
            ]
            found = []
            for points in near:
                one = Keypoints.empty(1, frame.shape[:2])
                one.face[0] = points
                found.append(Person(one, (0.0, 0.0, 10.0, 10.0), np.full(frame.shape[:2], 255, np.uint8)))
            yield found


def portraits(count: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    batch = make_batch(8, count, frames=0, size=(256, 256), human_share=1.0, maps=False)
    pictures = (batch.frames[:, 0].permute(0, 2, 3, 1).numpy() * 255 + 0.5).astype(np.uint8)
    return [(pictures[i], batch.face[i, 0].numpy()) for i in range(count)]


def test_the_synthetic_gallery_is_repeatable_usable_and_holds_nobody_held_out() -> None:
    again = synthetic_gallery(5, size=256)
    assert len(people()) == 5
    assert len({face.name for face in people().faces}) == 5
    for face, other in zip(people().faces, again.faces, strict=True):
        assert np.array_equal(face.picture, other.picture)
        assert face.picture.shape[0] == face.picture.shape[1]
        assert face.mask is not None
        assert int(face.name.split()[1].split(".")[0]) < HELD_OUT_SEED
        assert (np.ptp(face.landmarks, axis=0) <= FACE_SIDE + 2).all()


def test_cutting_keeps_the_pixels_under_the_landmarks() -> None:
    picture = np.zeros((600, 500, 3), np.uint8)
    landmarks = AVERAGE_FACE[:, :2] * 110 + (330, 200)
    for x, y in landmarks[[8, 30, 36, 45]]:
        picture[int(y) - 4 : int(y) + 5, int(x) - 4 : int(x) + 5] = 255
    face = cut_face("somebody", picture, landmarks)
    assert float(np.ptp(face.landmarks, axis=0).max()) == pytest.approx(FACE_SIDE, abs=1)
    for x, y in face.landmarks[[8, 30, 36, 45]]:
        assert face.picture[int(y), int(x)].min() > 200


def test_faces_that_will_not_do_are_named() -> None:
    good = np.concatenate([AVERAGE_FACE[:, :2] * 40 + 200, np.ones((68, 1))], 1)
    assert face_problem(good) == ""
    lost, small, shut, wide = (good.copy() for _ in range(4))
    lost[3, 2] = 0
    small[:, :2] *= 0.1
    shut[[37, 38, 43, 44]] = shut[[41, 40, 47, 46]]
    wide[[65, 66, 67, 55, 56, 57, 58, 59, 7, 8, 9], 1] += 30
    for points, words in ((lost, "68"), (small, "pixels"), (shut, "eyes"), (wide, "mouth")):
        assert words in face_problem(points)


def test_a_clip_gives_its_best_face_and_can_be_left_out_again() -> None:
    frames, landmarks = max(clips(), key=lambda clip: float(np.ptp(clip[1][0, :, 0])))
    # Twice as large, as a face of 36 pixels is needed.
    large = np.repeat(np.repeat(frames, 2, 1), 2, 2)
    doubled = landmarks * (2, 2, 1)
    face = clip_face("dance", large, doubled, mask_of=lambda i: np.full(large.shape[1:3], 200, np.uint8))
    assert face is not None
    assert face.mask is not None
    assert abs(face.yaw) < 0.7
    gallery = gallery_of([face, None]) + people()
    assert len(gallery.without({"dance"})) == len(people())
    assert clip_face("far away", frames, landmarks * (0.05, 0.05, 1)) is None
    with pytest.raises(InputError, match="no clip"):
        gallery_of([None])


def test_saved_and_loaded(tmp_path: Path) -> None:
    face = cut_face("plain", *portraits()[0])
    gallery = Gallery((*people().faces[:2], face))
    loaded = Gallery.load(gallery.save(tmp_path / "faces.npz"))
    assert [f.name for f in loaded.faces] == [f.name for f in gallery.faces]
    for mine, theirs in zip(gallery.faces, loaded.faces, strict=True):
        assert np.allclose(mine.landmarks, theirs.landmarks, atol=1e-3)
        assert np.abs(mine.picture.astype(int) - theirs.picture).mean() < 3
        assert (mine.mask is None) == (theirs.mask is None)
    assert np.array_equal(loaded.faces[0].mask, gallery.faces[0].mask)
    (tmp_path / "other.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a gallery"):
        Gallery.load(tmp_path / "other.npz")
    with pytest.raises(InputError, match="no such file"):
        Gallery.load(tmp_path / "absent.npz")


def test_a_folder_of_pictures_leaves_out_what_shows_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = portraits()
    for number, (picture, _) in enumerate(known):
        write_image(tmp_path / f"person {number}.png", picture, ai_generated=False)
    write_image(tmp_path / "wall.png", np.full((64, 64, 3), 9, np.uint8), ai_generated=False)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("not looked at")
    usable = sum(not face_problem(points) for _, points in known)
    assert usable > 0
    gallery = folder_gallery(tmp_path, detector=Known(known))
    assert len(gallery) == usable
    assert "wall.png" in caplog.text
    assert "broken.jpg" in caplog.text
    with pytest.raises(InputError, match="none of 6 pictures"):
        folder_gallery(tmp_path, detector=Known([]))
    with pytest.raises(InputError, match="not a folder"):
        folder_gallery(tmp_path / "absent")
