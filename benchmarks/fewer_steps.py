"""What the approximate savings of the denoising loop gain and cost: features reused, guidance in an interval.

    python -m benchmarks.fewer_steps [--model embedded] [--cases 2] [--frames 16] [--steps 8] [--rounds 2] [-o F]

Denoises held-out cases of synthbench by the exact loop and by each saving, one after the other, so many rounds in one
run (A B A B), and prints for each: seconds (median; of this process's own time on a CPU, which others may be using),
ratio to the exact way of the same run, the relative error of the final latents, and the PSNR of the decoded pictures
between the two. `cache N` is `--cache N`. `halves` runs two guidance halves that read the same (the embedded model has
one only), and `interval` guides between a quarter and three quarters of the noise schedule: their ratio is what the
interval saves where guidance is used.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xdyna.pipeline import XDynaPipeline
from xdyna.sampling import (
    Controls,
    Networks,
    Shortcuts,
    Tokens,
    WindowPlan,
    denoise,
    encode_reference,
    make_scheduler,
    set_timesteps,
    start_latents,
)
from xdyna.synthbench.cases import case_params, own_job, render_params, to_bytes
from xdyna.synthbench.generation import Animator

GUIDANCE = 2.0
WAYS: dict[str, tuple[str, float, Shortcuts]] = {
    "exact": ("", 1.0, Shortcuts()),
    "cache 2": ("exact", 1.0, Shortcuts(cache=2)),
    "cache 3": ("exact", 1.0, Shortcuts(cache=3)),
    "halves": ("", GUIDANCE, Shortcuts()),
    "interval": ("halves", GUIDANCE, Shortcuts(guidance_interval=(0.25, 0.75))),
}
"""Name -> what it is compared with, guidance, savings."""


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Measure and print; returns a row a way."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fewer_steps", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--cases", type=int, default=2)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--ways", nargs="+", choices=sorted(WAYS), default=list(WAYS))
    parser.add_argument("--size", type=int, help="sides of the picture; by default the model's own")
    parser.add_argument("-o", "--output")
    given = parser.parse_args(arguments)
    pipeline = XDynaPipeline.from_pretrained(given.model)
    animator = Animator(pipeline, steps=given.steps)
    side = (given.size, given.size) if given.size else (pipeline.preset.height, pipeline.preset.width)
    clock = time.process_time if pipeline.device.type == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {way: [] for way in given.ways}
    errors: dict[str, list[tuple[float, float]]] = {way: [] for way in given.ways}
    for case in range(given.cases):
        run = denoiser(pipeline, case, frames=given.frames, size=side, steps=given.steps)
        for _ in range(given.rounds):
            made: dict[str, Tensor] = {}
            for way in given.ways:
                base, guidance, shortcuts = WAYS[way]
                begin = clock()
                made[way] = run(guidance, shortcuts)
                if made[way].is_cuda:
                    torch.cuda.synchronize()
                seconds[way].append(clock() - begin)
                if base in made:
                    errors[way].append(apart(animator, made[way], made[base]))
    rows = [row(way, seconds, errors[way]) for way in given.ways]
    header = {"device": str(pipeline.device), "torch": torch.__version__, "threads": torch.get_num_threads(),
              "cases": given.cases, "frames": given.frames, "steps": given.steps, "size": side}  # fmt: skip
    for line in [header, *rows]:
        print(line, flush=True)
    if given.output:
        Path(given.output).write_text(json.dumps([header, *rows], indent=2) + "\n", encoding="utf-8")
    return rows


def denoiser(
    pipeline: XDynaPipeline, case: int, *, frames: int, size: tuple[int, int], steps: int
) -> Callable[[float, Shortcuts], Tensor]:
    """A case, ready to be denoised with some guidance and savings: the same noise and windows every time."""
    batch = render_params(case_params([case], frames=frames), size=size, device=pipeline.device)
    job = own_job(batch, [case])

    @torch.inference_mode()
    def run(guidance: float, shortcuts: Shortcuts) -> Tensor:
        generator = torch.Generator().manual_seed(case)
        scheduler = make_scheduler(None, pipeline.scheduler)
        set_timesteps(scheduler, steps, pipeline.device)
        reference = encode_reference(pipeline.vae, to_bytes(job.reference)[0], generator=generator)
        latents = start_latents(
            reference, frames, scheduler, generator=generator, shared_noise=pipeline.preset.shared_noise
        )
        return denoise(
            Networks(pipeline.unet, pipeline.pose_controlnet, pipeline.face_controlnet), scheduler,
            reference=reference, latents=latents, negative=Tokens(), guidance=guidance,
            controls=Controls(
                pose=lambda picks: job.pose[:, list(picks)], face=lambda picks: job.face[:, list(picks)],
                reference_pose=job.reference_pose if pipeline.preset.reference_pose else None,
            ),
            plan=WindowPlan(), generator=generator, shortcuts=shortcuts,
        )  # fmt: skip

    return run


@torch.inference_mode()
def apart(animator: Animator, latents: Tensor, others: Tensor) -> tuple[float, float]:
    """Relative error of latents, and the PSNR in dB between what they decode to."""
    error = ((latents - others).norm() / others.norm()).item()
    first, second = (animator.decoded(value[0].transpose(0, 1)) for value in (latents, others))
    gap = (first - second).square().mean().clamp(min=1e-6)
    return error, -10 * gap.log10().item()


def row(way: str, seconds: dict[str, list[float]], errors: list[tuple[float, float]]) -> dict[str, Any]:
    """Medians of a way, beside those of what it is compared with."""
    base = WAYS[way][0]
    result: dict[str, Any] = {"way": way, "seconds": round(statistics.median(seconds[way]), 3)}
    if base in seconds:
        pairs = zip(seconds[way], seconds[base], strict=True)
        ratios = sorted(theirs / ours for ours, theirs in pairs)
        result |= {"times as fast": round(statistics.median(ratios), 3),
                   "spread": [round(ratios[0], 3), round(ratios[-1], 3)]}  # fmt: skip
    if errors:
        result |= {"relative error": round(statistics.mean(error for error, _ in errors), 4),
                   "dB": round(statistics.mean(psnr for _, psnr in errors), 2)}  # fmt: skip
    return result


if __name__ == "__main__":
    main()
