"""Faces of other people: cut from pictures, from clips, or drawn by the synthetic world."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from xdyna.conditions.people import Detector
from xdyna.data.reenact.expression import at_rest, lid_gaps, mouth_gap
from xdyna.data.reenact.geometry import MIRRORED, read_faces
from xdyna.data.reenact.packed import Packed, pack
from xdyna.errors import InputError, XdynaError
from xdyna.media.files import whole_file
from xdyna.media.image import read_image

log = logging.getLogger(__name__)

FACE_SIDE = 176
"""Longer side of the box round the 68 landmarks in a gallery's pictures, in pixels; smaller faces stay as they are."""

_CUT = 3.6
"""Side of a gallery's picture in sides of the face's box: S-Face cuts 2.7 of them, and heads turn and move."""

_CANDIDATES = 16
"""How many frames of a clip are cut to find the sharpest."""

_SMALLEST, _LARGEST_YAW = 36.0, np.radians(38)
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

SYNTHETIC_SEED = 77_000_000
"""Where the seeds of the synthetic gallery begin: below `HELD_OUT_SEED`, so nobody held out is in it."""


@dataclass(frozen=True)
class Face:
    """A face that can be re-enacted.

    Attributes:
        name: whose face; the clip's or the file's.
        picture: (h w 3) uint8, the head and what is round it.
        landmarks: (68 2) pixels of `picture`.
        mask: (h w) uint8, 255 on the person, or None.
    """

    name: str
    picture: np.ndarray
    landmarks: np.ndarray
    mask: np.ndarray | None = None

    @property
    def yaw(self) -> float:
        """How far the head is turned, radians; positive to the picture's right."""
        return float(read_faces(self.landmarks[None]).pose.yaw[0])

    def mirrored(self) -> Face:
        """The same face seen in a mirror."""
        flipped = (self.picture.shape[1] - self.landmarks[MIRRORED, 0], self.landmarks[MIRRORED, 1])
        return replace(
            self, picture=np.ascontiguousarray(self.picture[:, ::-1]), landmarks=np.stack(flipped, -1),
            mask=None if self.mask is None else np.ascontiguousarray(self.mask[:, ::-1]),
        )  # fmt: skip


def cut_face(
    name: str, picture: np.ndarray, landmarks: np.ndarray, *, mask: np.ndarray | None = None
) -> Face:
    """Cut a face out of a picture, with room for turns, not larger than `FACE_SIDE`.

    Args:
        name: whose face.
        picture: (h w 3) uint8.
        landmarks: (68 2 or 3) pixels of `picture`.
        mask: (h w) uint8, 255 on the person.
    """
    xy = np.asarray(landmarks, np.float64)[:, :2]
    low, high = xy.min(0), xy.max(0)
    side, centre = float((high - low).max()), (low + high) / 2
    scale = min(FACE_SIDE / max(side, 1e-6), 1.0)
    pixels = max(round(_CUT * side * scale), 16)
    shift = pixels / 2 - centre * scale

    def cut(image: np.ndarray) -> np.ndarray:
        left, top = (int(n) for n in np.floor(centre - _CUT * side / 2))
        right, bottom = (int(n) for n in np.ceil(centre + _CUT * side / 2))
        height, width = image.shape[:2]
        part = image[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
        borders = (max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0))
        part = cv2.copyMakeBorder(part, *borders, cv2.BORDER_REPLICATE)
        return cv2.resize(
            part, (pixels, pixels), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        )

    return Face(name, cut(picture), xy * scale + shift, None if mask is None else cut(mask))


def face_problem(landmarks: np.ndarray) -> str:
    """Why a face cannot be a source, or "" when it can.

    Args:
        landmarks: (68 3) pixels and scores of the picture it is cut from.
    """
    if not (landmarks[:, 2] > 0).all() or not np.isfinite(landmarks).all():
        return "not all 68 landmarks were found"
    side = float(np.ptp(landmarks[:, :2], axis=0).max())
    if side < _SMALLEST:
        return f"the face is {side:.0f} pixels large; {_SMALLEST:.0f} are needed"
    yaw = float(read_faces(landmarks[None]).pose.yaw[0])
    if abs(yaw) > _LARGEST_YAW:
        return f"the head is turned by {abs(np.degrees(yaw)):.0f} degrees"
    if _eyes_open(landmarks) < 0.11:
        return "the eyes are closed"
    if _mouth_open(landmarks) > 0.4:
        return "the mouth is wide open"
    return ""


def _eyes_open(landmarks: np.ndarray) -> float:
    points = at_rest(landmarks)
    return float(lid_gaps(points).mean() / max(points[39, 0] - points[36, 0], 0.1))


def _mouth_open(landmarks: np.ndarray) -> float:
    points = at_rest(landmarks)
    return float(mouth_gap(points) / max(points[64, 0] - points[60, 0], 0.1))


def clip_face(
    name: str, frames: Sequence[np.ndarray] | np.ndarray, landmarks: np.ndarray, *,
    mask_of: Callable[[int], np.ndarray] | None = None,
) -> Face | None:  # fmt: skip
    """The best face of a clip: large, looking ahead, mouth shut and eyes open; None when no frame will do.

    Args:
        name: of the clip or the person: `Gallery.without` takes it out again.
        frames: (f h w 3) uint8, or anything that gives frame i as `frames[i]`.
        landmarks: (f 68 3) pixels, score.
        mask_of: the person's mask (h w) uint8 of frame i.
    """
    found = []
    sizes = np.ptp(landmarks[..., :2], axis=1).max(-1)
    for index, points in enumerate(landmarks):
        if not face_problem(points):
            yaw = abs(float(read_faces(points[None]).pose.yaw[0]))
            quality = (
                min(sizes[index] / FACE_SIDE, 1) - yaw - _mouth_open(points) + min(_eyes_open(points), 0.25)
            )
            found.append((quality, index))
    if not found:
        return None
    cuts = {i: cut_face(name, frames[i], landmarks[i]) for _, i in sorted(found)[-_CANDIDATES:]}
    # Of the good ones the sharpest: quick motion blurs.
    sharpness = {i: _sharpness(face) for i, face in cuts.items()}
    best = max(sharpness, key=lambda i: sharpness[i])
    return (
        cuts[best] if mask_of is None else cut_face(name, frames[best], landmarks[best], mask=mask_of(best))
    )


def _sharpness(face: Face) -> float:
    """Mean strength of edges in the face's box, in gray values; of a scaled face, so that sizes compare."""
    (left, top), (right, bottom) = face.landmarks.min(0).astype(int), face.landmarks.max(0).astype(int)
    part = cv2.cvtColor(face.picture[max(top, 0) : bottom + 1, max(left, 0) : right + 1], cv2.COLOR_RGB2GRAY)
    return float(
        np.abs(cv2.Laplacian(cv2.resize(part, (48, 48), interpolation=cv2.INTER_AREA), cv2.CV_32F)).mean()
    )


@dataclass(frozen=True)
class Gallery:
    """People to choose from.

    Attributes:
        faces: at least one, unless left empty by `without`.
    """

    faces: tuple[Face, ...]

    def __len__(self) -> int:
        return len(self.faces)

    def __add__(self, other: Gallery) -> Gallery:
        """Both galleries' faces."""
        return Gallery(self.faces + other.faces)

    def without(self, names: Collection[str]) -> Gallery:
        """The gallery without these people: of a clip made from its own faces, the person in the clip."""
        return Gallery(tuple(face for face in self.faces if face.name not in names))

    def draw(self, generator: np.random.Generator, *, yaw: float = 0.0) -> Face:
        """A face at random, mirrored at random or so that it is turned the way `yaw` (radians) is.

        Raises:
            InputError: the gallery is empty.
        """
        if not self.faces:
            raise InputError(
                "face gallery", "has no face to choose", "Give a folder of pictures of more people"
            )
        face = self.faces[int(generator.integers(len(self.faces)))]
        flip, turned = bool(generator.integers(2)), face.yaw
        if min(abs(turned), abs(yaw)) > np.radians(8):
            flip = turned * yaw < 0
        return face.mirrored() if flip else face

    def save(self, path: str | Path) -> Path:
        """Write one .npz that `load` reads, pictures as JPEG.

        Raises:
            OutputError: it cannot be written.
        """
        pictures = pack([face.picture for face in self.faces], "jpg", quality=95)
        empty = np.zeros((1, 1), np.uint8)
        masks = pack([empty if face.mask is None else face.mask for face in self.faces], "png")
        with whole_file(path, overwrite=True) as temporary, open(temporary, "wb") as file:
            np.savez(
                file, names=np.array([face.name for face in self.faces]),
                landmarks=np.stack([face.landmarks for face in self.faces]).astype(np.float32),
                picture_data=pictures["data"], picture_ends=pictures["ends"],
                mask_data=masks["data"], mask_ends=masks["ends"],
            )  # fmt: skip
        return Path(path)

    @staticmethod
    def load(path: str | Path) -> Gallery:
        """Read what `save` wrote.

        Raises:
            InputError: missing, or not a gallery.
        """
        try:
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                pictures = Packed(file["picture_data"], file["picture_ends"], source=str(path))
                masks = Packed(file["mask_data"], file["mask_ends"], source=str(path))
                names, landmarks = file["names"], file["landmarks"].astype(np.float64)
                faces = [
                    Face(str(names[i]), pictures[i], landmarks[i], masks[i] if masks[i].size > 1 else None)
                    for i in range(len(names))
                ]
        except FileNotFoundError:
            raise InputError(path, "no such file", "Check the path") from None
        except Exception as error:  # numpy and zipfile raise many kinds on damaged files
            raise InputError(
                path, f"is not a gallery of faces ({error})", "Make it with Gallery.save"
            ) from None
        return Gallery(tuple(faces))


def folder_gallery(folder: str | Path, *, detector: Detector | None = None) -> Gallery:
    """The faces of a folder of pictures, one person a picture.

    Pictures without a usable face are left out with a line in the log.

    Args:
        folder: its PNG, JPEG, WebP and BMP files are read, in order of their names.
        detector: None takes MediaPipe, whose masks let the background be changed.

    Raises:
        InputError: no folder, or no usable face in it.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise InputError(folder, "is not a folder", "Name a folder with pictures of faces")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _PICTURES)
    faces, problems = [], []
    for path in paths:
        try:
            face = _detected(path, detector)
        except XdynaError as error:
            problems.append(str(error))
            log.warning("Left out of the face gallery: %s", error)
            continue
        faces.append(face)
    if not faces:
        why = f"; {problems[0]}" if problems else ""
        raise InputError(
            folder, f"none of {len(paths)} pictures shows a usable face{why}", "Add portraits that look ahead"
        )
    return Gallery(tuple(faces))


def _detected(path: Path, detector: Detector | None) -> Face:
    if detector is None:
        from xdyna.conditions.detect import make_detector

        detector = make_detector("mediapipe", still=True, max_people=1, masks=True)
    picture = read_image(path)
    people = next(iter(detector.stream([picture])), [])
    if not people:
        raise InputError(path, "nobody was found in it")
    person = max(people, key=lambda p: (p.box[2] - p.box[0]) * (p.box[3] - p.box[1]))
    problem = face_problem(person.keypoints.face[0])
    if problem:
        raise InputError(path, problem)
    return cut_face(path.stem, picture, person.keypoints.face[0], mask=person.mask)


def synthetic_gallery(count: int = 32, *, seed: int = SYNTHETIC_SEED, size: int = 448) -> Gallery:
    """People of the synthetic world, at rest and from near; needs nothing from outside. Repeatable.

    Args:
        count: how many people.
        seed: of the first.
        size: of the rendered frames, pixels.
    """
    import torch

    from xdyna.data.synthetic import render, sample_params

    faces: list[Face] = []
    for first in range(seed, seed + 20 * max(count, 1), 4):
        if len(faces) >= count:
            break
        params = sample_params(first, 4, frames=0, human_share=1.0)
        calm = dict(params.motion)
        for name in ("framing", "rest", "reach", "sit", "step", "blink_phase"):
            calm[name] = torch.zeros_like(calm[name])
        # Lids are open at the beginning of a blink's period.
        batch = render(
            params.identity, calm, params.foreign, params.scene, torch.zeros(4, 1), (size, size), maps=False
        )
        pictures = (batch.frames[:, 0].permute(0, 2, 3, 1).numpy() * 255 + 0.5).astype(np.uint8)
        masks = (batch.mask[:, 0, 0].numpy() * 255 + 0.5).astype(np.uint8)
        landmarks = batch.face[:, 0].numpy()
        faces += [
            cut_face(f"synthetic {first}.{i}", pictures[i], landmarks[i], mask=masks[i])
            for i in range(4)
            if not face_problem(landmarks[i])
        ]
    return Gallery(tuple(faces[:count]))


def gallery_of(faces: Iterable[Face | None]) -> Gallery:
    """A gallery of what `clip_face` found in several clips, without the None.

    Raises:
        InputError: nothing was found.
    """
    found = tuple(face for face in faces if face is not None)
    if not found:
        raise InputError("face gallery", "no clip shows a usable face", "Give a folder of pictures of faces")
    return Gallery(found)
