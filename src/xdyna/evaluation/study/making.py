"""Cases to a blinded study: anonymous copies that all went through one encoder, and a key that stays away."""

from __future__ import annotations

import datetime
import hashlib
import math
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdyna import __version__
from xdyna.errors import OptionError, OutputError
from xdyna.evaluation.study import study_set
from xdyna.evaluation.study.blinding import anonymous, keyed
from xdyna.evaluation.study.cases import StudyCase, read_cases
from xdyna.evaluation.study.options import MakeOptions
from xdyna.media import ClipWriter, probe, read_image, stream_frames, write_image, write_json
from xdyna.media.files import check_output, publish, remove, temporary_folder

Progress = Callable[[str, int, int | None], None]

LENGTHS_DIFFER = 0.25
"""Seconds from which on videos of different length are told to whoever makes the study."""
KEY_FRAMES = 12
"""Distance of key frames in the copies, so that the page finds any moment at once."""


@dataclass(frozen=True)
class MadeStudy:
    """What `make_study` wrote.

    Attributes:
        folder: may be given to whoever serves; key: may not.
        cases: how many; methods: their names.
        notes: what differs visibly between a case's videos.
    """

    folder: Path
    key: Path
    cases: int
    methods: tuple[str, ...]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """For people."""
        shown = [f"note: {note}" for note in self.notes[:10]]
        if len(self.notes) > len(shown):
            shown.append(f"note: and {len(self.notes) - len(shown)} more cases like these")
        return [
            f"{self.folder}: {self.cases} cases, {len(self.methods)} methods ({', '.join(self.methods)})",
            f"{self.key}: un-blinds it; keep it away from participants",
            *shown,
            f"Next: xdyna study serve {self.folder}",
        ]


def make_study(
    source: str | Path,
    folder: str | Path,
    *,
    options: MakeOptions | None = None,
    progress: Progress | None = None,
) -> MadeStudy:
    """Make a blinded, randomised study.

    Every video is written anew: H.264, no sound, no metadata, anonymous name, so that nothing but the pictures tells
    methods apart. A driving video is cut to its case's longest video. What participants see first is random by seed.

    Args:
        source: see `read_cases`.
        folder: the study's folder, which must not exist.
        options: see `MakeOptions`.
        progress: told (part, done, total).

    Raises:
        InputError, OptionError: see `read_cases`.
        OutputError: folder or key exist, or cannot be written.
    """
    options = options or MakeOptions()
    folder = Path(folder).expanduser()
    key = Path(options.key).expanduser() if options.key else study_set.key_beside(folder)
    if folder.resolve() in key.resolve().parents:
        raise OptionError("--key", f"{key} lies inside the study's folder", "Keep it where nobody serves it")
    for path in (folder, key):
        if path.exists():
            remedy = "Choose another name, or move it away; answers may hang on it, so it is never replaced"
            raise OutputError(path, "exists already", remedy)
        check_output(path)
    methods = [name.strip() for name in options.methods.split(",")] if options.methods else None
    cases = read_cases(source, methods=methods)
    seed = secrets.randbits(63) if options.seed is None else options.seed
    blind = _blind(cases, seed)
    temporary = temporary_folder(folder)
    try:
        (temporary / study_set.MEDIA).mkdir()
        notes = _copy(blind, temporary / study_set.MEDIA, options.crf, progress or (lambda *_: None))
        write_json(temporary / study_set.STUDY, _served(blind, seed, options.title))
        write_json(key, _key(blind, seed), overwrite=False)
        try:
            os.chmod(key, 0o600)
            publish(temporary, folder, overwrite=False)
        except BaseException:
            remove(key)
            raise
    except OSError as error:
        raise OutputError(
            folder, f"cannot be written ({error.strerror or error})", "Check the disk"
        ) from error
    finally:
        remove(temporary)
    return MadeStudy(folder, key, len(cases), tuple(cases[0].videos), tuple(notes))


@dataclass(frozen=True)
class _Blind:
    """A case and its anonymous names: of itself, of its files, of its videos by method."""

    case: StudyCase
    name: str
    reference: str
    driving: str
    videos: dict[str, str]


def _blind(cases: list[StudyCase], seed: int) -> list[_Blind]:
    blind = [
        _Blind(
            case,
            anonymous(seed, "case", case.name),
            anonymous(seed, "reference", case.name),
            anonymous(seed, "driving", case.name),
            {method: anonymous(seed, "video", case.name, method) for method in case.videos},
        )
        for case in cases
    ]
    # in the order of anonymous names: neither study.json nor the files' dates tell anything
    return sorted(blind, key=lambda each: each.name)


def _copy(blind: list[_Blind], media: Path, crf: int, progress: Progress) -> list[str]:
    """Write all files; returns notes about cases whose videos differ visibly."""
    notes, done = [], 0
    total = sum(2 + len(each.videos) for each in blind)
    for each in blind:
        picture = read_image(each.case.reference)
        write_image(media / f"{each.reference}.png", picture, ai_generated=False)
        progress("copies", done := done + 1, total)
        seconds: dict[str, float] = {}
        sizes: dict[str, tuple[int, int]] = {}
        for name, method in sorted((name, method) for method, name in each.videos.items()):
            seconds[method], sizes[method] = _copy_video(each.case.videos[method], media / f"{name}.mp4", crf)
            progress("copies", done := done + 1, total)
        longest = max(seconds.values())
        _copy_video(each.case.driving, media / f"{each.driving}.mp4", crf, longest=longest)
        progress("copies", done := done + 1, total)
        notes += _differences(each.case.name, seconds, sizes)
    return notes


def _copy_video(
    source: Path, path: Path, crf: int, *, longest: float | None = None
) -> tuple[float, tuple[int, int]]:
    """Returns seconds and (height, width) of what was written."""
    info = probe(source)
    limit = None if longest is None else max(1, math.ceil(longest * info.fps))
    size = (info.height, info.width)
    with ClipWriter(
        path, size=size, fps=info.fps, ai_generated=False, crf=crf, key_every=KEY_FRAMES
    ) as writer:
        for frame in stream_frames(source, limit=limit):
            writer.write(frame)
    return float(writer.frames / info.fps), size


def _differences(case: str, seconds: dict[str, float], sizes: dict[str, tuple[int, int]]) -> list[str]:
    notes = []
    if max(seconds.values()) - min(seconds.values()) > LENGTHS_DIFFER:
        times = ", ".join(f"{method} {value:.2f} s" for method, value in sorted(seconds.items()))
        notes.append(f"{case}: videos differ in length ({times}); shorter ones hold their last frame")
    if len(set(sizes.values())) > 1:
        shapes = ", ".join(f"{method} {width}x{height}" for method, (height, width) in sorted(sizes.items()))
        notes.append(f"{case}: videos differ in size ({shapes}); all are shown equally wide")
    return notes


def _served(blind: list[_Blind], seed: int, title: str) -> dict[str, Any]:
    return {
        "format": study_set.FORMAT,
        "study": anonymous(seed, "study", *(each.name for each in blind)),
        "title": title,
        # of the seed, and does not give it back: who serves can order cases and name none
        "order": keyed(str(seed), "orders"),
        "cases": [
            {
                "id": each.name,
                "reference": f"{each.reference}.png",
                "driving": f"{each.driving}.mp4",
                "videos": [{"id": name, "file": f"{name}.mp4"} for name in sorted(each.videos.values())],
            }
            for each in blind
        ],
    }


def _key(blind: list[_Blind], seed: int) -> dict[str, Any]:
    by_name = sorted(blind, key=lambda each: each.case.name)
    return {
        "format": study_set.KEY_FORMAT,
        "study": anonymous(seed, "study", *(each.name for each in blind)),
        "seed": seed,
        "methods": list(blind[0].case.videos),
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "xdyna": __version__,
        "cases": [
            {
                "id": each.name,
                "name": each.case.name,
                "reference": _source(each.case.reference),
                "driving": _source(each.case.driving),
                "videos": [
                    {"id": name, "method": method, **_source(each.case.videos[method])}
                    for method, name in each.videos.items()
                ],
            }
            for each in by_name
        ],
    }


def _source(path: Path) -> dict[str, str]:
    with open(path, "rb") as file:
        return {"source": str(path), "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
