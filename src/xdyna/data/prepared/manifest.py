"""The manifest: one line of JSON a clip.

::

    {"video": "clips/walk-1f0c-0.mp4", "kind": "human", "start": 0, "end": 240, "fps": "30000/1001",
     "size": [896, 512], "keypoints": "keypoints/walk-1f0c-0.npz", "mask": "masks/walk-1f0c-0.npz",
     "person": 1.0, "face": 0.98, "people": 1, "hash": "sha256:...", "source": "/videos/walk.mov"}

`video` and `kind` suffice for a scene; a human clip also needs `keypoints`. Paths are relative to the manifest's
folder, or absolute. `start` and `end` count frames of `video`, `end` not included; what is absent is read from the
video. Anything else in a line is an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from xdyna.data.prepared.frames import open_frames
from xdyna.data.prepared.options import KINDS
from xdyna.errors import InputError
from xdyna.media.files import existing_file, whole_file

NAME = "manifest.jsonl"
"""A prepared folder's manifest."""


@dataclass(frozen=True)
class ClipRow:
    """One clip.

    Attributes:
        video: a video file, or a folder of pictures.
        kind: "human" or "scene".
        start, end: its frames in `video`, `end` not included.
        fps: frames a second.
        size: (height, width) of the frames, in whose pixels keypoints and masks are.
        keypoints: an .npz with the person's keypoints, one frame for each of the clip's (`caches.read_track`).
        mask: an .npz with the person's masks (`caches.MaskFile`).
        faces: a video with another person's face in this one's place and expression, a frame for each of the
            clip's: the face box above, the patches below. Only made clips have one.
        person: share of the frames in which the person was found.
        face: share of the frames in which the face was found.
        people: how many people were seen in a tenth of the frames or more.
        hash: sha256 of `video`.
        source: where the clip came from, when `video` is a copy.
    """

    video: Path
    kind: str
    start: int
    end: int
    fps: Fraction
    size: tuple[int, int]
    keypoints: Path | None = None
    mask: Path | None = None
    faces: Path | None = None
    person: float | None = None
    face: float | None = None
    people: int | None = None
    hash: str | None = None
    source: str | None = None

    def __len__(self) -> int:
        return self.end - self.start


_PATHS = ("video", "keypoints", "mask", "faces")
_TYPES: dict[str, tuple[type, ...]] = {
    "video": (str,), "kind": (str,), "start": (int,), "end": (int,), "fps": (str, int, float), "size": (list,),
    "keypoints": (str,), "mask": (str,), "faces": (str,), "person": (int, float), "face": (int, float),
    "people": (int,), "hash": (str,), "source": (str,),
}  # fmt: skip
_REMEDY = "Mend the line, or write the manifest again with `xdyna prepare`"


def read_manifest(path: str | Path) -> list[ClipRow]:
    """Read a manifest, strictly.

    Args:
        path: the file, or the folder that `xdyna prepare` or `xdyna synth` wrote.

    Raises:
        InputError: no such manifest or no clip in it; or a line that is no JSON, has an unknown key, lacks one,
            has a value that makes no sense, or names a file that is not there. The message names file and line.
    """
    path = Path(path).expanduser()
    path = existing_file(path / NAME if path.is_dir() else path, "a manifest")
    rows = []
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    rows.append(_row(line, path.parent, f"{path}, line {number}"))
    except UnicodeDecodeError:
        raise InputError(path, "is not text in UTF-8, so it is no manifest", _REMEDY) from None
    if not rows:
        raise InputError(path, "holds no clip", "Run `xdyna prepare` with videos")
    return rows


def manifest_hash(path: str | Path) -> str:
    """sha256 of a manifest's bytes, for the record of a run; the videos' own hashes stand in its lines."""
    path = Path(path).expanduser()
    path = existing_file(path / NAME if path.is_dir() else path, "a manifest")
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def write_manifest(path: str | Path, rows: Iterable[ClipRow]) -> Path:
    """Write a manifest, complete or not at all; an existing one is replaced.

    Raises:
        OutputError: it cannot be written.
    """
    path = Path(path).expanduser().absolute()
    text = "".join(json.dumps(to_json(row, path.parent), ensure_ascii=False) + "\n" for row in rows)
    with whole_file(path, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def to_json(row: ClipRow, folder: Path) -> dict[str, Any]:
    """A row as its line's object, paths below `folder` relative to it."""
    value: dict[str, Any] = {}
    for name in _TYPES:
        entry = getattr(row, name)
        if entry is None:
            continue
        if name in _PATHS:
            full = Path(entry).absolute()
            entry = full.relative_to(folder).as_posix() if full.is_relative_to(folder) else str(full)
        elif name == "fps":
            entry = int(entry) if entry.denominator == 1 else str(entry)
        value[name] = list(entry) if name == "size" else entry
    return value


def _row(line: str, folder: Path, where: str) -> ClipRow:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(where, f"is not valid JSON ({error.msg}, column {error.colno})", _REMEDY) from None
    return from_json(value, folder, where)


def from_json(value: Any, folder: Path, where: str) -> ClipRow:
    """A line's object as a row.

    Args:
        value: the object.
        folder: what its paths are relative to.
        where: how messages call the line.

    Raises:
        InputError: see `read_manifest`.
    """
    if not isinstance(value, dict):
        raise InputError(where, "is not a JSON object", _REMEDY)
    unknown = [name for name in value if name not in _TYPES]
    if unknown:
        raise InputError(where, f"unknown key {unknown[0]!r}; known are {', '.join(_TYPES)}", _REMEDY)
    for name, entry in value.items():
        if not isinstance(entry, _TYPES[name]) or isinstance(entry, bool):
            raise InputError(where, f"{name} is {entry!r}, of a wrong type", _REMEDY)
    for name in ("video", "kind"):
        if name not in value:
            raise InputError(where, f"lacks {name!r}", _REMEDY)
    if value["kind"] not in KINDS:
        raise InputError(where, f"kind is {value['kind']!r}, it must be human or scene", _REMEDY)
    if value["kind"] == "human" and "keypoints" not in value:
        raise InputError(where, "a human clip needs keypoints", "Run `xdyna prepare` on the video")
    paths = {name: folder / value[name] for name in _PATHS if name in value}
    for name, path in paths.items():
        if not path.exists():
            raise InputError(
                where, f"its {name} {str(path)!r} does not exist", "Bring the file back, or prepare again"
            )
    return _checked({**value, **paths}, where)


def _checked(value: Mapping[str, Any], where: str) -> ClipRow:
    """The row, its absent numbers read from the video."""
    entries = dict(value)
    if not all(name in entries for name in ("end", "fps", "size")):
        frames = open_frames(entries["video"])
        entries = {"size": list(frames.size), "fps": frames.fps, **entries}
        entries.setdefault("end", frames.count())
    entries.setdefault("start", 0)
    try:
        fps = Fraction(entries["fps"]).limit_denominator(100_000)
    except (ValueError, ZeroDivisionError, OverflowError):
        fps = Fraction(0)
    if fps <= 0:
        raise InputError(
            where, f"fps is {entries['fps']!r}, it must be above 0, as 25 or '30000/1001'", _REMEDY
        )
    size = entries["size"]
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise InputError(where, f"size is {size!r}, it must be [height, width]", _REMEDY)
    if not 0 <= entries["start"] < entries["end"]:
        raise InputError(where, f"start is {entries['start']} and end {entries['end']}: no frames", _REMEDY)
    for name in ("person", "face"):
        if name in entries and not 0 <= entries[name] <= 1:
            raise InputError(where, f"{name} is {entries[name]}, it must be a share from 0 to 1", _REMEDY)
    return ClipRow(**{**entries, "fps": fps, "size": (size[0], size[1])})
