"""The folders and lists of known data sets (evaluation.md 5.1 and 3), as sources for `xdyna prepare`.

Their own pose videos, masks and cameras are not read: what training needs is found anew, the same way for all.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from xdyna.data.prepared.frames import PICTURES, VIDEOS, picture_files
from xdyna.data.prepared.sources import Source
from xdyna.errors import InputError
from xdyna.media.files import existing_file

DEFAULT_KINDS = {
    "humanvid": "human",
    "ubc": "human",
    "tiktok": "human",
    "moore": "human",
    "animatediff": "scene",
}
"""What the videos of a layout show when --kind is not given."""

TIKTOK_TEST = range(335, 341)
"""The videos of the TikTok data set that are kept for evaluation (DisCo's choice)."""

_TIKTOK_FRAMES = ("images", "image", "frames", "")
_TEST_NAMES = ("test", "disco_test_set", "test_set", "val", "eval")
_TRAIN_NAMES = ("train", "train_set", "training_video")


def humanvid(places: list[Path], kind: str, split: str) -> Iterator[Source]:
    """HumanVid: its folders (`pexels-*/videos`, `{tiktok,ubc}/{train,test}/videos`, `.../mp4`), or its json lists."""
    for place in places:
        if place.is_file():
            yield from _listed(place, kind)
            continue
        for folder in sorted(
            path for path in place.rglob("*") if path.name in ("videos", "mp4") and path.is_dir()
        ):
            if _in_split(folder.relative_to(place).parts, split):
                yield from (Source(path, kind) for path in _clips_of(folder))


def ubc(places: list[Path], kind: str, split: str) -> Iterator[Source]:
    """UBC-Fashion: `{train,test}/*.mp4` (or `.../videos/*.mp4`), beside `train_dwpose` and its like."""
    for place in places:
        _folder(place, "ubc")
        folders = [
            path for path in sorted(place.rglob("*")) if path.is_dir() and path.name in ("train", "test")
        ]
        for folder in folders or [place]:
            if folders and not _in_split((folder.name,), split):
                continue
            inner = folder / "videos"
            yield from (Source(path, kind) for path in _clips_of(inner if inner.is_dir() else folder))


def tiktok(places: list[Path], kind: str, split: str) -> Iterator[Source]:
    """TikTok: a numbered folder of frames a video (`00001/images/*.png`), also in `train_set` and `disco_test_set`."""
    for place in places:
        _folder(place, "tiktok")
        for video in sorted(path for path in place.rglob("*") if path.is_dir() and path.name.isdecimal()):
            parts = video.relative_to(place).parts[:-1]
            named = [part for part in parts if part in (*_TEST_NAMES, *_TRAIN_NAMES)]
            if any(part not in named and "pose" in part for part in parts):
                continue  # pose_map_train_set and its like mirror the frames' folders
            test = any(part in _TEST_NAMES for part in named) if named else int(video.name) in TIKTOK_TEST
            if split != "all" and test != (split == "test"):
                continue
            for name in _TIKTOK_FRAMES:
                if (video / name).is_dir() and picture_files(video / name):
                    yield Source(video / name, kind)
                    break


def moore(places: list[Path], kind: str, split: str) -> Iterator[Source]:
    """Moore-AnimateAnyone: json lists of {"video_path", "kps_path"}; `split` says nothing, the lists are the parts."""
    for place in places:
        if place.is_dir():
            raise InputError(place, "is a folder", "Give the json lists, e.g. data/fashion_meta.json")
        yield from _listed(place, kind)


def animatediff(places: list[Path], kind: str, split: str) -> Iterator[Source]:
    """AnimateDiff (WebVid): csv lists `videoid,name,page_dir`, then the folder with VIDEOID.mp4."""
    lists = [place for place in places if place.suffix.lower() == ".csv"]
    folders = [place for place in places if place not in lists]
    if not lists:
        raise InputError(places[0], "is no .csv list", "Give results.csv and the folder with its videos")
    for place in lists:
        for line, row in _csv_rows(place):
            name = (row.get("videoid") or "").strip()
            if not name:
                raise InputError(f"{place}, line {line}", "has no videoid", "Give AnimateDiff's csv")
            page = (row.get("page_dir") or "").strip()
            roots = folders or [place.parent, place.parent / "videos"]
            tried = [base / f"{name}.mp4" for root in roots for base in (root, root / page)]
            yield Source(next((path for path in tried if path.is_file()), tried[0]), kind)


LAYOUT_READERS: dict[str, Callable[[list[Path], str, str], Iterator[Source]]] = {
    "humanvid": humanvid,
    "ubc": ubc,
    "tiktok": tiktok,
    "moore": moore,
    "animatediff": animatediff,
}
"""For each layout what turns its places, a kind and a split into sources. Videos that are listed but not there are
sources, too: preparing reports them."""


def _folder(place: Path, layout: str) -> None:
    if not place.is_dir():
        raise InputError(place, "is not a folder", f"Give the root folder of the data set ({layout})")


def _in_split(parts: tuple[str, ...], split: str) -> bool:
    return split == "all" or any(part in _TEST_NAMES for part in parts) == (split == "test")


def _clips_of(folder: Path) -> Iterator[Path]:
    """The videos and the folders of frames that lie in a folder itself."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        is_video = path.is_file() and path.suffix.lower() in VIDEOS
        if is_video or (path.is_dir() and any(p.suffix.lower() in PICTURES for p in path.iterdir())):
            yield path


def _listed(path: Path, kind: str) -> Iterator[Source]:
    """The entries of a json list: video_path and, in HumanVid's, start_frame and end_frame."""
    path = existing_file(path, "a json list")
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(path, f"is not valid JSON ({error})", "Give the data set's json list") from None
    if not isinstance(entries, list):
        raise InputError(path, "is not a list", 'Give a list of {"video_path": ..., "kps_path": ...}')
    for number, entry in enumerate(entries):
        where = f"{path}, entry {number}"
        if not isinstance(entry, dict) or not isinstance(entry.get("video_path"), str):
            raise InputError(where, "has no video_path", "Give the data set's json list")
        yield Source(
            _resolved(entry["video_path"], path),
            kind,
            _frame(entry, "start_frame", where) or 0,
            _frame(entry, "end_frame", where),
        )


def _frame(entry: dict[str, Any], name: str, where: str) -> int | None:
    value = entry.get(name)
    if value is not None and (not isinstance(value, int) or value < 0):
        raise InputError(where, f"{name} is {value!r}, it must be a frame's number", "Mend the list")
    return value


def _resolved(text: str, listed_in: Path) -> Path:
    """A path of a list, which may be relative to the list's folder, one above it, or the current folder."""
    path = Path(text).expanduser()
    if path.is_absolute():
        return path
    bases = [listed_in.parent, listed_in.parent.parent, Path.cwd()]
    return next((base / path for base in bases if (base / path).exists()), bases[0] / path)


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    path = existing_file(path, "a csv list")
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if "videoid" not in (reader.fieldnames or []):
            raise InputError(path, "its first line does not name videoid", "Give AnimateDiff's csv list")
        try:
            for row in reader:
                yield reader.line_num, row
        except csv.Error as error:
            raise InputError(path, f"line {reader.line_num} is no csv ({error})", "Mend the list") from None
