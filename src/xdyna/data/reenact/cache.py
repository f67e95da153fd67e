"""Re-enacted faces beside the prepared clip, so that training need not warp: one small file a clip and person.

A file holds, for every frame, the part of the picture that S-Face can cut (JPEG, at most `SIDE` pixels a side), where
it lies, and the landmarks. It knows what it was made of: another source, seed or clip makes it anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from xdyna.conditions.face import increased_box
from xdyna.data.face_source import FaceSource
from xdyna.data.reenact.packed import Packed, pack
from xdyna.errors import InputError, XdynaError
from xdyna.media.files import whole_file

log = logging.getLogger(__name__)

SIDE = 256
"""Longest side of a stored picture; S-Face's patches are a quarter of it."""

_MARGIN = 0.1
_VERSION = 1


@dataclass(frozen=True)
class CacheJob:
    """One file to make.

    Attributes:
        path: of the file, ".npz".
        clip: a name of the clip that changes when its frames do, e.g. its path and size.
        load: gives frames (f h w 3) uint8 and landmarks (f 68 3); called only when the file has to be made.
        source: who supplies the face.
        source_key: what the source's answers depend on: its name, options and gallery.
        seed: of the person and the augmentation.
    """

    path: Path
    clip: str
    load: Callable[[], tuple[np.ndarray, np.ndarray]]
    source: FaceSource
    source_key: str
    seed: int

    @property
    def key(self) -> str:
        """What the file must say to be used again."""
        parts = json.dumps([_VERSION, self.clip, self.source_key, self.seed])
        return hashlib.sha256(parts.encode()).hexdigest()


def cache_faces(job: CacheJob) -> bool:
    """Make a job's file unless it is there, whole and of the same key.

    Returns:
        Whether it was made now.

    Raises:
        OutputError: it cannot be written.
        XdynaError: what the source and `load` raise.
    """
    if _key_of(job.path) == job.key:
        return False
    frames, landmarks = job.load()
    pictures, placed = job.source(frames, landmarks, generator=np.random.default_rng(job.seed))
    boxes = np.zeros((len(pictures), 4), np.int32)
    parts = []
    last = None
    for index, picture in enumerate(pictures):
        box = _kept_box(placed[index], picture.shape[:2]) or last
        # A frame whose face was lost shows the last one's place.
        last = box
        boxes[index] = box or (0, 0, 0, 0)
        left, top, right, bottom = box or (0, 0, 1, 1)
        parts.append(_shrunk(picture[top:bottom, left:right]))
    packed = pack(parts, "jpg")
    with whole_file(job.path, overwrite=True) as temporary, open(temporary, "wb") as file:
        np.savez(
            file, key=np.array(job.key), size=np.array(pictures.shape[1:3]), boxes=boxes,
            landmarks=placed.astype(np.float32), data=packed["data"], ends=packed["ends"],
        )  # fmt: skip
    return True


def cache_all(jobs: Iterable[CacheJob]) -> Iterator[tuple[CacheJob, str]]:
    """Work through jobs; a clip that fails is reported and the others go on. Stopped and called again, it resumes.

    Yields:
        each job when done, and "made", "there" or the error's message.
    """
    for job in jobs:
        try:
            state = "made" if cache_faces(job) else "there"
        except XdynaError as error:
            log.warning("No re-enacted face: %s", error)
            state = str(error)
        yield job, state


class CachedFaces:
    """A file of `cache_faces`.

    Args:
        path: the file.

    Attributes:
        landmarks: (f 68 3) float32 in pixels of the clip.
        size: (height, width) of the clip's frames.

    Raises:
        InputError: missing, or not such a file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with open(self.path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                self._packed = Packed(file["data"], file["ends"], source=str(path))
                self._boxes, self.landmarks = file["boxes"], file["landmarks"]
                self.size = (int(file["size"][0]), int(file["size"][1]))
        except FileNotFoundError:
            raise InputError(path, "no such file", "Make it with cache_faces") from None
        except Exception as error:  # numpy and zipfile raise many kinds on damaged files
            raise InputError(
                path, f"holds no re-enacted faces ({error})", "Delete it and make it again"
            ) from None

    def __len__(self) -> int:
        return len(self._packed)

    def picture(self, index: int) -> np.ndarray:
        """(h w 3) uint8 of the clip's size: the face in its place, black elsewhere."""
        picture = np.zeros((*self.size, 3), np.uint8)
        left, top, right, bottom = (int(n) for n in self._boxes[index])
        if right > left and bottom > top:
            part = self._packed[index]
            picture[top:bottom, left:right] = cv2.resize(part, (right - left, bottom - top))
        return picture


def _key_of(path: Path) -> str | None:
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            return str(file["key"])
    except Exception:  # missing, half copied, another kind of file: it is made again
        return None


def _kept_box(landmarks: np.ndarray, size: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    seen = landmarks[landmarks[:, 2] > 0, :2]
    if len(seen) < 34:
        return None
    left, top, right, bottom = increased_box((*seen.min(0), *seen.max(0)))
    margin = round(_MARGIN * (right - left))
    left, top = max(left - margin, 0), max(top - margin, 0)
    right, bottom = min(right + margin, size[1]), min(bottom + margin, size[0])
    return (left, top, right, bottom) if left < right and top < bottom else None


def _shrunk(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    scale = SIDE / max(height, width)
    if scale >= 1:
        return picture
    return cv2.resize(
        picture, (max(round(width * scale), 1), max(round(height * scale), 1)), interpolation=cv2.INTER_AREA
    )
