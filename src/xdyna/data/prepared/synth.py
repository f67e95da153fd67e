"""`xdyna synth`: clips of the synthetic world in the layout of prepared videos, with everything about them exact."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xdyna import media
from xdyna.conditions.keypoints import PARTS, Keypoints
from xdyna.data.prepared.caches import pack_mask, write_masks, write_track
from xdyna.data.prepared.clipping import KEY_EVERY
from xdyna.data.prepared.folder import Prepared, Progress, finish, only_run
from xdyna.data.prepared.frames import content_hash
from xdyna.data.prepared.manifest import ClipRow, to_json
from xdyna.data.prepared.options import SynthOptions
from xdyna.data.prepared.workers import Crashed, default_workers, run_tasks
from xdyna.data.synthetic import HELD_OUT_SEED, SyntheticBatch, render, sample_params
from xdyna.data.synthetic.params import STEP
from xdyna.errors import InputError, OptionError, ResourceError
from xdyna.media.files import read_json, write_json
from xdyna.options import parse_size

VERSION = 2
"""Of what is written for a seed; another number makes everything anew."""

PART = 16
"""Frames rendered at a time, so that memory does not grow with a clip's length."""


def synth(folder: str | Path, *, options: SynthOptions, progress: Progress | None = None) -> Prepared:
    """Write clips of the synthetic world.

    Clip number i depends on seed + i, frames, size and shares alone: more clips can be added later, and clips that
    are there are not made again. Pictures and faces are kept without loss.

    Args:
        folder: the prepared folder; made if it does not exist. It may hold filmed clips, too.
        options: see `SynthOptions`.
        progress: told how many clips are done.

    Raises:
        OptionError: seeds on both sides of `HELD_OUT_SEED`, an odd side, or no such device.
        OutputError: the folder cannot be written, or another run is writing to it.
    """
    folder = Path(folder).expanduser().absolute()
    last = options.seed + options.clips - 1
    if options.seed < HELD_OUT_SEED <= last:
        raise OptionError(
            "--seed", f"clips {options.seed} to {last} reach into those kept for evaluation",
            f"Stay below {HELD_OUT_SEED}, or start there",
        )  # fmt: skip
    if any(side % 2 for side in _size(options)):
        raise OptionError("--size", f"got {options.size!r}, both sides must be even")
    try:
        on_gpu = torch.device(options.device).type != "cpu"
        torch.empty(1, device=options.device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise OptionError(
            "--device", f"{options.device!r} cannot be used ({error})", "Use --device cpu"
        ) from None
    workers = options.workers or (1 if on_gpu else default_workers())
    tasks = [MadeClip(seed, folder, options, single=workers > 1) for seed in range(options.seed, last + 1)]
    with only_run(folder):
        missing = [task for task in tasks if not task.is_done()]
        done = len(tasks) - len(missing)
        if progress is not None:
            progress("rendering clips", done, len(tasks))
        for task, result in run_tasks(make_clip, missing, workers=workers):
            if isinstance(result, Crashed):
                raise ResourceError(
                    f"clip of seed {task.seed}", "the process that rendered it died, so memory may have run out",
                    "Use fewer --workers, or a smaller --size",
                )  # fmt: skip
            done += 1
            if progress is not None:
                progress("rendering clips", done, len(tasks))
        return finish(folder, {}, sources={task.source for task in tasks})


def _size(options: SynthOptions) -> tuple[int, int]:
    size = parse_size(options.size)
    return size if isinstance(size, tuple) else (size, size)


@dataclass(frozen=True)
class MadeClip:
    """One clip to render.

    Attributes:
        seed: of the clip.
        folder: the prepared folder, absolute.
        options: of the run.
        single: render with one thread, since other processes render beside this one.
    """

    seed: int
    folder: Path
    options: SynthOptions
    single: bool = False

    @property
    def name(self) -> str:
        """Of its files."""
        return f"made-{self.seed:09d}"

    @property
    def source(self) -> str:
        """What the manifest says of its origin."""
        return f"synthetic world, seed {self.seed}"

    def record_file(self, name: str) -> Path:
        """One of its records."""
        return self.folder / "records" / self.name / f"{name}.json"

    def fingerprint(self) -> str:
        """Of all that the clip depends on."""
        options = self.options
        shares = (options.human_share, options.still_share, options.modelled_share, options.captured_share)
        chosen = (options.frames, _size(options), shares)
        return hashlib.sha256(repr((VERSION, self.seed, chosen)).encode()).hexdigest()[:16]

    def is_done(self) -> bool:
        """Whether it is on record and its files are there."""
        try:
            record = read_json(self.record_file("0"))
            row = record["row"]
            paths = [row[name] for name in ("video", "keypoints", "mask", "faces") if name in row]
        except (InputError, KeyError, TypeError):
            return False
        return record["fingerprint"] == self.fingerprint() and all(
            (self.folder / path).exists() for path in paths
        )


def make_clip(task: MadeClip) -> None:
    """Render a clip and write its files, then its records."""
    if task.single:
        torch.set_num_threads(1)
    size, fps = _size(task.options), 1 / Fraction(STEP)
    keypoints: list[Keypoints] = []
    masks: list[bytes] = []
    heads: list[np.ndarray] = []
    expressions: list[np.ndarray] = []
    video, faces, track, mask = (
        task.folder / kind / f"{task.name}.{suffix}"
        for kind, suffix in (("clips", "mp4"), ("faces", "mp4"), ("keypoints", "npz"), ("masks", "npz"))
    )
    parts = _rendered(task, size)
    first = next(parts)
    human = bool(first.human)
    with _writer(video, size, fps) as writer:
        if not human:
            for batch in (first, *parts):
                _write(writer, batch.frames[0])
        else:
            with _writer(faces, (2 * size[0], size[1]), fps) as face_writer:
                for batch in (first, *parts):
                    _write(writer, batch.frames[0])
                    _write(face_writer, torch.cat([batch.face_global, batch.face_local], 3)[0])
                    masks += [pack_mask(picture[0]) for picture in _bytes(batch.mask[0])]
                    keypoints.append(_keypoints(batch, size))
                    heads.append(batch.head[0].float().cpu().numpy())
                    expressions.append(batch.expression[0].float().cpu().numpy())
    row = ClipRow(
        video=video,
        kind="human" if human else "scene",
        start=0,
        end=task.options.frames,
        fps=fps,
        size=size,
        keypoints=track if human else None,
        mask=mask if human else None,
        faces=faces if human else None,
        people=1 if human else None,
        hash=content_hash(video),
        source=task.source,
    )
    if human:
        write_track(
            track,
            Keypoints.concatenate(keypoints),
            head=np.concatenate(heads),
            expression=np.concatenate(expressions),
        )
        write_masks(mask, masks, size=size)
    plan: dict[str, Any] = {
        "fingerprint": task.fingerprint(), "source": task.source, "kind": row.kind, "fps": fps,
        "clips": [[0, task.options.frames]], "short": [],
    }  # fmt: skip
    write_json(task.record_file("plan"), plan)
    write_json(task.record_file("0"), {"fingerprint": plan["fingerprint"], "row": to_json(row, task.folder)})


def _rendered(task: MadeClip, size: tuple[int, int]) -> Iterator[SyntheticBatch]:
    """The clip in parts of `PART` frames."""
    options = task.options
    params = sample_params(
        task.seed, 1, frames=options.frames, human_share=options.human_share, still_share=options.still_share,
        modelled_share=options.modelled_share, captured_share=options.captured_share,
    )  # fmt: skip
    # The first moment is that of a reference; here any other frame of the clip serves as one.
    for times in params.times[:, 1:].split(PART, 1):
        yield render(
            params.identity, params.motion, params.foreign, params.scene, times, size,
            human=params.human, company=params.company, modelled=params.modelled, device=options.device,
        )  # fmt: skip


def _writer(path: Path, size: tuple[int, int], fps: Fraction) -> media.ClipWriter:
    return media.ClipWriter(
        path, size=size, fps=fps, overwrite=True, ai_generated=False, lossless=True, key_every=KEY_EVERY
    )


def _write(writer: media.ClipWriter, pictures: Tensor) -> None:
    for picture in _bytes(pictures).transpose(0, 2, 3, 1):
        writer.write(np.ascontiguousarray(picture))


def _bytes(pixels: Tensor) -> np.ndarray:
    """Pixels in [0, 1] as uint8."""
    return (pixels.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def _keypoints(batch: SyntheticBatch, size: tuple[int, int]) -> Keypoints:
    return Keypoints(**{name: getattr(batch, name)[0].float().cpu().numpy() for name in PARTS}, size=size)
