"""How well a model does on held-out synthetic people and scenes.

    python -m benchmarks.embedded_model --model DIR --judge FILE --cases 16 --steps 8 -o OUT

writes OUT/report.json and contact sheets. The cases are fixed by seed and no training may see them
(`xdyna.data.synthetic.HELD_OUT_SEED`). Measured beside the model: its autoencoder alone, the ceiling that its videos
cannot pass, and "copy the reference", the floor that they must.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from xdyna.data.synthetic import HELD_OUT_SEED, SyntheticBatch, make_batch
from xdyna.sampling import Controls, Networks, WindowPlan, denoise, start_latents
from xdyna.training.judge import Judge
from xdyna.training.report import Truth, judged_measures, pixel_measures, sheet
from xdyna.weights import load_components, read_preset, resolve

CHUNK = 8
"""Cases rendered by one call."""
DECODE_BATCH = 16
HUMAN_SHARE, STILL_SHARE = 0.8, 0.5
NETWORKS = ("unet", "vae", "pose_controlnet", "face_controlnet", "scheduler")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embedded_model", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--model", default="embedded", help="a model folder, or embedded")
    parser.add_argument("--judge", required=True, help="judge.safetensors of a training run")
    parser.add_argument("--cases", type=int, default=16)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument(
        "--seed", type=int, default=0, help="of the start noise; the cases are always the same"
    )
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="by default the model's own")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-cross", action="store_true", help="leave out driving by another person")
    parser.add_argument("-o", "--output", required=True)
    given = parser.parse_args(arguments)

    folder, output = resolve(given.model), Path(given.output)
    output.mkdir(parents=True, exist_ok=True)
    preset = read_preset(folder)
    size = tuple(given.size) if given.size else (preset.height, preset.width)
    parts = load_components(folder, dtype=torch.float32, device=given.device, names=NETWORKS)
    judge = Judge.load(given.judge, device=given.device)
    with torch.inference_mode():
        report, sheets = measure(
            parts, judge, cases=given.cases, frames=given.frames, steps=given.steps, seed=given.seed,
            size=size, cross=not given.no_cross, shared_noise=preset.shared_noise,
        )  # fmt: skip
    report["folder"] = str(given.model)
    (output / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for name, picture in sheets.items():
        Image.fromarray(picture).save(output / f"{name}.png", optimize=True)
    print(json.dumps(report, indent=2))


def measure(
    parts: dict[str, Any],
    judge: Judge,
    *,
    cases: int,
    frames: int,
    steps: int,
    seed: int,
    size: tuple[int, int],
    cross: bool,
    shared_noise: float = 0.0,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Generate and measure.

    Args:
        parts: networks and scheduler, as `load_components` gives them.
        judge: the judge.
        cases: held-out clips.
        frames: frames of each besides the reference.
        steps: sampling steps.
        seed: of the start noise.
        size: (height, width).
        cross: also drive every person by the next one's motion.
        shared_noise: of the start noise, as the model was trained.

    Returns:
        the report; contact sheets (h w 3) uint8 by name.
    """
    device = next(parts["unet"].parameters()).device
    batch = held_out(cases, frames=frames, size=size, device=device)
    truth = truth_of(batch)
    vae = parts["vae"]
    rebuilt = decode(vae, encode(vae, truth.frames.flatten(0, 1))).unflatten(0, truth.frames.shape[:2])
    copied = batch.frames[:, :1].expand_as(truth.frames)
    started = time.monotonic()
    videos = generate(parts, batch, steps=steps, seed=seed, shared_noise=shared_noise)
    seconds = time.monotonic() - started
    report: dict[str, Any] = {
        "cases": cases, "people": int(truth.human.sum()), "still": int(truth.still.sum()), "frames": frames,
        "steps": steps, "seed": seed, "size": list(size), "device": str(device),
        "seconds_per_clip": round(seconds / cases, 2),
    }  # fmt: skip
    for name, video in (("model", videos), ("autoencoder", rebuilt), ("copy_reference", copied)):
        report[name] = rounded(pixel_measures(video, truth) | judged_measures(video, truth, judge=judge))
    rows = {"reference": batch.frames[:, :1], "pose": batch.pose[:, 1:], "face": batch.face_global[:, 1:]}
    sheets = {
        f"case_{case:02d}": sheet([clip[case] for clip in (*rows.values(), truth.frames, videos)])
        for case in range(cases)
    }
    people = truth.human.nonzero().flatten()
    if cross and len(people) > 1:
        driver = torch.arange(cases, device=device)
        driver[people] = people.roll(1)
        swapped = generate(parts, batch, steps=steps, seed=seed, shared_noise=shared_noise, driver=driver)
        driven = dataclasses.replace(
            truth, mask=truth.mask[driver], body=truth.body[driver], head=truth.head[driver],
            expression=truth.expression[driver],
        )  # fmt: skip
        report["cross_driven"] = rounded(judged_measures(swapped, driven, judge=judge))
        for case in people[:4].tolist():
            other = int(driver[case])
            sheets[f"cross_{case:02d}"] = sheet(
                [batch.frames[case, :1], batch.pose[other, 1:], truth.frames[other], swapped[case]]
            )
    return report, sheets


def held_out(cases: int, *, frames: int, size: tuple[int, int], device: torch.device) -> SyntheticBatch:
    """The fixed cases, the same on every device, whatever their number."""
    batches = [
        make_batch(
            HELD_OUT_SEED + number, CHUNK, frames=frames, size=size, device=device, human_share=HUMAN_SHARE,
            still_share=STILL_SHARE,
        )
        for number in range(math.ceil(cases / CHUNK))
    ]  # fmt: skip
    fields = {
        item.name: [getattr(batch, item.name) for batch in batches]
        for item in dataclasses.fields(SyntheticBatch)
    }
    return SyntheticBatch(**{name: torch.cat(values)[:cases] for name, values in fields.items()})


def truth_of(batch: SyntheticBatch) -> Truth:
    """What is known of the frames after the reference."""
    return Truth(
        frames=batch.frames[:, 1:].float(), mask=batch.mask[:, 1:].float(), body=batch.body[:, 1:].float(),
        head=batch.head[:, 1:].float(), expression=batch.expression[:, 1:].float(), human=batch.human,
        still=batch.still,
    )  # fmt: skip


def generate(
    parts: dict[str, Any],
    batch: SyntheticBatch,
    *,
    steps: int,
    seed: int,
    shared_noise: float,
    driver: torch.Tensor | None = None,
) -> torch.Tensor:
    """Every case's video, (n f 3 h w) in [0, 1]; case i is driven by case `driver[i]`."""
    networks = Networks(parts["unet"], parts["pose_controlnet"], parts["face_controlnet"])
    scheduler, vae = parts["scheduler"], parts["vae"]
    face = torch.cat([batch.face_local, batch.face_global], 2)
    videos = []
    for case in range(len(batch.frames)):
        source = case if driver is None else int(driver[case])
        generator = torch.Generator().manual_seed(seed + case)
        scheduler.set_timesteps(steps)
        reference = encode(vae, batch.frames[case, :1].float())
        count = batch.frames.shape[1] - 1
        latents = denoise(
            networks,
            scheduler,
            reference=reference,
            latents=start_latents(
                reference, count, scheduler, generator=generator, shared_noise=shared_noise
            ),
            controls=Controls(
                pose=lambda picks, source=source: batch.pose[source, 1:][list(picks)][None].float(),
                face=lambda picks, source=source: face[source, 1:][list(picks)][None].float(),
            ),
            plan=WindowPlan(loop="open"),
            generator=generator,
        )
        videos.append(decode(vae, latents[0].transpose(0, 1)))
    return torch.stack(videos)


def encode(vae: Any, pictures: torch.Tensor) -> torch.Tensor:
    """(n 3 h w) in [0, 1] -> scaled latents."""
    mean = torch.cat([vae.encode(part * 2 - 1).latent_dist.mean for part in pictures.split(DECODE_BATCH)])
    return (mean - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor


def decode(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Scaled latents -> (n 3 h w) in [0, 1]."""
    latents = latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
    pixels = torch.cat([vae.decode(part).sample for part in latents.split(DECODE_BATCH)])
    return (pixels / 2 + 0.5).clamp(0, 1)


def rounded(measures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in measures.items()}


if __name__ == "__main__":
    main()
