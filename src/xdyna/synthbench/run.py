"""How well a model does on held-out synthetic people and scenes.

    python -m benchmarks.embedded_model --model DIR --judge FILE --cases 32 -o OUT
    python -m benchmarks.embedded_model --model DIR --judge FILE --cases 4 --suite self -o OUT      # a quick look

The cases are fixed by seed and no training may see them (`xdyna.data.synthetic.HELD_OUT_SEED`). --suite chooses parts:

* self: every case driven by its own clip; also its autoencoder alone (the ceiling), "copy the reference" (the floor)
  and the true frames (how well the judge itself reads);
* cross: every person driven by the next one, through retargeting as `xdyna animate` does it (cross_driven), and by
  the next one's motion rendered on their own body (cross_rendered);
* knob: the cases of self again, told by --motion 0, 0.5, 1, 1.5 and 2 how lively the scene is, and told the truth;
* sheets: contact sheets and short videos of whatever else is chosen; alone, of self, without measuring.

OUT holds report.json, report.md (the bars of issue 3), knob.png, case_NN.png, cross_NN.png, knob_NN.mp4 and so on.

report.json: cases, people, still, frames, steps, seed, size, device, dtype, folder, hash, judge, seconds_per_clip,
suites, and the blocks truth, autoencoder, copy_reference, model, cross_driven, cross_rendered, cross_rendered_truth,
and knob: {told: block} with told = none, 0.0 ... 2.0 and true; change.NAME of such a block is its difference from none
on the same clips, which is what "person error unchanged" means. A figure is {value, low, high, clips, frames}: low to
high is a bootstrap interval of 95 % over clips, null where there is nothing to measure. A block's figures:

* psnr_all, psnr, psnr_still, psnr_person, psnr_head, psnr_head_large: dB, means over clips. "autoencoder
  reconstruction" of the bars is autoencoder.psnr, "PSNR, still-camera scenes" model.psnr_still, "identity: head crop"
  model.psnr_head: the disc round the head, the prototype's definition (see `training.report.read_pixels`);
* joint_error_pct: mean distance of 13 joints from where they should be (cross_driven: from the retargeted ones),
  percent of the width; mask_iou;
* expressions.NAME over all frames of all people, and expressions_large.NAME over heads of at least 24 px half height:
  correlation of what the judge reads with what was asked for. The bars' single "gaze" is gaze_x alone, as it was in
  the prototype; gaze_y stands beside it;
* scene_motion: change from frame to frame in the background, generated over true, of moving scenes before a still
  camera (the ratio of the sums); scene_motion_median (of the clips' ratios), scene_motion_by_kind.KIND,
  scene_motion_mean and scene_motion_true (0..255); camera_motion: the ratio where the camera moves;
* still_motion: false motion on still walls, 0..255; flicker_still (0..255), flicker_scene, flicker_person (ratios).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from benchmarks.generation import Animator
from benchmarks.held_out import case_params, moved_like, own_job, people_of, render_params, retargeted
from benchmarks.pictures import write_curve, write_movie, write_sheet
from benchmarks.table import markdown
from tqdm import tqdm
from xdyna.training.figures import Figure, Tally, nested
from xdyna.training.judge import Judge
from xdyna.training.report import Truth, read_person, read_pixels

from xdyna import media
from xdyna.errors import OptionError, XdynaError
from xdyna.pipeline import XDynaPipeline

SUITES = ("self", "cross", "knob", "sheets")
KNOBS = (0.0, 0.5, 1.0, 1.5, 2.0)
KEPT_BY_KNOB = ("joint_error_pct", "psnr_person", "psnr_head")
"""What the knob should not change."""
MOVIES = 4
"""How many cases of each suite become a video, too."""
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        cases, frames: how many clips of how many frames.
        size: (height, width).
        batch: cases rendered and generated together.
        suites: some of `SUITES`.
        output: folder of the pictures.
    """

    cases: int
    frames: int
    size: tuple[int, int]
    batch: int
    suites: tuple[str, ...]
    output: Path

    def shows(self) -> bool:
        """Whether sheets are wanted."""
        return "sheets" in self.suites


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    try:
        report = run(given)
    except XdynaError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print(markdown(report))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embedded_model", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--model", default="embedded", help="a model folder, or embedded")
    parser.add_argument("--judge", default=str(_HERE / "judge.safetensors"), help="judge of a training run")
    parser.add_argument("--cases", type=int, default=16)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--steps", type=int, help="sampling steps; by default the model's own")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the start noise; the cases are always the same"
    )
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="by default the model's own")
    parser.add_argument("--suite", nargs="+", choices=SUITES, default=list(SUITES))
    parser.add_argument("--batch", type=int, help="cases at a time; by default 8, and 1 on a CPU")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto", help="as of xdyna animate")
    parser.add_argument("-o", "--output", required=True)
    return parser


def run(given: argparse.Namespace) -> dict[str, Any]:
    """Load, measure, write; returns the report."""
    if min(given.cases, given.frames) < 1:
        raise OptionError("--cases, --frames", "must be at least 1")
    output = Path(given.output)
    output.mkdir(parents=True, exist_ok=True)
    pipeline = XDynaPipeline.from_pretrained(given.model, device=given.device, dtype=given.dtype)
    judge = Judge.load(given.judge, device=pipeline.device)
    preset = pipeline.preset
    plan = Plan(
        cases=given.cases,
        frames=given.frames,
        size=tuple(given.size) if given.size else (preset.height, preset.width),
        batch=given.batch or (1 if pipeline.device.type == "cpu" else 8),
        suites=tuple(given.suite),
        output=output,
    )
    animator = Animator(pipeline, steps=given.steps, seed=given.seed)
    report = measure(animator, judge, plan)
    report = {"folder": str(given.model), "hash": pipeline.hash, "judge": str(given.judge), **report}
    media.write_json(output / "report.json", report)
    (output / "report.md").write_text(markdown(report), encoding="utf-8")
    return report


def measure(animator: Animator, judge: Judge, plan: Plan) -> dict[str, Any]:
    """Generate and measure, some cases at a time; pictures go to the plan's folder.

    Returns:
        the report as the top of this file says, but for the names of the files used.
    """
    pipeline, tally = animator.pipeline, Tally()
    chosen = set(plan.suites)
    by_itself = bool(chosen & {"self", "knob"}) or chosen == {"sheets"}
    if "knob" in chosen and not pipeline.preset.motion_energy:
        print("knob: left out, this model cannot be told how lively a scene is", file=sys.stderr)
        chosen.discard("knob")
    params = case_params(range(plan.cases), frames=plan.frames)
    people = people_of(plan.cases, frames=plan.frames)
    crossed = people if "cross" in chosen and len(people) > 1 else []
    told = ["none", *(str(knob) for knob in KNOBS), "true"] if "knob" in chosen else ["none"]
    total = by_itself * plan.cases * len(told) + 2 * len(crossed)
    with torch.inference_mode(), tqdm(total=total, unit="clip", dynamic_ncols=True) as bar:
        if by_itself:
            for cases in _groups(range(plan.cases), plan.batch):
                _drive_by_themselves(animator, judge, plan, cases, told, tally, bar)
        for cases in _groups(crossed, plan.batch):
            _drive_across(animator, judge, plan, cases, people, tally, bar)
    report: dict[str, Any] = {
        "cases": plan.cases, "people": len(people), "still": int(params.scene.still().sum()), "frames": plan.frames,
        "steps": animator.options.steps, "seed": animator.seed, "size": list(plan.size),
        "device": _device_name(pipeline.device), "dtype": str(pipeline.unet.dtype).removeprefix("torch."),
        "suites": list(plan.suites), "seconds_per_clip": round(animator.seconds / max(animator.clips, 1), 3),
    }  # fmt: skip
    for block in tally.blocks():
        if "." not in block:
            report[block] = nested(tally.figures(block))
    if "knob" in chosen:
        report["knob"] = {name: nested(_knob_figures(tally, name)) for name in told}
        write_curve(plan.output / "knob.png", knob_panels(tally))
    return report


def _knob_figures(tally: Tally, name: str) -> dict[str, Figure]:
    changes = {f"change.{kept}": tally.change(f"knob.{name}", "knob.none", kept) for kept in KEPT_BY_KNOB}
    return {**tally.figures(f"knob.{name}"), **changes}


def knob_panels(tally: Tally) -> dict[str, Any]:
    """What the curve of --motion shows: how much scenes move, and whether the person suffers."""
    blocks = {knob: tally.figures(f"knob.{knob}") for knob in KNOBS}

    def curve(name: str) -> list[Any]:
        return [(knob, figures[name]) for knob, figures in blocks.items() if name in figures]

    return {
        "change from frame to frame, 0..255": {
            "moving scenes": curve("scene_motion_mean"),
            "their truth": curve("scene_motion_true"),
            "still walls": curve("still_motion"),
        },
        "joint error, % of width": {"people": curve("joint_error_pct")},
        "PSNR of the person, dB": {"people": curve("psnr_person")},
    }


def _drive_by_themselves(
    animator: Animator,
    judge: Judge,
    plan: Plan,
    cases: list[int],
    told: list[str],
    tally: Tally,
    bar: tqdm[Any],
) -> None:
    """Some cases driven by their own clips: the suites self and knob."""
    batch = render_params(
        case_params(cases, frames=plan.frames), size=plan.size, device=animator.pipeline.device,
        landmarks=animator.pipeline.preset.landmarks,
    )  # fmt: skip
    truth, job = Truth.of(batch), own_job(batch, cases)
    videos = {}
    for name in told:
        energy: Any = None
        if name != "none":
            energy = batch.motion_energy if name == "true" else animator.pipeline.preset.energy(float(name))
        videos[name] = animator(job, energy=energy)
        bar.update(len(cases))
        if "knob" in plan.suites:
            _record(tally, f"knob.{name}", videos[name], truth, judge)
    if "self" in plan.suites:
        _record(tally, "truth", truth.frames, truth, judge)
        _record(tally, "autoencoder", animator.rebuilt(truth.frames), truth, judge)
        _record(tally, "copy_reference", batch.frames[:, :1].expand_as(truth.frames), truth, judge)
        _record(tally, "model", videos["none"], truth, judge)
    for row, case in enumerate(cases if plan.shows() else ()):
        shown = {
            "reference": batch.frames[row, :1], "pose": job.pose[row], "face, global": job.face[row, :, 3:],
            "truth": truth.frames[row], "result": videos["none"][row],
        }  # fmt: skip
        write_sheet(plan.output / f"case_{case:02d}.png", shown)
        if case < MOVIES:
            write_movie(plan.output / f"case_{case:02d}.mp4", shown)
            if len(told) > 1:
                levels = {f"--motion {name}": videos[name][row] for name in told[1:-1]}
                write_movie(plan.output / f"knob_{case:02d}.mp4", {"truth": truth.frames[row], **levels})


def _drive_across(
    animator: Animator,
    judge: Judge,
    plan: Plan,
    cases: list[int],
    people: list[int],
    tally: Tally,
    bar: tqdm[Any],
) -> None:
    """Some people driven by the next ones: the suite cross."""
    others = [people[(people.index(case) + 1) % len(people)] for case in cases]
    device, landmarks = animator.pipeline.device, animator.pipeline.preset.landmarks
    own, theirs = (case_params(numbers, frames=plan.frames) for numbers in (cases, others))
    batch, drivers, rendered = (
        render_params(params, size=plan.size, device=device, landmarks=landmarks)
        for params in (own, theirs, moved_like(own, theirs))
    )
    driven = retargeted(batch, drivers, cases, landmarks=landmarks)
    video = animator(driven.job)
    bar.update(len(cases))
    tally.add(
        "cross_driven",
        read_person(video, body=driven.body, head=driven.head, expression=driven.expression, judge=judge),
    )
    # The reference shows the person as they stood; what follows is the other's motion on their body.
    rendered.frames[:, 0] = batch.frames[:, 0]
    truth, job = Truth.of(rendered), own_job(rendered, cases)
    again = animator(job)
    bar.update(len(cases))
    _record(tally, "cross_rendered", again, truth, judge)
    _record(tally, "cross_rendered_truth", truth.frames, truth, judge)
    for row, case in enumerate(cases if plan.shows() else ()):
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
        write_sheet(plan.output / f"cross_{case:02d}.png", rows)
        if people.index(case) < MOVIES:
            write_movie(plan.output / f"cross_{case:02d}.mp4", shown)


def _record(tally: Tally, block: str, video: torch.Tensor, truth: Truth, judge: Judge) -> None:
    tally.add(block, read_pixels(video, truth))
    people = truth.human
    readings = read_person(
        video[people], body=truth.body[people], head=truth.head[people], expression=truth.expression[people],
        mask=truth.mask[people], judge=judge,
    )  # fmt: skip
    tally.add(block, readings)


def _groups(cases: Sequence[int], size: int) -> Iterator[list[int]]:
    for begin in range(0, len(cases), size):
        yield list(cases[begin : begin + size])


def _device_name(device: torch.device) -> str:
    return (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device}, {torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    sys.exit(main())
