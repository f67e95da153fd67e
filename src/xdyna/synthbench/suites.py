"""Making the clips of some cases, measuring them, and showing them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from xdyna.data.synthetic import SyntheticBatch, SyntheticParams
from xdyna.synthbench.cases import (
    Job,
    case_params,
    driver_of,
    moved_like,
    own_job,
    render_params,
)
from xdyna.synthbench.generation import Animator
from xdyna.synthbench.measures import Truth
from xdyna.synthbench.plan import ABLATIONS, MOVIES, Work
from xdyna.synthbench.reading import Reader
from xdyna.synthbench.records import Measured, Record
from xdyna.synthbench.retargeting import retargeted
from xdyna.synthbench.sheets import write_movie, write_sheet


@dataclass(frozen=True)
class Bench:
    """What the cases are made and measured with.

    Attributes:
        animator: the model.
        reader: of the clips.
        frames: of each clip.
        size: (height, width).
        modelled_share: see `SynthbenchOptions`.
        people: numbers of all frozen cases with a person.
        output: folder of the pictures.
        on_clips: called with how many clips have just been generated.
    """

    animator: Animator
    reader: Reader
    frames: int
    size: tuple[int, int]
    modelled_share: float
    people: tuple[int, ...]
    output: Path
    on_clips: Callable[[int], None]

    def measure(self, work: Work) -> list[Record]:
        """Generate and measure what some cases lack; their pictures are written.

        Raises:
            OutputError: a picture cannot be written.
        """
        with torch.inference_mode():
            clips, seconds = self.animator.clips, self.animator.seconds
            made = self._across(work) if work.crossed else self._by_themselves(work)
            each = (self.animator.seconds - seconds) / max(self.animator.clips - clips, 1)
        return [
            Record(
                unit, case, {name: block[row] for name, block in made[unit].blocks.items()},
                made[unit].files.get(case, ()), each,
            )
            for unit in sorted(work.units)
            for row, case in enumerate(work.cases)
        ]  # fmt: skip

    # ------------------------------------------------------------------------------------ themselves

    def _by_themselves(self, work: Work) -> dict[str, _Made]:
        """Cases driven by their own clips: all units but those of cross."""
        cases, units, read = list(work.cases), work.units, self.reader
        batch = self._rendered(self._params(cases))
        truth, job = Truth.of(batch), own_job(batch, cases)
        videos = {name: self._animated(job, **_told(name, batch)) for name in work.told}
        ablated = {name: self._animated(job, strengths=ABLATIONS[name]) for name in work.ablations}
        copied = batch.frames[:, :1].float().expand_as(truth.frames)
        made = {unit: _Made() for unit in units}
        if units & {"self", "scene", "parts"}:
            shared = {
                "truth": read(truth.frames, truth),
                "copy_reference": read(copied, truth),
                "model": read(videos["none"], truth),
            }
            for unit in units & {"self", "scene"}:
                made[unit].blocks = {
                    **shared, "autoencoder": read(self.animator.rebuilt(truth.frames), truth)
                }  # fmt: skip
            if "parts" in units:
                alone = {name: read(video, truth) for name, video in ablated.items()}
                whole = {"full": shared["model"], "truth": shared["truth"]}
                blocks = {"copy_reference": shared["copy_reference"], **alone, **whole}
                made["parts"].blocks = {f"parts.{name}": block for name, block in blocks.items()}
        if "knob" in units:
            made["knob"].blocks = {
                f"knob.{name}": read(video, truth, distances=False) for name, video in videos.items()
            }
        for row, case in enumerate(cases):
            self._show_itself(made, case, row, batch=batch, job=job, videos=videos, ablated=ablated)
        return made

    def _show_itself(
        self,
        made: Mapping[str, _Made],
        case: int,
        row: int,
        *,
        batch: SyntheticBatch,
        job: Job,
        videos: Mapping[str, torch.Tensor],
        ablated: Mapping[str, torch.Tensor],
    ) -> None:
        reference, true = batch.frames[row, :1].float(), batch.frames[row, 1:].float()
        result = videos["none"][row]
        for unit in made.keys() & {"self_sheets", "scene_sheets"}:
            rows = {
                "reference": reference, "pose": job.pose[row], "face, global": job.face[row, :, 3:],
                "truth": true, "result": result,
            }  # fmt: skip
            made[unit].files[case] = self._shown(
                f"case_{case:02d}", rows, movie=rows if case < MOVIES else None
            )
        if "knob_sheets" in made:
            levels = {f"--motion {name}": videos[name][row] for name in list(videos)[1:-1]}
            made["knob_sheets"].files[case] = self._shown(
                f"knob_{case:02d}", None, movie={"truth": true, **levels}
            )
        if "parts_sheets" in made:
            labels = {"no_adapter": "no adapter", "no_face": "no face", "no_pose": "no pose"}
            rows = {
                "copy of the reference": reference,
                **{labels[name]: video[row] for name, video in ablated.items()},
                "full": result,
                "truth": true,
            }
            movie = rows if case in self.people[:MOVIES] else None
            made["parts_sheets"].files[case] = self._shown(f"parts_{case:02d}", rows, movie=movie)

    # ---------------------------------------------------------------------------------------- others

    def _across(self, work: Work) -> dict[str, _Made]:
        """People driven by others: retargeted as `xdyna animate` does it, and their motion on this one's body."""
        cases = list(work.cases)
        own, theirs = (
            self._params(numbers) for numbers in (cases, [driver_of(c, self.people) for c in cases])
        )
        batch, drivers, rendered = (self._rendered(p) for p in (own, theirs, moved_like(own, theirs)))
        driven = retargeted(batch, drivers, cases, landmarks=self.animator.pipeline.preset.landmarks)
        video = self._animated(driven.job)
        # The reference shows the person as they stood; what follows is the other's motion on their body.
        rendered.frames[:, 0] = batch.frames[:, 0]
        truth = Truth.of(rendered)
        again = self._animated(own_job(rendered, cases))
        made = {unit: _Made() for unit in work.units}
        if "cross" in made:
            made["cross"].blocks = {
                "cross_driven": self.reader.person(
                    video,
                    body=driven.body,
                    head=driven.head,
                    expression=driven.expression,
                    company=batch.company,
                ),
                "cross_rendered": self.reader(again, truth),
                "cross_rendered_truth": self.reader(truth.frames, truth),
            }
        for row, case in enumerate(cases if "cross_sheets" in made else ()):
            shown = {
                "reference": batch.frames[row, :1], "driver": drivers.frames[row, 1:],
                "retargeted pose": driven.job.pose[row], "face, global": driven.job.face[row, :, 3:],
                "result": video[row],
            }  # fmt: skip
            rows = {
                **shown,
                "the driver's motion on this person, truth": truth.frames[row],
                "result for it": again[row],
            }
            movie = shown if case in self.people[:MOVIES] else None
            made["cross_sheets"].files[case] = self._shown(f"cross_{case:02d}", rows, movie=movie)
        return made

    # --------------------------------------------------------------------------------------- helpers

    def _params(self, cases: Sequence[int]) -> SyntheticParams:
        return case_params(cases, frames=self.frames, modelled_share=self.modelled_share)

    def _rendered(self, params: SyntheticParams) -> SyntheticBatch:
        pipeline = self.animator.pipeline
        return render_params(
            params, size=self.size, device=pipeline.device, landmarks=pipeline.preset.landmarks
        )

    def _animated(self, job: Job, **given: Any) -> torch.Tensor:
        video = self.animator(job, **given)
        self.on_clips(len(video))
        return video

    def _shown(
        self,
        name: str,
        rows: Mapping[str, torch.Tensor] | None,
        *,
        movie: Mapping[str, torch.Tensor] | None,
    ) -> tuple[str, ...]:
        """Write a sheet of `rows`, if there are some, and a video of `movie`; returns their names."""
        files = []
        if rows is not None:
            write_sheet(self.output / f"{name}.png", rows)
            files.append(f"{name}.png")
        if movie is not None:
            write_movie(self.output / f"{name}.mp4", movie)
            files.append(f"{name}.mp4")
        return tuple(files)


class _Made:
    """What came of a unit: measured clips by block, and the pictures of each case."""

    def __init__(self) -> None:
        self.blocks: dict[str, list[Measured]] = {}
        self.files: dict[int, tuple[str, ...]] = {}


def _told(name: str, batch: SyntheticBatch) -> dict[str, Any]:
    """What the model is told of motion: nothing, each clip's true energy, or what the knob says."""
    if name == "none":
        return {}
    return {"energy": batch.motion_energy} if name == "true" else {"motion": float(name)}
