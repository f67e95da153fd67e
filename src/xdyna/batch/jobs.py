"""The list of a batch: one clip a line.

Ours is JSON lines::

    {"image": "anna.jpg", "video": "dance.mp4", "output": "anna-dances", "steps": 8, "seed": 3}

with `image`, `video` (or `driving`), an optional `output` and any option of `xdyna animate` by its name; empty lines
and lines that begin with # are passed over. A JSON list of such objects will do as well. The official repository's
example.json is such a list with names of its own: image_path, target_videos, target_no_head_poses, caption.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdyna.errors import InputError, OptionError, XdynaError
from xdyna.media.files import existing_file
from xdyna.options import AnimateOptions, from_mapping

OUTPUTS = (".mp4", ".gif")
"""What a result may be."""

PATHS = ("keypoints", "reference_keypoints", "dwpose")
"""Options that are paths, taken from the list's folder as `image` and `video` are."""

OWN = ("image", "video", "driving", "output")

OFFICIAL = {
    "image_path": "image",
    "target_videos": "video",
    "target_no_head_poses": "keypoints",
    "caption": "prompt",
}
"""The official list's names and ours. Its pose videos are ready pictures, so they are used as they are."""

POSES = ("file", "video")
"""Where the poses of an official list come from: its pose videos, or found by us in its driving videos."""


@dataclass(frozen=True)
class Job:
    """One clip to make.

    Attributes:
        where: its place in the list, for messages: "jobs.jsonl:3".
        image, video: the inputs, absolute.
        output: the result's path.
        options: all settings.
    """

    where: str
    image: Path
    video: Path
    output: Path
    options: AnimateOptions


def read_jobs(
    path: str | Path,
    folder: str | Path,
    *,
    defaults: Mapping[str, Any] | None = None,
    poses: str = "file",
) -> list[Job]:
    """The clips of a list. Whether their inputs are there is not looked at.

    Args:
        path: the list.
        folder: where results go; an `output` is a path in it, by default IMAGE_VIDEO.mp4, numbered where two are the
            same.
        defaults: options by name for all clips that do not say otherwise.
        poses: one of `POSES`.

    Raises:
        InputError: the list cannot be read, or an entry has no picture or video, or an unusable `output`.
        OptionError: an unknown name or a value that is not allowed; the message names file and line.
    """
    path, folder = Path(path).expanduser(), Path(folder).expanduser()
    jobs: list[Job] = []
    taken: dict[Path, str] = {}
    for where, entry in _entries(path):
        if not isinstance(entry, dict):
            raise InputError(
                where, f"got {_short(entry)}, a clip is an object {{...}}", 'Begin with {"image": ...'
            )
        try:
            job = _job(where, entry, path, folder, defaults or {}, poses, taken)
        except OptionError as error:
            if error.subject == where:
                raise
            raise OptionError(where, f"{error.subject}: {error.problem}", error.remedy) from error
        taken[job.output.with_suffix("")] = where
        jobs.append(job)
    if not jobs:
        raise InputError(path, "names no clip", 'A line is {"image": "photo.jpg", "video": "dance.mp4"}')
    return jobs


def _entries(path: Path) -> Iterator[tuple[str, Any]]:
    """Every entry and its place."""
    existing_file(path, "a list of clips")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            path, f"cannot be read as text in UTF-8 ({error})", "Give a JSON-lines file"
        ) from error
    if text.lstrip().startswith("["):
        for number, entry in enumerate(_parsed(text, str(path)), start=1):
            yield f"{path}: clip {number}", entry
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield f"{path}:{number}", _parsed(line, f"{path}:{number}")


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            where, f"is not valid JSON (line {error.lineno}, column {error.colno}: {error.msg})", "Mend it"
        ) from None
    except (RecursionError, ValueError) as error:  # brackets by the thousand, numbers of as many digits
        raise InputError(where, f"is no JSON that can be read ({error})", "Mend it") from None


def _job(
    where: str,
    entry: dict[str, Any],
    path: Path,
    folder: Path,
    defaults: Mapping[str, Any],
    poses: str,
    taken: Mapping[Path, str],
) -> Job:
    official = "image_path" in entry
    if official:
        entry = _translated(where, entry, poses)
    known = {field.name for field in dataclasses.fields(AnimateOptions)}
    unknown = sorted(set(entry) - known - set(OWN))
    if unknown:
        known_names = ", ".join([*OWN, *sorted(known)])
        raise OptionError(where, f"unknown name {unknown[0]!r}", f"Known are: {known_names}")
    if "device" in entry:
        raise OptionError(
            where, "device: each worker has its own", "Choose with --gpus, --workers or --device"
        )
    if "video" in entry and "driving" in entry:
        raise InputError(where, "video and driving are two names of one thing", "Give one of them")
    # the official paths begin at the repository's root, the list lies in a folder of it
    roots = [path.parent, *(list(path.resolve().parents)[1:3] if official else [])]
    image = _path(where, "image", entry.get("image"), roots)
    video = _path(where, "video", entry.get("video", entry.get("driving")), roots)
    settings = dict(defaults) | {name: value for name, value in entry.items() if name in known}
    for name in PATHS:
        if entry.get(name) is not None:
            settings[name] = str(_path(where, name, entry[name], roots))
        elif settings.get(name) is not None:
            settings[name] = str(Path(settings[name]).expanduser().absolute())
    settings["model"] = _model(settings.get("model"), roots if "model" in entry else [Path()])
    output = _output(where, entry.get("output"), folder, taken, default=f"{image.stem}_{video.stem}")
    return Job(where, image, video, output, from_mapping(AnimateOptions, settings, source=where))


def _translated(where: str, entry: dict[str, Any], poses: str) -> dict[str, Any]:
    """An entry of the official list in our names."""
    settings = {OFFICIAL.get(name, name): value for name, value in entry.items()}
    if poses == "video":
        settings.pop("keypoints", None)
    elif settings.get("video") is None:
        # without S-Face the official run reads the pose video alone
        settings["video"] = settings.get("keypoints")
    if settings.get("prompt") is None:
        settings.pop("prompt", None)
    return settings


def _path(where: str, name: str, value: Any, roots: list[Path]) -> Path:
    """A path of the list, absolute: from the first root where it is, else from the first."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        problem = f"no {name} is named" if value is None else f"{name}: got {_short(value)}"
        raise InputError(where, problem, f'Give a path: "{name}": "..."')
    places = [(root / Path(value).expanduser()).absolute() for root in roots]
    return next((place for place in places if place.exists()), places[0])


def _model(name: Any, roots: list[Path]) -> Any:
    """A model's folder made absolute; other names, and values that are none, as they are."""
    if not isinstance(name, str) or not name:
        return "embedded" if name is None else name
    folder = next((place for root in roots if (place := root / Path(name).expanduser()).is_dir()), None)
    return name if folder is None or name == "embedded" else str(folder.absolute())


def _output(where: str, name: Any, folder: Path, taken: Mapping[Path, str], *, default: str) -> Path:
    """A result's path in the folder."""
    if name is None:
        number, output = 1, folder / f"{default}.mp4"
        while output.with_suffix("") in taken:
            number += 1
            output = folder / f"{default}-{number}.mp4"
        return output
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise InputError(where, f"output: got {_short(name)}", "Give a file's name")
    given = Path(name)
    if given.is_absolute() or ".." in given.parts or not given.name:
        raise InputError(where, f"output: {name!r} leads out of the folder of results", "Give a name in it")
    if given.suffix.lower() not in OUTPUTS:
        given = given.with_name(given.name + ".mp4")
    output = folder / given
    if output.with_suffix("") in taken:
        raise InputError(
            where, f"output: {name!r} is that of {taken[output.with_suffix('')]} too", "Give each its own"
        )
    return output


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def describe(error: XdynaError) -> str:
    """An error as the command line tells it."""
    return f"{type(error).__name__}: {error}"
