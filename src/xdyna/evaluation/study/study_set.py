"""The two files that `xdyna study make` writes beside the media: what may be served, and the key that un-blinds.

::

    DIR/study.json       title, anonymous names, the secret of the participants' orders
    DIR/media/           pictures and videos under anonymous names
    DIR/answers.sqlite   made by `serve`
    DIR.key.json         seed, and for every anonymous name its case and method; never read by `serve`
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdyna.errors import InputError
from xdyna.evaluation.study.blinding import shuffled
from xdyna.media.files import read_json

FORMAT, KEY_FORMAT = "xdyna-study/1", "xdyna-study-key/1"
STUDY, MEDIA, ANSWERS = "study.json", "media", "answers.sqlite"
LEAST_VIDEOS, MOST_VIDEOS = 2, 5

_NAME = re.compile(r"[0-9a-f]{16}")
_FILE = re.compile(r"[0-9a-f]{16}\.(?:png|mp4)")
_SECRET = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class BlindCase:
    """A case as participants get to see it.

    Attributes:
        name: anonymous.
        reference, driving: files in the media folder.
        videos: anonymous name -> file.
    """

    name: str
    reference: str
    driving: str
    videos: dict[str, str]


@dataclass(frozen=True)
class BlindStudy:
    """A study without its key.

    Attributes:
        folder: where it lies.
        study: its anonymous name, shared with key and answers.
        title: for participants.
        order: secret of the orders.
        cases: by anonymous name.
    """

    folder: Path
    study: str
    title: str
    order: str
    cases: dict[str, BlindCase]

    @property
    def files(self) -> dict[str, Path]:
        """Every servable media file: name -> path."""
        return {name: self.folder / MEDIA / name for case in self.cases.values() for name in _files(case)}

    @property
    def videos(self) -> dict[str, str]:
        """Every rated video's anonymous name -> its case's."""
        return {video: case.name for case in self.cases.values() for video in case.videos}

    def ordered(self, participant: str) -> list[tuple[BlindCase, list[str]]]:
        """Cases in a participant's order, each with its videos' names in that participant's order."""
        return [
            (self.cases[name], shuffled(self.order, self.cases[name].videos, participant, name))
            for name in shuffled(self.order, self.cases, participant)
        ]


@dataclass(frozen=True)
class Key:
    """What un-blinds a study.

    Attributes:
        videos: anonymous video -> (case's name, method).
        cases, methods: names in the order of the input.
    """

    videos: dict[str, tuple[str, str]]
    cases: tuple[str, ...]
    methods: tuple[str, ...]


def key_beside(folder: Path) -> Path:
    """Where the key of a study lies when nothing else is said: beside the folder, not in it."""
    folder = folder.absolute()
    return folder.with_name(f"{folder.name}.key.json")


def load_study(folder: str | Path) -> BlindStudy:
    """Read DIR/study.json; every name in it must be one that `make` gives, so none can lead out of the folder.

    Raises:
        InputError: no such folder, no study, or something in it is not as `make` writes it.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise InputError(folder, "is no folder", "Make one: xdyna study make CASES -o DIR")
    path = folder / STUDY
    data = _object(path, FORMAT, {"format", "study", "title", "order", "cases"})
    cases: dict[str, BlindCase] = {}
    seen: set[str] = set()
    for entry in _list(path, data, "cases"):
        case = _case(path, entry)
        names = [case.name, *case.videos, *_files(case)]
        if len({*names}) != len(names) or seen & {*names}:
            raise _not_ours(path, f"names something twice in case {case.name}")
        seen |= {*names}
        cases[case.name] = case
    if not cases:
        raise _not_ours(path, "holds no cases")
    return BlindStudy(
        folder, _text(path, data, "study", _NAME), _text(path, data, "title"),
        _text(path, data, "order", _SECRET), cases,
    )  # fmt: skip


def load_key(folder: Path | None, key: str | Path | None, study: BlindStudy) -> Key:
    """Read a study's key: the file named, or the one beside the folder.

    Raises:
        InputError: it is missing, damaged, or another study's.
    """
    path = Path(key).expanduser() if key is not None else key_beside(folder or study.folder)
    if not path.exists():
        raise InputError(path, "the key of this study is not there", "Say where it is with --key JSON")
    data = _object(path, KEY_FORMAT, {"format", "study", "seed", "methods", "cases", "made", "xdyna"})
    if data["study"] != study.study:
        raise InputError(path, "is the key of another study", "Say where the right one is with --key JSON")
    videos: dict[str, tuple[str, str]] = {}
    names = []
    try:
        methods = tuple(str(method) for method in data["methods"])
        for case in data["cases"]:
            names.append(str(case["name"]))
            for video in case["videos"]:
                videos[str(video["id"])] = (names[-1], str(video["method"]))
    except (TypeError, KeyError) as error:
        raise _not_ours(path, f"lacks {error}") from None
    if set(videos) != set(study.videos) or {method for _, method in videos.values()} - set(methods):
        raise _not_ours(path, "does not name the study's videos")
    return Key(videos, tuple(names), methods)


def _case(path: Path, entry: Any) -> BlindCase:
    _fields(path, entry, {"id", "reference", "driving", "videos"}, "a case")
    videos: dict[str, str] = {}
    for video in _list(path, entry, "videos"):
        _fields(path, video, {"id", "file"}, "a video")
        videos[_text(path, video, "id", _NAME)] = _text(path, video, "file", _FILE)
    if not LEAST_VIDEOS <= len(videos) <= MOST_VIDEOS:
        raise _not_ours(
            path, f"has a case of {len(videos)} videos, {LEAST_VIDEOS} to {MOST_VIDEOS} are shown"
        )
    return BlindCase(
        _text(path, entry, "id", _NAME), _text(path, entry, "reference", _FILE),
        _text(path, entry, "driving", _FILE), videos,
    )  # fmt: skip


def _files(case: BlindCase) -> Iterator[str]:
    yield case.reference
    yield case.driving
    yield from case.videos.values()


def _object(path: Path, form: str, names: set[str]) -> dict[str, Any]:
    data = read_json(path)
    if not isinstance(data, dict) or data.get("format") != form:
        raise _not_ours(path, f"is not of the format {form}")
    _fields(path, data, names, "the file")
    return data


def _fields(path: Path, value: Any, names: set[str], what: str) -> None:
    if not isinstance(value, dict) or set(value) != names:
        raise _not_ours(path, f"{what} must have exactly the fields {', '.join(sorted(names))}")


def _list(path: Path, value: dict[str, Any], name: str) -> list[Any]:
    if not isinstance(value[name], list):
        raise _not_ours(path, f"{name} is no list")
    return value[name]


def _text(path: Path, value: dict[str, Any], name: str, form: re.Pattern[str] | None = None) -> str:
    text = value[name]
    if not isinstance(text, str) or (form is not None and not form.fullmatch(text)):
        raise _not_ours(path, f"has {str(text)[:40]!r} as {name}")
    return text


def _not_ours(path: Path, problem: str) -> InputError:
    return InputError(path, problem, "Make the study again: xdyna study make CASES -o DIR")
