"""A whole run of the benchmark: load, make what is missing, measure, write."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from xdyna import __version__, media
from xdyna.errors import OutputError
from xdyna.machine import memory_advice
from xdyna.media.files import whole_file
from xdyna.options import parse_size
from xdyna.pipeline import XDynaPipeline
from xdyna.synthbench.cases import case_params, people_of
from xdyna.synthbench.generation import Animator
from xdyna.synthbench.networks import find_reader
from xdyna.synthbench.options import FROZEN_CASES, FROZEN_FRAMES, SynthbenchOptions
from xdyna.synthbench.plan import ABLATIONS, units_of, work_of
from xdyna.synthbench.reading import Reader
from xdyna.synthbench.records import Record, Records
from xdyna.synthbench.report import build_report, knob_panels
from xdyna.synthbench.sheets import write_curve
from xdyna.synthbench.suites import Bench
from xdyna.synthbench.table import markdown

logger = logging.getLogger(__name__)

EDITION = 4
"""Of the cases and of how they are measured: one more whenever records of before no longer hold."""
GPU_BATCH = 8

Progress = Callable[[str, int, "int | None"], None]


def run(
    output: str | Path, *, options: SynthbenchOptions | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Measure a model; what OUT/cases holds for the same model, options and version is not made again.

    Args:
        output: folder of report.json, report.md, cases/ and the pictures.
        options: all settings.
        progress: called with (part, done, total).

    Returns:
        the report.

    Raises:
        WeightsError, InputError: the model or the judge cannot be read.
        OptionError, ResourceError: an option that this model or machine does not allow.
        OutputError: something cannot be written.
    """
    options = options or SynthbenchOptions()
    folder = made_folder(output)
    pipeline = XDynaPipeline.from_pretrained(options.model, device=options.device, dtype=options.dtype)
    reader = find_reader(options.judge, device=pipeline.device)
    return measure(pipeline, reader, folder, options=options, progress=progress)


def made_folder(output: str | Path) -> Path:
    """The folder of the results, made if it is missing.

    Raises:
        OutputError: its name is a file's, or it cannot be made.
    """
    folder = Path(output).expanduser()
    if folder.exists() and not folder.is_dir():
        raise OutputError(folder, "is a file", "Give the name of a folder with -o")
    try:
        (folder / "cases").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(folder, f"cannot be made ({error})", "Give a folder you may write in") from error
    return folder


def measure(
    pipeline: XDynaPipeline,
    reader: Reader,
    folder: Path,
    *,
    options: SynthbenchOptions,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The same with a loaded model; one without a hash is measured anew every time.

    Args:
        pipeline: the model.
        reader: what measures, see `networks.find_reader`.
        folder: of the results, which must be there.
        options: all settings; model, device, dtype and judge are not looked at.
        progress: called with (part, done, total).
    """
    animator = Animator(
        pipeline, steps=options.steps, seed=options.seed, preset=options.preset, lora=options.lora,
        cache=options.cache, refine_face=options.refine_face, hold_still=options.hold_still,
    )  # fmt: skip
    tellable = pipeline.preset.motion_energy > 0
    if "knob" in options.suite and not tellable:
        logger.warning("knob: left out, this model cannot be told how lively a scene is")
    people = people_of(FROZEN_CASES, frames=options.frames)
    units = {
        case: units_of(case, human=case in people, suites=options.suite, tellable=tellable)
        for case in range(options.cases)
    }
    settings = _settings(animator, reader, options)
    records = Records(folder, settings)
    wanted = [(unit, case) for case, names in units.items() for unit in names]
    held: dict[tuple[str, int], Record] = {}
    if pipeline.hash is not None and not options.fresh:
        held = {key: record for key in wanted if (record := records.find(*key)) is not None}
    batch = options.batch or (1 if pipeline.device.type == "cpu" else GPU_BATCH)
    todo = work_of(
        units, is_known=lambda unit, case: (unit, case) in held, batch=batch, ablations=_ablations(pipeline)
    )
    total, done = sum(work.clips for work in todo), 0

    def count(clips: int) -> None:
        nonlocal done
        done += clips
        if progress is not None:
            progress("generating clips", done, total)

    bench = Bench(
        animator, reader, options.frames, _size(pipeline, options), options.modelled_share, tuple(people),
        folder, count,
    )  # fmt: skip
    if todo:
        count(0)
    for work in todo:
        with memory_advice(pipeline.device):
            made = bench.measure(work)
        for record in made:
            held[record.unit, record.case] = record
            if pipeline.hash is not None:
                records.keep(record)
    found = [held[key] for key in wanted]
    header = {**_header(pipeline, options, found, people), **settings}
    report = build_report(found, header, unavailable=reader.unavailable)
    if "knob" in report:
        write_curve(folder / "knob.png", knob_panels(found))
    media.write_json(folder / "report.json", report)
    with whole_file(folder / "report.md", overwrite=True) as path:
        path.write_text(markdown(report), encoding="utf-8")
    return report


def _ablations(pipeline: XDynaPipeline) -> tuple[str, ...]:
    """Which parts this model has that can be left out."""
    lacks = {"no_pose": pipeline.pose_controlnet is None, "no_face": pipeline.face_controlnet is None}
    return tuple(name for name in ABLATIONS if not lacks.get(name, False))


def _size(pipeline: XDynaPipeline, options: SynthbenchOptions) -> tuple[int, int]:
    if options.size is None:
        return (pipeline.preset.height, pipeline.preset.width)
    size = parse_size(options.size)
    return size if isinstance(size, tuple) else (size, size)


def _settings(animator: Animator, reader: Reader, options: SynthbenchOptions) -> dict[str, Any]:
    """All that decides what is measured of a case."""
    pipeline = animator.pipeline
    device = pipeline.device
    pipeline.loras.use(animator.options.lora)
    loras, cache = pipeline.loras.describe(), animator.options.cache
    # the model's own choices are in its hash
    chosen = {name: getattr(animator.options, name) for name in ("refine_face", "hold_still")}
    return {
        "edition": EDITION, "version": __version__, "hash": pipeline.hash, "frames": options.frames,
        "size": list(_size(pipeline, options)), "steps": animator.steps, "seed": options.seed,
        "modelled_share": options.modelled_share,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "dtype": str(pipeline.unet.dtype).removeprefix("torch."), "networks": dict(reader.networks),
        **({"loras": loras} if loras else {}), **({"cache": cache} if cache > 1 else {}),
        **{name: choice for name, choice in chosen.items() if choice != getattr(pipeline.preset, name)},
    }  # fmt: skip


def _header(
    pipeline: XDynaPipeline, options: SynthbenchOptions, records: list[Record], people: list[int]
) -> dict[str, Any]:
    """What stands at the report's top beside the settings."""
    cases = range(options.cases)
    timed = [record.seconds for record in records if record.seconds]
    still = case_params(cases, frames=options.frames).scene.still()
    frozen = options.cases == FROZEN_CASES and options.frames == FROZEN_FRAMES and not options.modelled_share
    return {
        "folder": pipeline.name, "cases": options.cases, "people": sum(case in people for case in cases),
        "still": int(still.sum()), "frozen": frozen, "suites": list(options.suite),
        "seconds_per_clip": round(sum(timed) / len(timed), 3) if timed else None,
    }  # fmt: skip
