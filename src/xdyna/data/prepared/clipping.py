"""What the processes of `xdyna prepare` do: plan a source's clips, then make each clip's files.

Each step ends with a small record under `records/`, written last and whole, so that whatever interrupts the work
costs at most the clips in hand.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from xdyna import media
from xdyna.data.prepared.caches import write_masks, write_track
from xdyna.data.prepared.frames import Frames, content_hash, open_frames
from xdyna.data.prepared.manifest import ClipRow, to_json
from xdyna.data.prepared.options import PrepareOptions
from xdyna.data.prepared.person import Found, follow
from xdyna.data.prepared.shots import find_shots
from xdyna.data.prepared.sources import Source
from xdyna.errors import InputError, XdynaError
from xdyna.media.files import read_json, write_json

VERSION = 1
"""Of the records and of what is found; another number makes everything anew."""

CRF = 12
"""Quality of rewritten clips (`ClipWriter`): 12 is beyond what eyes tell apart."""

KEY_EVERY = 12
"""Frames between the key frames of rewritten clips."""


class _LeftOut(Exception):
    """A clip that will not be in the manifest, and why."""


@dataclass(frozen=True)
class Job:
    """A source and where its clips go.

    Attributes:
        source: the video.
        folder: the prepared folder, absolute.
        options: of the run.
    """

    source: Source
    folder: Path
    options: PrepareOptions

    @property
    def plan_file(self) -> Path:
        """The record of the plan."""
        return self.folder / "records" / self.source.name / "plan.json"

    def clip_file(self, number: int) -> Path:
        """The record of a clip."""
        return self.folder / "records" / self.source.name / f"{number}.json"

    def fingerprint(self) -> str:
        """Of the source and of all options that the result depends on."""
        options = self.options
        try:
            state = self.source.path.stat()
            file = (state.st_mtime_ns, 0 if self.source.path.is_dir() else state.st_size)
        except OSError:
            file = (0, -1)
        chosen = (
            options.cuts, options.min_seconds, options.max_seconds, options.rewrite, options.detector,
            options.masks, options.min_score, options.min_person, options.min_height, options.max_people,
        )  # fmt: skip
        return hashlib.sha256(repr((VERSION, self.source, file, chosen)).encode()).hexdigest()[:16]

    def plan(self) -> dict[str, Any] | None:
        """The plan on record, unless it is of another file or of other options."""
        return _record(self.plan_file, self.fingerprint())

    def clip(self, number: int) -> dict[str, Any] | None:
        """The record of a clip, if it is of this plan and its files are there."""
        record = _record(self.clip_file(number), self.fingerprint())
        row = {} if record is None else record.get("row", {})
        names = [row[name] for name in ("video", "keypoints", "mask") if name in row]
        return record if all((self.folder / name).exists() for name in names) else None


def _record(path: Path, fingerprint: str) -> dict[str, Any] | None:
    try:
        record = read_json(path)
    except InputError:
        return None
    return record if isinstance(record, dict) and record.get("fingerprint") == fingerprint else None


def plan_source(job: Job) -> str | None:
    """Look for shots and settle the clips; writes the plan.

    Returns:
        What went wrong that another run may not meet again; None otherwise.
    """
    source, path = job.source, job.plan_file
    plan: dict[str, Any] = {"fingerprint": job.fingerprint(), "source": source.path, "kind": source.kind}
    try:
        frames, shots, seekable = _shots(source, cuts=job.options.cuts)
        kept, short = _cut_to_length(shots, frames.fps, job.options)
        plan |= {
            "fps": frames.fps, "size": frames.size, "seekable": seekable, "hash": content_hash(source.path),
            "clips": kept, "short": short,
        }  # fmt: skip
    except InputError as error:
        plan["error"] = _reason(error, source)
    except XdynaError:
        raise
    except Exception as error:  # a decoder's own, on one of many files
        return f"{type(error).__name__}: {error}"
    write_json(path, plan)
    return None


def _reason(error: InputError, source: Source) -> str:
    return error.problem if error.subject == str(source.path) else f"{error.subject}: {error.problem}"


def _shots(source: Source, *, cuts: bool) -> tuple[Frames, list[tuple[int, int]], bool]:
    """The source's frames, its shots, and whether clips can be found in it by seeking."""
    frames = open_frames(source.path)
    count = frames.count()
    end = count if source.end is None else min(count, source.end)
    if source.start >= end:
        raise InputError(source.path, f"has {count} frames, so none from number {source.start} on")
    if not cuts:
        return frames, [(source.start, end)], frames.seekable
    # Decoded in order and not by seeking, since that is what tells whether the video is whole.
    is_whole_video = not source.path.is_dir() and (source.start, end) == (0, count)
    stream = media.stream_frames(source.path) if is_whole_video else frames.stream(range(source.start, end))
    shots, seen = find_shots(stream)
    seekable = frames.seekable and (not is_whole_video or seen == count)
    return frames, [(source.start + low, source.start + high) for low, high in shots], seekable


def _cut_to_length(
    shots: list[tuple[int, int]], fps: Fraction, options: PrepareOptions
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Clips of the allowed length, and the shots that are too short for one."""
    least = math.ceil(options.min_seconds * fps)
    most = max(least, int(options.max_seconds * fps), 1)
    kept, short = [], []
    for low, high in shots:
        if high - low < least:
            short.append((low, high))
            continue
        parts = math.ceil((high - low) / most)
        edges = [low + (high - low) * part // parts for part in range(parts + 1)]
        kept += list(zip(edges[:-1], edges[1:], strict=True))
    return kept, short


@dataclass(frozen=True)
class ClipTask:
    """Clips of one source that are to be made, in one pass over its frames.

    Attributes:
        job: the source.
        numbers: places in the plan's list of clips, rising.
    """

    job: Job
    numbers: tuple[int, ...]


def make_clips(task: ClipTask) -> tuple[int, str | None]:
    """Make the clips' files and records.

    Returns:
        How many frames were gone through, and what went wrong that another run may not meet again.
    """
    job, plan = task.job, task.job.plan()
    assert plan is not None
    clips = [plan["clips"][number] for number in task.numbers]
    total = sum(high - low for low, high in clips)
    try:
        frames = open_frames(job.source.path, sequential=not plan["seekable"])
        stream = frames.stream(chain.from_iterable(range(low, high) for low, high in clips))
        for number, (low, high) in zip(task.numbers, clips, strict=True):
            own = islice(stream, high - low)
            record: dict[str, Any] = {"fingerprint": plan["fingerprint"]}
            try:
                record["row"] = to_json(_clip(job, plan, number, own), job.folder)
            except _LeftOut as reason:
                record["left_out"] = str(reason)
            except InputError as error:
                record["left_out"] = _reason(error, job.source)
            write_json(job.clip_file(number), record)
            for _ in own:  # what a clip that was left out did not look at
                pass
    except XdynaError:
        raise
    except Exception as error:
        return total, f"{type(error).__name__}: {error}"
    return total, None


def _clip(job: Job, plan: dict[str, Any], number: int, frames: Iterator[np.ndarray]) -> ClipRow:
    low, high = plan["clips"][number]
    name, folder, options = f"{job.source.name}-{number}", job.folder, job.options
    copied = options.rewrite is not None or not plan["seekable"]
    size = _copy_size(plan["size"], options.rewrite) if copied else (plan["size"][0], plan["size"][1])
    video = folder / "clips" / f"{name}.mp4" if copied else job.source.path
    found = None
    with ExitStack() as stack:
        writer = None
        if copied:
            writer = stack.enter_context(
                media.ClipWriter(
                    video,
                    size=size,
                    fps=Fraction(plan["fps"]),
                    overwrite=True,
                    ai_generated=False,
                    crf=CRF,
                    key_every=KEY_EVERY,
                )
            )

        def seen() -> Iterator[np.ndarray]:
            for frame in frames:
                picture = frame if frame.shape[:2] == size else _resized(frame, size)
                if writer is not None:
                    writer.write(picture)
                yield picture

        if job.source.kind == "human":
            found = follow(seen(), options=options, source=str(job.source.path))
            _check(found, options)
        elif copied:
            for _ in seen():
                pass
    row = ClipRow(
        video=video,
        kind=job.source.kind,
        start=0 if copied else low,
        end=high - low if copied else high,
        fps=Fraction(plan["fps"]),
        size=size,
        hash=content_hash(video) if copied else plan["hash"],
        source=f"{job.source.path}#{low}-{high}" if copied else None,
    )
    if found is None:
        return row
    keypoints, mask = folder / "keypoints" / f"{name}.npz", folder / "masks" / f"{name}.npz"
    write_track(keypoints, found.keypoints)
    if found.masks is not None:
        write_masks(mask, found.masks, size=row.size)
    return replace(
        row,
        keypoints=keypoints,
        mask=None if found.masks is None else mask,
        person=round(found.person, 4),
        face=round(found.face, 4),
        people=found.people,
    )


def _check(found: Found, options: PrepareOptions) -> None:
    if found.person < options.min_person:
        raise _LeftOut(
            f"shows the person in {found.person:.0%} of its frames (--min-person {options.min_person})"
        )
    if found.height < options.min_height:
        raise _LeftOut(
            f"its person is {found.height:.0%} of the frame high (--min-height {options.min_height})"
        )
    if options.max_people is not None and found.people > options.max_people:
        raise _LeftOut(f"shows {found.people} people (--max-people {options.max_people})")


def _copy_size(size: Sequence[int], shorter: int | None) -> tuple[int, int]:
    """(height, width) of a copied clip: even, as 4:2:0 needs it, its shorter side at most `shorter`."""
    scale = 1.0 if shorter is None else min(1.0, shorter / min(size))
    height, width = (max(2, int(side * scale + 1e-6) // 2 * 2) for side in size)
    return height, width


def _resized(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    smaller = size[0] <= frame.shape[0]
    method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return cv2.resize(frame, (size[1], size[0]), interpolation=method)
