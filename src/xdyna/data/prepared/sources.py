"""What `xdyna prepare` starts from: videos and folders of pictures, named one by one or by a data set's layout."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from xdyna.data.prepared.frames import PICTURES, VIDEOS
from xdyna.data.prepared.options import PrepareOptions
from xdyna.errors import InputError, OptionError


@dataclass(frozen=True)
class Source:
    """A video, or a part of one.

    Attributes:
        path: a video file or a folder of pictures, absolute.
        kind: "human" or "scene".
        start: first frame.
        end: the frame after the last; None for all.
    """

    path: Path
    kind: str
    start: int = 0
    end: int | None = None

    @property
    def name(self) -> str:
        """A name for files: readable, and different for every other source."""
        identity = hashlib.sha256(f"{self.path}\0{self.kind}\0{self.start}\0{self.end}".encode()).hexdigest()[
            :8
        ]
        readable = re.sub(r"[^A-Za-z0-9]+", "-", self.path.name if self.path.is_dir() else self.path.stem)
        return f"{readable.strip('-')[:40] or 'clip'}-{identity}"


def list_sources(places: Sequence[str | Path], options: PrepareOptions) -> list[Source]:
    """Every source that the places hold, each once, in order.

    Args:
        places: what the layout asks for: videos and folders, or a data set's folder or lists.
        options: `layout`, `kind` and `split` are read.

    Raises:
        InputError: a place that does not exist, is not as the layout has it, or holds no video.
        OptionError: no kind for a layout that does not imply one.
    """
    from xdyna.data.prepared.layouts import DEFAULT_KINDS, LAYOUT_READERS

    if not places:
        raise InputError(
            "xdyna prepare", "no videos were named", "xdyna prepare VIDEOS... -o DIR --kind human"
        )
    kind = options.kind or DEFAULT_KINDS.get(options.layout)
    if kind is None:
        raise OptionError("--kind", "must be given", "--kind human or --kind scene")
    paths = [Path(os.path.abspath(Path(place).expanduser())) for place in places]
    for path in paths:
        if not path.exists():
            raise InputError(path, "no such file or folder", "Check the path")
    if options.layout == "files":
        found: Iterable[Source] = (Source(video, kind) for path in paths for video in videos_in(path))
    else:
        found = LAYOUT_READERS[options.layout](paths, kind, options.split)
    sources = list(dict.fromkeys(found))
    if not sources:
        looked = ", ".join(str(path) for path in paths)
        raise InputError(
            looked, "no videos found", f"Check the path, --layout ({options.layout}) and --split"
        )
    return sources


def videos_in(path: Path) -> Iterator[Path]:
    """The videos at or below a path; a folder with pictures and no videos counts as one video."""
    if not path.is_dir():
        yield path
        return
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    videos = [entry for entry in entries if entry.suffix.lower() in VIDEOS and entry.is_file()]
    if not videos and any(entry.suffix.lower() in PICTURES for entry in entries):
        yield path
        return
    yield from videos
    for entry in entries:
        if entry.is_dir():
            yield from videos_in(entry)
