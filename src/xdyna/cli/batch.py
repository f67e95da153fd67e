"""`xdyna batch`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from xdyna.errors import OptionError, XdynaError
from xdyna.flags import Bars, add_options, add_verb, given_options, say
from xdyna.options import AnimateOptions

MOST = 100
"""The exit status counts failures up to here."""


def add_batch(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs, "batch", run_batch,
        help="many clips from one list, over all GPUs",
        description="Make the clips that JOBS lists, one worker a GPU, each with the model loaded once. A line is\n"
        '{"image": "photo.jpg", "video": "dance.mp4"}, with an optional "output" and any option of `xdyna\n'
        "animate` by its name; the options below are for lines that do not say otherwise. The official\n"
        "repository's example.json will do as well. The same command again makes only what is missing. A clip\n"
        f"that fails is noted in DIR/batch.jsonl; the exit status is how many failed (at most {MOST}).",
        epilog="examples:\n"
        "  xdyna batch jobs.jsonl -o clips --dry-run             # look at all inputs first\n"
        "  xdyna batch jobs.jsonl -o clips --model ./x-dyna --gpus 4\n"
        "  xdyna batch jobs.jsonl -o clips --device cpu --workers 2\n"
        "  xdyna batch jobs.jsonl -o clips --ray auto            # on a Ray cluster",
    )  # fmt: skip
    parser.add_argument("jobs", metavar="JOBS", help="the list; relative paths in it begin at its folder")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder for the results")
    parser.add_argument("--gpus", metavar="N|IDS|auto", help="GPUs to use, a worker each (default: all)")
    parser.add_argument("--workers", type=int, metavar="N", help="workers on the CPU (default: 1)")
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="use a Ray cluster: HOST:PORT, auto (one that runs here) or local"
    )
    parser.add_argument("--dry-run", action="store_true", help="look at all inputs and make nothing")
    parser.add_argument(
        "--poses",
        choices=["file", "video"],
        default="file",
        help="of an official list: use its pose videos, or find poses and faces in its driving videos "
        "(default: file)",
    )
    add_options(parser, AnimateOptions)


def run_batch(chosen: argparse.Namespace) -> int:
    """`xdyna batch`."""
    from xdyna.batch import read_jobs
    from xdyna.batch import run_batch as run

    given = given_options(chosen, AnimateOptions)
    device = given.pop("device", "auto")
    jobs = read_jobs(chosen.jobs, chosen.output, defaults=given, poses=chosen.poses)
    if chosen.dry_run:
        return _look(jobs, chosen.quiet)
    crew = _crew(chosen, device)
    with Bars(chosen.quiet) as bars:
        report = run(jobs, chosen.output, crew=crew, progress=bars)
    say(*report.lines(), Path(chosen.output) / "batch.jsonl")
    return min(MOST, report.count("failed"))


def _look(jobs: list[Any], quiet: bool) -> int:
    from xdyna.batch import check_job
    from xdyna.batch.jobs import describe

    found, bad = [], 0
    with Bars(quiet) as bars:
        for number, job in enumerate(jobs, start=1):
            try:
                found.append(f"{job.where}: {check_job(job)}")
            except XdynaError as error:
                found.append(f"{job.where}: {describe(error)}")
                bad += 1
            bars("looking", number, len(jobs))
    say(*found, f"{len(jobs)} clips: {bad} cannot be made; nothing was written")
    return min(MOST, bad)


def _crew(chosen: argparse.Namespace, device: str) -> Any:
    from xdyna.batch import ProcessCrew, RayCrew
    from xdyna.machine import choose_device, choose_devices

    if chosen.workers is not None and chosen.workers < 1:
        raise OptionError("--workers", f"got {chosen.workers}, it must be at least 1")
    if chosen.ray is not None:
        if chosen.gpus not in (None, "auto") and not (chosen.gpus.isdecimal() and int(chosen.gpus)):
            raise OptionError("--gpus", f"got {chosen.gpus!r}, with --ray it is a count or auto")
        if device not in ("auto", "cpu", "cuda"):
            raise OptionError("--device", f"got {device!r}, with --ray it is auto, cpu or cuda")
        count = int(chosen.gpus) if chosen.gpus not in (None, "auto") else None
        return RayCrew(chosen.ray, gpus=count, workers=chosen.workers or 1, device=device)
    if chosen.gpus is not None:
        devices = choose_devices(chosen.gpus, device)
    else:
        place = choose_device(device)
        all_of_them = place.type == "cuda" and place.index is None
        devices = choose_devices("auto") if all_of_them else [str(place)]
    if chosen.workers is not None:
        if devices[0] != "cpu":
            raise OptionError(
                "--workers", "counts workers on the CPU; a GPU has one", "Add --device cpu, or use --gpus"
            )
        if chosen.gpus is not None:
            raise OptionError("--workers", "says the same as --gpus on the CPU", "Give one of the two")
        devices = ["cpu"] * chosen.workers
    return ProcessCrew(devices)
