"""`xdyna animate`: a picture and a driving video on disk become an mp4 and a json beside it."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import xdyna
from xdyna import media
from xdyna.condition_clips import Progress
from xdyna.errors import InputError, OptionError, OutputError
from xdyna.options import AnimateOptions, from_mapping
from xdyna.pipeline import Animation, XDynaPipeline
from xdyna.sampling import ALONE, Hosts

SHEET_FRAMES = 6
"""Frames shown on the contact sheet."""

SHEET_HEIGHT = 256
"""Height of the sheet's pictures, and the least height of the comparison's, in pixels."""


@dataclass(frozen=True)
class AnimateResult:
    """The files of a finished run: the clip, its settings, and the comparison's where asked for."""

    video: Path
    settings: Path
    comparison: Path | None
    sheet: Path | None
    timings: dict[str, float]


def animate_file(
    image: str | Path,
    video: str | Path,
    output: str | Path,
    *,
    options: AnimateOptions,
    progress: Progress | None = None,
    pipeline: XDynaPipeline | None = None,
    hosts: Hosts = ALONE,
) -> AnimateResult:
    """Animate `image` with `video` into `output` (.mp4, or .gif), with its settings beside it as .json.

    With `options.compare`, also NAME.compare.mp4 (reference, driving, pose, face, result side by side) and
    NAME.sheet.png. Every file appears under its name only when it is complete, and is marked as
    AI-generated.

    Args:
        image, video: the inputs' paths.
        output: the result's path.
        options: all settings.
        progress: called with (part, done, total or None).
        pipeline: a loaded pipeline, for many runs with one model.
        hosts: processes that share the work, this one the first; the others call `help_animate`. A loaded pipeline
            has its own.

    Raises:
        XdynaError: whatever the user can mend; nothing is left under the final names then.
    """
    begin = time.perf_counter()
    output = Path(output).expanduser()
    settings, comparison, sheet = (output.with_suffix(end) for end in (".json", ".compare.mp4", ".sheet.png"))
    planned = [output, settings] + ([comparison, sheet] if options.compare else [])
    for path in planned:
        refuse_existing(path, options.overwrite)
    # cheap checks of the inputs come before the model is loaded
    media.read_image(image)
    media.probe(video)
    pipeline = pipeline or load_pipeline(options, hosts)
    loaded = time.perf_counter() - begin
    animation = pipeline.animate(image, video, options=options, progress=progress)
    prepared = animation.prepared
    facts = {"seed": options.seed, "model": pipeline.name, "xdyna": xdyna.__version__}
    strips: list[list[np.ndarray]] = []
    chosen = set(np.linspace(0, animation.count - 1, min(SHEET_FRAMES, animation.count)).round().astype(int))
    try:
        with ExitStack() as stack:
            writer = stack.enter_context(
                media.ClipWriter(
                    output,
                    size=prepared.conditions.size,
                    fps=animation.fps,
                    overwrite=options.overwrite,
                    audio_from=video if prepared.driving.sound else None,
                    audio_start=float(prepared.driving.start / prepared.driving.source_fps),
                    metadata=facts,
                )
            )
            beside = _Comparison(animation, comparison, options.overwrite, stack) if options.compare else None
            for index, frame in enumerate(animation.frames):
                writer.write(frame)
                if beside is not None:
                    cells = beside.write(index, frame)
                    if index in chosen:
                        strips.append(cells)
        if options.compare:
            rows = [list(row) for row in zip(*strips, strict=True)]
            media.write_image(
                sheet,
                media.sheet(rows, labels=list(LABELS), height=SHEET_HEIGHT),
                overwrite=options.overwrite,
            )
        timings = {"load": loaded, **animation.timings, "total": time.perf_counter() - begin}
        record = _record(image, video, output, animation, pipeline, timings, options)
        media.write_json(settings, record)
    finally:
        animation.close()
    return AnimateResult(
        output, settings, comparison if options.compare else None, sheet if options.compare else None, timings
    )


def help_animate(options: AnimateOptions, hosts: Hosts) -> None:
    """Share the work of `animate_file`, which the first of `hosts` calls with the same options."""
    load_pipeline(options, hosts).take_part()


def load_pipeline(options: AnimateOptions, hosts: Hosts = ALONE) -> XDynaPipeline:
    """The pipeline that a run's options ask for.

    Raises:
        XdynaError: a model that is not there or not whole, or a device that this machine does not have.
    """
    pipeline = XDynaPipeline.from_pretrained(
        options.model,
        device=options.device,
        dtype=options.dtype,
        offload=options.offload,
        fusing=options.fusing,
        weights_as=options.weights,
        graphs=options.graphs,
    )
    pipeline.hosts = hosts
    return pipeline


LABELS = ("reference", "driving", "pose", "face", "result")
"""Captions of a comparison, in order."""


class _Comparison:
    """The comparison video of a run, written beside the result."""

    def __init__(self, animation: Animation, path: Path, overwrite: bool, stack: ExitStack) -> None:
        self._animation, self._driving = animation, iter(animation.prepared.driving)
        self._path, self._overwrite, self._stack = path, overwrite, stack
        self._writer: media.ClipWriter | None = None

    def write(self, index: int, result: np.ndarray) -> list[np.ndarray]:
        """Add a frame; returns its five pictures."""
        prepared = self._animation.prepared
        face = np.maximum(
            prepared.conditions.face_local([index])[0], prepared.conditions.face_global([index])[0]
        )
        pose = prepared.conditions.pose([index])[0]
        cells = [prepared.reference, next(self._driving), pose, face, result]
        height = max(SHEET_HEIGHT, result.shape[0])
        frame = media.compare_frame(cells, list(LABELS), height=height)
        if self._writer is None:
            size = (frame.shape[0], frame.shape[1])
            self._writer = self._stack.enter_context(
                media.ClipWriter(self._path, size=size, fps=self._animation.fps, overwrite=self._overwrite)
            )
        self._writer.write(frame)
        return cells


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise OutputError when `path` exists and may not be replaced: said before any work is done."""
    if path.exists() and not overwrite:
        raise OutputError(path, "exists already", "Give another -o, or --overwrite to replace it")
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise OutputError(path, f"{folder} is a file, not a folder", "Give another -o")


def repeat_settings(path: str | Path) -> tuple[str, str, AnimateOptions]:
    """Inputs and options of an earlier run from the json beside its result.

    Returns:
        image path, video path, options.

    Raises:
        InputError: not a settings file of ours, or an input that changed or went since.
    """
    record = media.read_json(path)
    try:
        image, video = record["inputs"]["image"], record["inputs"]["video"]
        options = from_mapping(AnimateOptions, record["options"], source=str(path))
    except OptionError:
        raise
    except (KeyError, TypeError) as error:
        raise InputError(
            path, f"is not the settings file of a run ({error} is missing)", "Give the .json beside a result"
        ) from error
    for entry in (image, video):
        if file_digest(entry["path"]) != entry["sha256"]:
            raise InputError(
                entry["path"],
                f"has changed since the run that {path} describes",
                "Put the original file back",
            )
    return image["path"], video["path"], options


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file in hexadecimal.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            return digest.hexdigest()
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "Check the path") from error


def _record(
    image: str | Path,
    video: str | Path,
    output: Path,
    animation: Animation,
    pipeline: XDynaPipeline,
    timings: dict[str, float],
    asked: AnimateOptions,
) -> dict[str, Any]:
    """What the json beside a result says."""
    options = animation.prepared.options
    height, width = animation.prepared.conditions.size
    return {
        "ai_generated": True,
        "xdyna": xdyna.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": {
            name: {"path": str(Path(path).resolve()), "sha256": file_digest(path)}
            for name, path in (("image", image), ("video", video))
        },
        "options": dataclasses.asdict(options),
        # before the model's own values were filled in: what `xdyna batch` knows a job by
        "asked": dataclasses.asdict(asked),
        "model": {"name": pipeline.name, "sha256": pipeline.hash, "loras": pipeline.loras.describe()},
        "result": {
            "file": output.name,
            "frames": animation.count,
            "fps": float(animation.fps),
            "width": width,
            "height": height,
        },
        "seconds": {name: round(value, 3) for name, value in timings.items()},
        "versions": _versions(),
        "machine": {
            "device": str(pipeline.device),
            "platform": platform.platform(),
            "processes": pipeline.hosts.count,
        },
    }


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("torch", "diffusers", "numpy", "mediapipe", "av"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def default_output(image: str | Path, video: str | Path) -> Path:
    """IMAGE_VIDEO.mp4 in the current folder."""
    return Path(f"{Path(image).stem}_{Path(video).stem}.mp4")
