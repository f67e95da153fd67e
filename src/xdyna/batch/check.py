"""What can be said about a job before it runs: whether its result is there, and whether its inputs will do."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from xdyna import media, weights
from xdyna.animate import file_digest
from xdyna.batch.jobs import PATHS, Job
from xdyna.driving import open_driving
from xdyna.errors import InputError, OutputError
from xdyna.options import AnimateOptions
from xdyna.weights.lora import LoraChoice

IRRELEVANT = frozenset({"device", "offload", "fusing", "graphs", "overwrite", "model", "compare"})
"""Options that do not decide what a result looks like, or that are compared otherwise."""


def is_done(job: Job) -> bool:
    """Whether a job's result is there, made with the same settings from the same inputs by the same model.

    The settings file beside a result tells. With `overwrite`, a result that was made otherwise counts as none.

    Raises:
        OutputError: something else lies under the result's name.
        WeightsError: the model cannot be read.
    """
    settings, comparison = job.output.with_suffix(".json"), job.output.with_suffix(".compare.mp4")
    if not job.output.exists() and not settings.exists():
        return False
    different = _differences(job, settings)
    if not different and job.options.compare and not comparison.exists():
        different = ["compare"]
    if not different:
        return True
    if job.options.overwrite:
        return False
    raise OutputError(
        job.output,
        f"exists already and was not made by this job (different: {', '.join(different)})",
        "Give another output or folder, or --overwrite to replace it",
    )


def _differences(job: Job, settings: Path) -> list[str]:
    """In what the run that the settings file tells of differs from the job; empty when it is the same."""
    if not job.output.is_file():
        return ["the result itself"]
    try:
        record = media.read_json(settings)
        asked = {name: value for name, value in record["asked"].items() if name not in IRRELEVANT}
        inputs = {name: str(record["inputs"][name]["sha256"]) for name in ("image", "video")}
        model = record["model"]["sha256"]
    except (InputError, KeyError, TypeError, AttributeError):
        return ["its settings file"]
    wanted = {name: value for name, value in _plain(job.options).items() if name not in IRRELEVANT}
    # an option that the run did not know yet had its default
    known = _plain(AnimateOptions()) | asked
    different = [name for name in wanted if known[name] != wanted[name]]
    different += [name for name in asked if name not in wanted]
    different += [
        name for name, path in (("image", job.image), ("video", job.video)) if _digest(path) != inputs[name]
    ]
    written = settings.stat().st_mtime
    paths = [(name, getattr(job.options, name)) for name in PATHS]
    paths += [("lora", LoraChoice.parse(lora).name) for lora in job.options.lora]
    for name, value in paths:
        if value is not None and _newest(Path(value)) > written:
            different.append(name)
    if not different and weights.folder_hash(weights.resolve(job.options.model)) != model:
        different.append("model")
    return different


def _plain(options: AnimateOptions) -> dict[str, Any]:
    """Options as JSON gives them back, which knows lists only."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(options).items()
    }


def _digest(path: Path) -> str | None:
    """A file's digest; None where it cannot be read, which the job itself will say."""
    try:
        return file_digest(path)
    except InputError:
        return None


def _newest(path: Path) -> float:
    """When a file, or the newest file of a folder, was last written; 0 for none."""
    try:
        files = list(path.iterdir()) if path.is_dir() else [path]
        return max((file.stat().st_mtime for file in files), default=0.0)
    except OSError:
        return 0.0


def check_job(job: Job) -> str:
    """Look at all inputs of a job without running it.

    Returns:
        What it would do: "done already" or "N frames to OUTPUT".

    Raises:
        XdynaError: what running it would run into: an unusable input, model or output.
    """
    if is_done(job):
        return f"done already: {job.output}"
    media.read_image(job.image)
    driving = open_driving(job.video, job.options)
    for name in PATHS:
        value = getattr(job.options, name)
        if value is not None and not Path(value).exists():
            raise InputError(value, f"no such file or folder, named as {name}", "Check the path")
    weights.resolve(job.options.model)
    folder = next(place for place in job.output.absolute().parents if place.exists())
    if not folder.is_dir():
        raise OutputError(job.output, f"{folder} is a file, not a folder", "Give another -o")
    count = "all" if driving.expected is None else str(driving.expected)
    return f"{count} frames to {job.output}"
