"""What a study is made of: cases with a reference, a driving video and every method's video."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdyna.errors import InputError, OptionError, XdynaError
from xdyna.evaluation.study.study_set import LEAST_VIDEOS, MOST_VIDEOS
from xdyna.media import probe, read_image, read_json
from xdyna.media.files import existing_file

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
VIDEOS = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v", ".gif")
REFERENCE, DRIVING = "reference", "driving"
LIST_COLUMNS = ("case", REFERENCE, DRIVING, "method", "video")
MOST_NAME, MOST_SHOWN = 64, 12


@dataclass(frozen=True)
class StudyCase:
    """One case of the input.

    Attributes:
        name: the case's.
        reference: a picture; driving: a video.
        videos: method's name -> video.
    """

    name: str
    reference: Path
    driving: Path
    videos: dict[str, Path]


def read_cases(source: str | Path, *, methods: Sequence[str] | None = None) -> list[StudyCase]:
    """Find and check the cases of a study; every picture and video is opened.

    Args:
        source: a folder with one folder a case, each with reference.png, driving.mp4 and METHOD.mp4; or a list:
            .json, `[{"case": ..., "reference": ..., "driving": ..., "videos": {METHOD: ...}}]`, or .csv with the
            columns case, reference, driving, method, video. Paths in lists count from the list's folder.
        methods: which to take; None for all that any case has.

    Returns:
        cases in order of name (folders) or of the list, all with the same methods in the same order.

    Raises:
        InputError: everything that is missing or unreadable, by name.
        OptionError: a method that no case has, or not two to five methods.
    """
    source = Path(source).expanduser()
    found = list(_from_folder(source)) if source.is_dir() else list(_from_list(source))
    if not found:
        raise InputError(
            source, "holds no cases", f"Put a folder a case there: {REFERENCE}.png, {DRIVING}.mp4, METHOD.mp4"
        )
    available = sorted({method for _, files in found for method in files} - {REFERENCE, DRIVING})
    chosen = _chosen(source, available, methods)
    _check_complete(source, found, chosen)
    cases = [
        StudyCase(name, files[REFERENCE], files[DRIVING], {method: files[method] for method in chosen})
        for name, files in found
    ]
    _check_readable(source, cases)
    return cases


Found = tuple[str, dict[str, Path]]
"""A case's name and its files: "reference", "driving" and methods."""


def _from_folder(source: Path) -> Iterator[Found]:
    for folder in sorted(path for path in source.iterdir() if path.is_dir() and path.name[0] != "."):
        files: dict[str, Path] = {}
        for path in sorted(folder.iterdir()):
            wanted = PICTURES if path.stem == REFERENCE else VIDEOS
            if path.name[0] == "." or not path.is_file() or path.suffix.lower() not in wanted:
                continue
            if path.stem in files:
                problem = f"stands beside {files[path.stem].name}: which of the two is meant?"
                raise InputError(path, problem, "Remove or rename one")
            files[path.stem] = path
        yield folder.name, files


def _from_list(source: Path) -> Iterator[Found]:
    path = existing_file(source, "a folder or a list of cases")
    if path.suffix.lower() == ".json":
        rows = _json_rows(path)
    elif path.suffix.lower() == ".csv":
        rows = _csv_rows(path)
    else:
        raise InputError(path, "is neither a folder nor a .json or .csv list", "See xdyna study make --help")
    cases: dict[str, dict[str, Path]] = {}
    for case, name, file in rows:
        files = cases.setdefault(case, {})
        place = path.parent / Path(file).expanduser()
        if files.setdefault(name, place) != place:
            raise InputError(path, f"gives case {case!r} two files for {name!r}", "Keep one of the two")
    yield from cases.items()


def _json_rows(path: Path) -> Iterator[tuple[str, str, str]]:
    data: Any = read_json(path)
    seen = set()
    fields = {"case", REFERENCE, DRIVING, "videos"}
    for place, entry in enumerate(data if isinstance(data, list) else [None], start=1):
        if not isinstance(entry, dict) or set(entry) != fields or not isinstance(entry["videos"], dict):
            problem = f"entry {place} is not an object with exactly the fields {', '.join(sorted(fields))}"
            raise InputError(path, problem, 'videos is an object: {"METHOD": "file.mp4", ...}')
        texts = [entry["case"], entry[REFERENCE], entry[DRIVING], *entry["videos"].values()]
        if not all(isinstance(text, str) and text for text in texts):
            raise InputError(path, f"entry {place} has a name or path that is no text, or empty")
        if entry["case"] in seen:
            raise InputError(
                path, f"entry {place} names case {entry['case']!r} again", "Give it another name"
            )
        seen.add(entry["case"])
        yield entry["case"], REFERENCE, entry[REFERENCE]
        yield entry["case"], DRIVING, entry[DRIVING]
        for method, file in entry["videos"].items():
            _check_method(path, method)
            yield entry["case"], method, file


def _csv_rows(path: Path) -> Iterator[tuple[str, str, str]]:
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), strict=True)
        if sorted(reader.fieldnames or ()) != sorted(LIST_COLUMNS):
            problem = f"has the columns {', '.join(reader.fieldnames or ('none',))[:200]}"
            raise InputError(path, problem, f"Needed are exactly: {', '.join(LIST_COLUMNS)}")
        seen: dict[tuple[str, str], int] = {}
        for row in reader:
            line = reader.line_num
            if set(row) != set(LIST_COLUMNS) or not all(row.values()):
                raise InputError(path, f"line {line} has an empty field, or not {len(LIST_COLUMNS)} fields")
            _check_method(path, row["method"])
            if (before := seen.setdefault((row["case"], row["method"]), line)) != line:
                problem = f"line {line} names the same case and method as line {before}"
                raise InputError(path, problem, "Keep one of the two")
            yield row["case"], REFERENCE, row[REFERENCE]
            yield row["case"], DRIVING, row[DRIVING]
            yield row["case"], row["method"], row["video"]
    except UnicodeDecodeError:
        raise InputError(path, "is not text in UTF-8", "Save it as CSV, UTF-8") from None
    except csv.Error as error:
        raise InputError(path, f"is no CSV ({error})", "Mend the file") from None


def _check_method(path: Path, method: str) -> None:
    if method in (REFERENCE, DRIVING):
        raise InputError(path, f"calls a method {method!r}, which names a file of every case", "Rename it")


def _chosen(source: Path, available: list[str], methods: Sequence[str] | None) -> list[str]:
    chosen = available if methods is None else list(methods)
    unknown = [method for method in chosen if method not in available]
    if unknown:
        found = f"found are {', '.join(available) or 'none'}"
        raise OptionError("--methods", f"no case has a video of {unknown[0]!r}; {found}")
    if len(set(chosen)) != len(chosen):
        raise OptionError("--methods", "names a method twice")
    if not LEAST_VIDEOS <= len(chosen) <= MOST_VIDEOS:
        problem = f"has {len(chosen)} methods ({', '.join(chosen[:MOST_SHOWN]) or 'no video'})"
        remedy = f"{LEAST_VIDEOS} to {MOST_VIDEOS} are shown side by side; choose some with --methods A,B,C"
        raise InputError(source, problem, remedy)
    for method in chosen:
        if len(method) > MOST_NAME or not method.isprintable():
            raise InputError(
                source, f"the method {method[:MOST_NAME]!r} has a name too long or not printable"
            )
    return chosen


def _check_complete(source: Path, found: list[Found], methods: list[str]) -> None:
    missing = []
    for name, files in found:
        for wanted in (REFERENCE, DRIVING, *methods):
            suffix = ".png" if wanted == REFERENCE else ".mp4"
            if wanted not in files:
                missing.append(f"{name}/{wanted}{suffix}")
            elif not files[wanted].is_file():
                missing.append(str(files[wanted]))
    if missing:
        remedy = "Every case needs a video of every method; leave methods out with --methods"
        raise InputError(source, f"{len(missing)} files are missing: {_some(missing)}", remedy)


def _check_readable(source: Path, cases: list[StudyCase]) -> None:
    problems: list[XdynaError] = []
    for case in cases:
        for path in (case.reference, case.driving, *case.videos.values()):
            try:
                if path == case.reference:
                    read_image(path)
                else:
                    probe(path)
            except XdynaError as error:
                problems.append(error)
    if problems:
        texts = [f"{problem.subject} {problem.problem}" for problem in problems]
        raise InputError(source, f"{len(texts)} files cannot be used: {_some(texts)}", "Make them again")


def _some(texts: list[str]) -> str:
    shown = "; ".join(texts[:MOST_SHOWN])
    return shown + (f"; and {len(texts) - MOST_SHOWN} more" if len(texts) > MOST_SHOWN else "")
