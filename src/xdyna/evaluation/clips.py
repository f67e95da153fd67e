"""Which clips there are to compare: folders of frames or videos, found by the layouts that people have.

A set is a folder; every clip in it has a name, and the same names in two sets are one pair. These layouts are told
apart by what lies in the folder:

* `videos`: ROOT/NAME.mp4 (or any other video);
* `folders`: ROOT/NAME/0001.png ..., and ROOT/NAME/SUB/0001.png ... where SUB is a word of `SUBFOLDERS`, as
  StableAnimator has case-1/images beside case-1/poses;
* `flat`: DisCo's, all frames of all clips in one folder: TiktokDance_00337_0010png.png is frame 10 of clip
  TiktokDance_00337. A folder of nothing but numbers (0001.png ...) is one clip of the folder's own name.

Frames of a clip are in the order of the numbers in their names.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xdyna.errors import InputError
from xdyna.media import count_frames, probe, read_clip, read_image
from xdyna.media.files import existing_file

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
VIDEOS = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".gif"})
SUBFOLDERS = ("images", "frames", "animated_images", "imgs", "rgb")
"""Where a clip's frames may lie within its folder, best first."""
SHOWN = 5
"""Names that an error lists before it says how many more there are."""

_FRAME_NUMBER = re.compile(r"(\d+)(?:png|jpg|jpeg)?$")
_FLAT = re.compile(r"^(?P<clip>.+?)[_-](?P<frame>\d+)(?:png|jpg|jpeg)?$")
_SQUARE = re.compile(r"_1x1(?=_|$)")


@dataclass(frozen=True)
class ClipFiles:
    """One clip on disk: a video, or frames.

    Attributes:
        name: what pairs it with the same clip of another set.
        files: one video, or the frames in order.
        is_video: which of the two.
    """

    name: str
    files: tuple[Path, ...]
    is_video: bool

    @property
    def path(self) -> Path:
        """What to name in a message: the video, or the frames' folder."""
        return self.files[0] if self.is_video else self.files[0].parent

    def count(self) -> int:
        """How many frames there are; a video is decoded for it."""
        return count_frames(self.files[0]) if self.is_video else len(self.files)

    def size(self) -> tuple[int, int]:
        """(height, width) of the first frame."""
        if self.is_video:
            info = probe(self.files[0])
            return info.height, info.width
        height, width = read_image(self.files[0]).shape[:2]
        return height, width

    def read(self, *, limit: int | None = None) -> np.ndarray:
        """The first `limit` frames, (f h w 3) uint8.

        Raises:
            InputError: a file cannot be read, a video holds less than `limit`, or the frames are not all of one size.
        """
        if self.is_video:
            clip = read_clip(self.files[0], limit=limit).frames
            if limit is not None and len(clip) < limit:  # the file's index promised more
                raise InputError(
                    self.files[0], f"is damaged: {len(clip)} of its first {limit} frames can be read",
                    "Export it again",
                )  # fmt: skip
            return clip
        frames: list[np.ndarray] = []
        for path in self.files[:limit]:
            frame = read_image(path)
            if frames and frame.shape != frames[0].shape:
                raise InputError(
                    path,
                    f"is {frame.shape[1]} x {frame.shape[0]} pixels, the clip's first frame "
                    f"{frames[0].shape[1]} x {frames[0].shape[0]}",
                    "Frames of one clip must have one size",
                )
            frames.append(frame)
        return np.stack(frames)

    def digest(self) -> str:
        """SHA-256 of the content, frame names left out.

        Raises:
            InputError: a file is missing (a link to nowhere), empty, unreadable, or no regular file.
        """
        found = hashlib.sha256()
        for path in self.files:
            with existing_file(path, "a video" if self.is_video else "a picture").open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        return found.hexdigest()

    def gaps(self, limit: int) -> tuple[int, ...]:
        """Distances of the first frames' numbers, where they are not all alike: (2, 1) for the frames 5, 7, 8.

        Empty for evenly numbered frames and for videos: nothing tells that a frame is missing in them.
        """
        if self.is_video:
            return ()
        numbers = [_number(path) for path in self.files[:limit]]
        steps = tuple(after - before for before, after in zip(numbers, numbers[1:], strict=False))
        return steps if len(set(steps)) > 1 else ()


def find_clips(root: str | Path, kind: str) -> dict[str, ClipFiles]:
    """The clips of a set, by name.

    Args:
        root: the set's folder.
        kind: what it is, for messages: "--pred".

    Raises:
        InputError: no such folder, nothing in it, or two clips of one name.
    """
    folder = Path(root)
    try:
        if not folder.is_dir():
            problem = "is a file" if folder.exists() else "no such folder"
            raise InputError(folder, problem, f"{kind} is a folder of videos or of folders of frames")
        found = _clips_within(folder)
    except OSError as error:
        raise InputError(folder, f"cannot be read ({error.strerror})", "Check the folder's path") from None
    if not found:
        raise InputError(
            folder,
            "holds neither videos nor folders of frames",
            f"{kind} is ROOT/CLIP.mp4 or ROOT/CLIP/0001.png",
        )
    clips: dict[str, ClipFiles] = {}
    for clip in found:
        if not _is_text(str(clip.path)):
            shown = str(clip.path).encode(errors="backslashreplace").decode()
            raise InputError(shown, "the name is not text in UTF-8", "Rename it")
        if clip.name in clips:
            raise InputError(
                clip.path,
                f"is a second clip called {clip.name!r} beside {clips[clip.name].path}",
                "Keep one of them",
            )
        clips[clip.name] = clip
    return clips


def check_names(
    pred: Mapping[str, ClipFiles], other: Mapping[str, ClipFiles], *, kind: str, partial: bool
) -> list[str]:
    """The names that two sets share, in order.

    Args:
        pred, other: the sets; `kind` says what the other is: "--truth".
        partial: clips that only one set has are left out instead of refused.

    Raises:
        InputError: nothing is shared, or clips are missing and `partial` is False.
    """
    shared = [name for name in sorted(pred) if name in other]
    missing, extra = sorted(set(other) - set(pred)), sorted(set(pred) - set(other))
    if not shared:
        raise InputError(
            kind, f"has no clip of a name that --pred has ({listed(other)} against {listed(pred)})",
            "Name clips alike in both folders",
        )  # fmt: skip
    if (missing or extra) and not partial:
        parts = [f"--pred lacks {listed(missing)}"] if missing else []
        parts += [f"{kind} lacks {listed(extra)}"] if extra else []
        raise InputError(
            kind, "; ".join(parts), "Complete the folders, or leave such clips out with --partial"
        )
    return shared


def listed(names: Iterable[str]) -> str:
    """The first few names, and how many more."""
    every = list(names)
    rest = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + rest


def _clips_within(folder: Path) -> list[ClipFiles]:
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    found = [_video(path) for path in entries if path.suffix.lower() in VIDEOS and path.is_file()]
    for path in entries:
        if path.is_dir() and (frames := _frames_within(path)):
            found.append(ClipFiles(path.name, frames, is_video=False))
    pictures = [path for path in entries if path.suffix.lower() in PICTURES and path.is_file()]
    return _flat_clips(folder, pictures) if pictures and not found else found


def _is_text(name: str) -> bool:
    """Whether a name of the file system is text: Python stands in for other bytes with lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _video(path: Path) -> ClipFiles:
    return ClipFiles(path.stem, (path,), is_video=True)


def _frames_within(folder: Path) -> tuple[Path, ...]:
    """The frames of one clip's folder, or of the sub-folder that holds them."""
    places = [folder / name for name in SUBFOLDERS if (folder / name).is_dir()]
    for place in [*places, folder]:
        pictures = [p for p in place.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith(".")]
        numbered = [path for path in pictures if _FRAME_NUMBER.search(path.stem)]
        if numbered:  # reference.png beside the frames has no number
            return in_order(numbered)
    return ()


def in_order(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Frames by the last number in their names."""

    return tuple(sorted(paths, key=lambda path: (_number(path), path.name)))


def _number(path: Path) -> int:
    found = _FRAME_NUMBER.search(path.stem)
    return int(found[1]) if found else -1


def _flat_clips(folder: Path, pictures: list[Path]) -> list[ClipFiles]:
    groups: dict[str, list[Path]] = {}
    for path in pictures:
        match = _FLAT.match(path.stem)
        if match:
            # TiktokDance_00337_1x1_0010 and TiktokDance_00337_0010 are frames of one clip
            groups.setdefault(_SQUARE.sub("", match["clip"]), []).append(path)
        elif path.stem.isdigit():
            groups.setdefault(folder.name, []).append(path)
    return [ClipFiles(name, in_order(paths), is_video=False) for name, paths in sorted(groups.items())]
