"""`xdyna prepare`: videos to a folder that training reads.

::

    DIR/manifest.jsonl     one line a clip, written last
    DIR/report.json        what was left out or could not be read, and why
    DIR/keypoints/*.npz    DIR/masks/*.npz    DIR/clips/*.mp4 (copies only)
    DIR/records/NAME/      what is known of each source; a second run does only what is missing there
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdyna.data.prepared.clipping import ClipTask, Job, make_clips, plan_source
from xdyna.data.prepared.manifest import NAME, ClipRow, from_json, write_manifest
from xdyna.data.prepared.sources import list_sources
from xdyna.data.prepared.workers import Crashed, default_workers, run_tasks
from xdyna.errors import InputError, OutputError
from xdyna.media.files import read_json, write_failure, write_json
from xdyna.options import PrepareOptions

Progress = Callable[[str, int, int | None], None]
"""Called with (what is being done, how far, of how many or None when not known)."""

_FOLDERS = ("records", "keypoints", "masks", "clips", "faces")
_CRASH = "the process that worked on it died; the file may be damaged, or memory ran out"


@dataclass(frozen=True)
class Prepared:
    """What a folder holds after a run.

    Attributes:
        manifest: the manifest.
        report: the report, None after `xdyna synth`.
        clips: how many clips the manifest has, those of earlier runs among them.
        seconds: their length together.
        left_out: how many clips of this run's sources were not kept; the report has the reasons.
        failed: (source, reason) of each source of this run that could not be used.
    """

    manifest: Path
    report: Path | None
    clips: int
    seconds: float
    left_out: int = 0
    failed: tuple[tuple[str, str], ...] = ()

    def lines(self) -> list[str]:
        """For people."""
        said = [f"{self.manifest}: {self.clips} clips, {self.seconds:.0f} s"]
        if self.left_out:
            said.append(f"{self.left_out} clips were left out; {self.report} says why")
        if self.failed:
            said.append(f"{len(self.failed)} sources could not be used ({self.report} has all):")
            said += [f"  {source}: {reason}" for source, reason in self.failed[:5]]
        return said


def prepare(
    places: Sequence[str | Path],
    folder: str | Path,
    *,
    options: PrepareOptions,
    progress: Progress | None = None,
) -> Prepared:
    """Find clips in videos, and keypoints and masks of the people in them.

    What earlier runs put into the folder stays in its manifest, so that humans and scenes can share one.

    Args:
        places: videos, folders, or a data set's folder or lists, as `options.layout` says.
        folder: the prepared folder; made if it does not exist.
        options: see `PrepareOptions`.
        progress: told how far each part is.

    Raises:
        InputError: nothing to start from, or not one clip came out.
        OutputError: the folder cannot be written, or another run is writing to it.
        MissingPackage: the detector's package is not installed.
    """
    folder = Path(folder).expanduser().absolute()
    jobs = [Job(source, folder, options) for source in list_sources(places, options)]
    workers = options.workers or default_workers()
    with only_run(folder):
        troubles = _plan(jobs, workers, progress)
        troubles |= _make(jobs, workers, progress)
        return _finish(folder, troubles, sources={str(job.source.path) for job in jobs})


@contextlib.contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Make the prepared folder, keep other runs out of it, and clear what a killed run left half-written.

    Raises:
        OutputError: it cannot be made, or another run holds it.
    """
    try:
        for name in _FOLDERS:
            (folder / name).mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "a")  # noqa: SIM115
    except OSError as error:
        raise write_failure(folder, error) from error
    with lock:
        try:
            import fcntl  # there is none on Windows

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass
        except OSError:
            raise OutputError(
                folder, "another xdyna is writing to this folder", "Wait for it to end, or choose another folder"
            ) from None
        for name in _FOLDERS:
            for left in (folder / name).rglob(".*.tmp*"):
                left.unlink(missing_ok=True)
        yield


def _plan(jobs: list[Job], workers: int, progress: Progress | None) -> dict[str, str]:
    """Plan every source not yet planned; returns what went wrong, by source."""
    missing = [job for job in jobs if job.plan() is None]
    done = len(jobs) - len(missing)
    troubles = {}
    for job, trouble in run_tasks(plan_source, missing, workers=workers):
        done += 1
        if isinstance(trouble, Crashed):
            trouble = _CRASH
        if trouble is not None:
            troubles[str(job.source.path)] = trouble
        if progress is not None:
            progress("finding shots", done, len(jobs))
    return troubles


def _make(jobs: list[Job], workers: int, progress: Progress | None) -> dict[str, str]:
    """Make every clip not yet made; returns what went wrong, by source."""
    tasks, done, total = [], 0, 0
    for job in jobs:
        plan = job.plan() or {}
        lengths = [high - low for low, high in plan.get("clips", [])]
        missing = [number for number in range(len(lengths)) if job.clip(number) is None]
        total += sum(lengths)
        done += sum(lengths) - sum(lengths[number] for number in missing)
        if not missing:
            continue
        # Where seeking is not possible every pass costs all the frames before, so there is one pass.
        groups = [(number,) for number in missing] if plan["seekable"] else [tuple(missing)]
        tasks += [ClipTask(job, group) for group in groups]
    troubles = {}
    if progress is not None and tasks:
        progress("preparing clips", done, total)
    for task, result in run_tasks(make_clips, tasks, workers=workers):
        if isinstance(result, Crashed):
            troubles[str(task.job.source.path)] = _CRASH
            continue
        frames, trouble = result
        done += frames
        if trouble is not None:
            troubles[str(task.job.source.path)] = trouble
        if progress is not None:
            progress("preparing clips", done, total)
    return troubles


def _finish(folder: Path, troubles: dict[str, str], *, sources: set[str]) -> Prepared:
    """Write manifest and report from all records in the folder; says what became of this run's sources."""
    rows: list[ClipRow] = []
    left_out: list[dict[str, Any]] = []
    failed = dict(troubles)
    for path in sorted((folder / "records").glob("*/plan.json")):
        plan = read_json(path)
        if "error" in plan:
            failed[plan["source"]] = plan["error"]
            continue
        fps = plan["fps"]
        for low, high in plan["short"]:
            left_out.append(_left_out(plan, low, high, f"is {high - low} frames long, too short at {fps} a second"))
        for number, (low, high) in enumerate(plan["clips"]):
            record_file = path.parent / f"{number}.json"
            record = read_json(record_file) if record_file.exists() else {}
            if record.get("fingerprint") != plan["fingerprint"]:
                continue
            if "left_out" in record:
                left_out.append(_left_out(plan, low, high, record["left_out"]))
                continue
            try:
                rows.append(from_json(record["row"], folder, str(record_file)))
            except InputError as error:
                failed[plan["source"]] = error.problem
    report = folder / "report.json"
    write_json(
        report,
        {
            "clips": len(rows),
            "human": sum(row.kind == "human" for row in rows),
            "scene": sum(row.kind == "scene" for row in rows),
            "seconds": round(sum(float(len(row) / row.fps) for row in rows), 3),
            "failed": [{"source": source, "reason": reason} for source, reason in sorted(failed.items())],
            "left_out": left_out,
        },
    )
    if not rows:
        reasons = [*failed.values(), *(entry["reason"] for entry in left_out)]
        first = f" ({reasons[0]})" if reasons else ""
        raise InputError(folder, f"not one clip came out of the videos{first}", f"See {report}")
    manifest = write_manifest(folder / NAME, rows)
    return Prepared(
        manifest=manifest,
        report=report,
        clips=len(rows),
        seconds=sum(float(len(row) / row.fps) for row in rows),
        left_out=sum(entry["source"] in sources for entry in left_out),
        failed=tuple(sorted((source, reason) for source, reason in failed.items() if source in sources)),
    )


def _left_out(plan: dict[str, Any], low: int, high: int, reason: str) -> dict[str, Any]:
    return {"source": plan["source"], "start": low, "end": high, "reason": reason}
