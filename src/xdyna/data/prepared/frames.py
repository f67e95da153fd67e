"""One door to the frames of a source, be it a video file or a folder of pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from xdyna import media
from xdyna.errors import InputError
from xdyna.media.seek import FrameReader

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
VIDEOS = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".gif"})

FOLDER_FPS = Fraction(30)
"""Frame rate taken for a folder of pictures, which does not say."""

_REMEMBERED = 2048


class Frames(Protocol):
    """Frames that can be read by number."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of every frame."""

    @property
    def fps(self) -> Fraction:
        """Frames a second."""

    @property
    def seekable(self) -> bool:
        """Whether any frame is found without decoding all before it."""

    def count(self) -> int:
        """How many frames there are."""

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        """Frames in any order, (f h w 3) uint8."""

    def stream(self, numbers: Iterable[int]) -> Iterator[np.ndarray]:
        """Frames whose numbers rise, one by one, (h w 3) uint8."""


class VideoFrames:
    """The frames of a video file."""

    def __init__(self, path: Path, *, sequential: bool = False) -> None:
        self._reader = FrameReader(path, sequential=sequential)
        self.path = path
        self.size = self._reader.info.height, self._reader.info.width
        self.fps = self._reader.info.fps
        self.seekable = self._reader.seekable

    def count(self) -> int:
        """How many frames there are."""
        return media.count_frames(self.path) if self._reader.frames is None else self._reader.frames

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        """Frames in any order, (f h w 3) uint8."""
        return self._reader.read(numbers)

    def stream(self, numbers: Iterable[int]) -> Iterator[np.ndarray]:
        """Frames whose numbers rise, one by one."""
        return self._reader.stream(numbers)


@dataclass(frozen=True)
class PictureFolder:
    """A folder of pictures, in the order of their names (numbers by value)."""

    path: Path
    files: tuple[Path, ...]
    size: tuple[int, int]
    fps: Fraction = FOLDER_FPS
    seekable: bool = True

    @staticmethod
    def open(path: Path) -> PictureFolder:
        """Look at a folder.

        Raises:
            InputError: no pictures in it, or the first is unreadable.
        """
        files = picture_files(path)
        if not files:
            raise InputError(
                path, "holds no pictures", f"Give a folder of {', '.join(sorted(PICTURES))} files"
            )
        height, width = media.read_image(files[0]).shape[:2]
        return PictureFolder(path, tuple(files), (height, width))

    def count(self) -> int:
        """How many frames there are."""
        return len(self.files)

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        """Frames in any order, (f h w 3) uint8."""
        return np.stack([self._picture(int(number)) for number in numbers])

    def stream(self, numbers: Iterable[int]) -> Iterator[np.ndarray]:
        """Frames one by one."""
        return (self._picture(number) for number in numbers)

    def _picture(self, number: int) -> np.ndarray:
        if not 0 <= number < len(self.files):
            raise InputError(
                self.path,
                f"there is no frame number {number}; it has {len(self.files)} pictures",
                "Write the manifest again",
            )
        picture = media.read_image(self.files[number])
        if picture.shape[:2] != self.size:
            height, width = self.size
            raise InputError(
                self.files[number],
                f"is {picture.shape[1]} x {picture.shape[0]} pixels, the folder's first picture {width} x {height}",
                "All frames of a clip must have one size",
            )
        return picture


def open_frames(path: str | Path, *, sequential: bool = False) -> Frames:
    """The frames of a video file or of a folder of pictures.

    The tables of the last videos opened are remembered for as long as the file does not change.

    Args:
        path: the file or folder.
        sequential: decode a video from its beginning each time, leaving damaged frames out (`FrameReader`).

    Raises:
        InputError: neither, or it cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return PictureFolder.open(path)
    try:
        state = path.stat()
    except OSError:
        raise InputError(path, "no such file", "Check the path") from None
    return _video(path, sequential, state.st_mtime_ns, state.st_size)


@lru_cache(_REMEMBERED)
def _video(path: Path, sequential: bool, _changed: int, _bytes: int) -> VideoFrames:
    return VideoFrames(path, sequential=sequential)


def picture_files(folder: Path) -> list[Path]:
    """The pictures that lie in a folder itself, 2.png before 10.png."""
    files = [
        file for file in folder.iterdir() if file.suffix.lower() in PICTURES and not file.name.startswith(".")
    ]
    return sorted(files, key=lambda file: _natural(file.name))


def _natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    parts: list[tuple[int, int, str]] = []
    digits = ""
    for letter in [*name, ""]:
        if letter.isdecimal() and letter.isascii():
            digits += letter
            continue
        if digits:
            parts.append((0, int(digits), ""))
            digits = ""
        if letter:
            parts.append((1, 0, letter))
    return parts, name


def content_hash(path: Path) -> str:
    """sha256 of a file's bytes; of a folder, of its pictures' bytes in order."""
    digest = hashlib.sha256()
    for file in picture_files(path) if path.is_dir() else [path]:
        with open(file, "rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"
