"""What the published model costs on a GPU, with random weights of its widths: the table of issue 5.

    python -m benchmarks.full_size [--ways plain channels-last compiled] [--frames 16 192] [--dtype float16] [-o F]

The protocol is the official code's: 896 x 512, windows of 16 + 1 frames with an overlap of 4, guidance 7.5 with equal
text in both halves, pose and S-Face ControlNets. Prints, for each way: seconds of a denoising step of a clip of so many
frames (median of --repeats, after --warm-up), milliseconds of decoding a frame, peak memory, seconds of the very first
step, and how far a step's prediction is from the plain path's in float32 (relative error). `--width tiny` is a small
model, to try the script on a CPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch

from xdyna.sampling import (
    Controls,
    Networks,
    Tokens,
    WindowPlan,
    decode_latents,
    denoise,
    make_scheduler,
    set_timesteps,
)
from xdyna.training.config_file import load_config
from xdyna.training.networks import Networks as Parts
from xdyna.training.networks import build_networks, build_scheduler

WAYS = ("plain", "channels-last", "compiled")
WINDOW, OVERLAP = 16, 4
CONFIGS = {"full": "configs/train/sd15.toml", "tiny": "configs/train/smoke.toml"}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full_size", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["plain", "channels-last"])
    parser.add_argument("--frames", nargs="+", type=int, default=[16, 192])
    parser.add_argument("--size", nargs=2, type=int, default=[896, 512], metavar=("H", "W"))
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--width", choices=sorted(CONFIGS), default="full")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--no-error", action="store_true", help="leave the comparison with float32 out")
    parser.add_argument("-o", "--output")
    given = parser.parse_args(arguments)
    diffusers.utils.logging.set_verbosity_error()  # it warns of every .to()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    rows: list[dict[str, Any]] = [{"device": name, "torch": torch.__version__, "dtype": given.dtype}]
    print(rows[0], flush=True)
    parts = build(given.width, device)
    exact = None if given.no_error else first_step(parts, given, torch.float32)
    for way in given.ways:
        row = measure(parts, way, given, exact)
        rows.append(row)
        print(row, flush=True)
    if given.output:
        Path(given.output).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def build(width: str, device: torch.device) -> Parts:
    """Random networks, float32, every zero-initialised layer filled, so that nothing is skipped by luck."""
    parts = build_networks(load_config(CONFIGS[width]), seed=0)
    generator = torch.Generator().manual_seed(1)
    for network in parts.named().values():
        network.requires_grad_(False).eval()
        for parameter in network.parameters():
            if not parameter.any():
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
        network.to(device)
    return parts


def measure(parts: Parts, way: str, given: argparse.Namespace, exact: torch.Tensor | None) -> dict[str, Any]:
    """One way: times and memory for each length, and how far it is from float32."""
    dtype = getattr(torch, given.dtype)
    row: dict[str, Any] = {"way": way}
    with_way(parts, way, dtype)
    started = clock()
    found = first_step(parts, given, dtype)
    row["first_s"] = round(clock() - started, 2)
    if exact is not None:
        row["relative_error"] = float(((found - exact).norm() / exact.norm()).item())
    for frames in given.frames:
        reset_peak()
        run = stepper(parts, frames, given, dtype)
        row[f"step_{frames}_s"] = round(timed(run, given), 4)
        row[f"peak_{frames}_GiB"] = peak()
    reset_peak()
    latents = torch.randn(8, parts.vae.config.latent_channels, given.size[0] // 8, given.size[1] // 8)
    latents = latents.to(device_of(parts))
    row["decode_ms_a_frame"] = round(1e3 * timed(lambda: decode_latents(parts.vae, latents), given) / 8, 2)
    row["decode_peak_GiB"] = peak()
    return row


def with_way(parts: Parts, way: str, dtype: torch.dtype) -> None:
    """Bring the networks into a number format and a layout, compiled or not."""
    layout = torch.contiguous_format if way == "plain" else torch.channels_last
    for network in parts.named().values():
        network.to(dtype=dtype, memory_format=layout)
    if way == "compiled":
        for network in (parts.unet, parts.pose_controlnet, parts.face_controlnet):
            if network is not None:
                network.compile()


def stepper(
    parts: Parts, frames: int, given: argparse.Namespace, dtype: torch.dtype
) -> Callable[[], torch.Tensor]:
    """A function that does one denoising step of a clip of so many frames."""
    device, (height, width) = device_of(parts), given.size
    generator = torch.Generator().manual_seed(0)
    channels = parts.unet.config.in_channels
    shape = (height // 8, width // 8)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator).to(device)

    reference, latents = normal(1, channels, *shape), normal(1, channels, frames, *shape)
    pose = torch.rand(1, 3, height, width, generator=generator).to(device, dtype)
    face = torch.rand(1, 6, height, width, generator=generator).to(device, dtype)
    scheduler = make_scheduler("ddim", build_scheduler(load_config(CONFIGS[given.width]).noise))
    set_timesteps(scheduler, 25, device)
    scheduler.timesteps = scheduler.timesteps[:1]
    tokens, negative, guidance = Tokens(), None, 1.0
    if parts.unet.reads_tokens or given.width == "full":
        text, width_ = normal(1, 77, 768).to(dtype), 768
        tokens = Tokens(text=text, image=normal(1, 16, width_).to(dtype))
        negative, guidance = Tokens(text=text, image=normal(1, 16, width_).to(dtype)), 7.5

    def controls(picture: torch.Tensor) -> Callable[[Sequence[int]], torch.Tensor]:
        return lambda picks: picture[:, None].expand(-1, len(picks), -1, -1, -1)

    def run() -> torch.Tensor:
        predictions: list[torch.Tensor] = []
        denoise(
            Networks(parts.unet, parts.pose_controlnet, parts.face_controlnet),
            scheduler,
            reference=reference,
            latents=latents,
            tokens=tokens,
            negative=negative,
            controls=Controls(pose=controls(pose), face=controls(face)),
            guidance=guidance,
            plan=WindowPlan(WINDOW, OVERLAP, "closed"),
            offsets=[0],
            generator=torch.Generator().manual_seed(0),
            on_step=lambda step: predictions.append(step.prediction),
        )
        return predictions[0]

    return run


@torch.inference_mode()
def first_step(parts: Parts, given: argparse.Namespace, dtype: torch.dtype) -> torch.Tensor:
    """What is predicted in one step of the shortest clip, float32 on the CPU."""
    if dtype == torch.float32:
        with_way(parts, "plain", dtype)
    return stepper(parts, min(given.frames), given, dtype)().float().cpu()


@torch.inference_mode()
def timed(run: Callable[[], Any], given: argparse.Namespace) -> float:
    """Median seconds."""
    for _ in range(given.warm_up):
        run()
    seconds = []
    for _ in range(given.repeats):
        started = clock()
        run()
        seconds.append(clock() - started)
    return statistics.median(seconds)


def device_of(parts: Parts) -> torch.device:
    return next(parts.unet.parameters()).device


def clock() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic()


def reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak() -> float | None:
    return round(torch.cuda.max_memory_reserved() / 2**30, 2) if torch.cuda.is_available() else None


if __name__ == "__main__":
    main()
