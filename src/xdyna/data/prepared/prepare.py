"""`xdyna prepare`: videos to a folder that training reads.

::

    DIR/manifest.jsonl     one line a clip, written last
    DIR/report.json        what was left out or could not be read, and why
    DIR/keypoints/*.npz    DIR/masks/*.npz    DIR/clips/*.mp4 (copies only)
    DIR/records/NAME/      what is known of each source; a second run does only what is missing there
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xdyna.data.prepared.clipping import ClipTask, Job, make_clips, plan_source
from xdyna.data.prepared.folder import Prepared, Progress, finish, only_run
from xdyna.data.prepared.options import PrepareOptions
from xdyna.data.prepared.sources import list_sources
from xdyna.data.prepared.workers import Crashed, default_workers, run_tasks

_CRASH = "the process that worked on it died; the file may be damaged, or memory ran out"


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
        return finish(folder, troubles, sources={str(job.source.path) for job in jobs})


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
