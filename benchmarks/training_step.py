"""What a training step costs: every stage of a config, plainly, as CUDA graphs, compiled, or with fused kernels.

    python -m benchmarks.training_step [CONFIG] [--stages clips image] [--ways plain graphs] [--set a.b=c]
        [--share N] [--updates 10] [--profile FOLDER] [--overfit N] [--loader] [-o F]

Prints, for each stage and way: seconds until the first updates are done (libraries, recording, compiling), milliseconds
an update, clips a second, TFLOP/s (as PyTorch's counter counts one update of the first way) beside those of a large
matrix product, peak memory; and what making clips costs, on the device and by the loader's processes. Run it before a
long run, on the machine of that run. What fails is reported, and the rest goes on. `--profile` writes the kernels that
take longest; `--overfit` trains on one batch and prints how its loss falls.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from xdyna.training.ahead import Ahead
from xdyna.training.chunks import SyntheticChunks
from xdyna.training.config import TrainConfig
from xdyna.training.config_file import load_config
from xdyna.training.processes import Processes
from xdyna.training.stages import STAGES
from xdyna.training.trainer import Trainer

WARM_UPS = 5
LOADER_CHUNK = 8
"""Clips of a loader's chunk: few, so that timing two rounds of all processes takes seconds."""
WAYS = {"plain": {}, "graphs": {"graphs": True}, "compiled": {"compile": True},
        "compiled-graphs": {"compile": True, "graphs": True},
        "fused": {"fused": True}, "fused-graphs": {"fused": True, "graphs": True}}  # fmt: skip
"""Ways to run a step: changes of the config's `runtime`."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_step", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("config", nargs="?", default="configs/train/embedded.toml")
    parser.add_argument("--stages", nargs="+", choices=sorted(STAGES))
    parser.add_argument("--ways", nargs="+", choices=sorted(WAYS))
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C")
    parser.add_argument(
        "--share", type=int, default=1, help="divide batches by this, as so many processes would"
    )
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--profile", metavar="FOLDER")
    parser.add_argument("--overfit", type=int, default=0, metavar="N", help="N updates on one batch")
    parser.add_argument("--loader", action="store_true", help="time the loader's processes too")
    parser.add_argument("-o", "--output")
    given = parser.parse_args(arguments)
    config = load_config(given.config, overrides=given.set)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    rows: list[dict[str, Any]] = [{"device": name, "torch": torch.__version__, **ceiling(device)}]

    def add(row: dict[str, Any]) -> None:
        rows.append(row)
        print(row, flush=True)

    print(rows[0], flush=True)
    if config.data.source == "synthetic" and not given.overfit:
        for scatter in (True, False):
            add(rendering(config, scatter, device))
            if given.loader:
                add(loading(config, scatter))
    for stage in given.stages or config.stages:
        for way in given.ways or (
            ("plain", "graphs", "fused", "fused-graphs") if device == "cuda" else ("plain",)
        ):
            try:
                add(measure(config, stage, way, given))
            except (RuntimeError, torch.OutOfMemoryError) as error:
                add({"stage": stage, "way": way, "failed": f"{type(error).__name__}: {error}"[:500]})
    if given.output:
        Path(given.output).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def ceiling(device: str) -> dict[str, Any]:
    """TFLOP/s of one large bf16 matrix product, the most that a step could reach."""
    side = 8192 if device == "cuda" else 512
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        _ = a @ a
    started = clock()
    for _ in range(10):
        _ = a @ a
    return {"matmul_tflops": round(10 * 2 * side**3 / (clock() - started) / 1e12, 1)}


def rendering(config: TrainConfig, scatter: bool, device: str) -> dict[str, Any]:
    """Seconds of a chunk on the training device, after one to warm up."""
    frames = (config.image if scatter else config.clips).frames
    chunks = SyntheticChunks(config, frames, scatter=scatter, device=torch.device(device))
    _ = chunks[0]
    started = clock()
    _ = chunks[1]
    seconds = clock() - started
    clips = config.data.chunk
    return {
        "rendering": "scattered" if scatter else "consecutive", "clips": clips, "frames": frames + 1,
        "seconds": round(seconds, 3), "clips_per_second": round(clips / seconds, 1),
    }  # fmt: skip


def loading(config: TrainConfig, scatter: bool) -> dict[str, Any]:
    """Clips a second from the loader's processes, once they are under way."""
    frames = (config.image if scatter else config.clips).frames
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, chunk=LOADER_CHUNK))
    workers, chunks = max(1, config.runtime.workers), SyntheticChunks(config, frames, scatter=scatter)
    ahead, began = Ahead(chunks, 0, device=torch.device("cpu"), workers=workers), clock()
    for _ in range(workers):
        ahead.take(wait=True)
    started = clock()
    for _ in range(workers):
        ahead.take(wait=True)
    seconds = clock() - started
    ahead.close()
    return {
        "loader": "scattered" if scatter else "consecutive", "workers": workers,
        "first_round_s": round(started - began, 1),
        "clips_per_second": round(workers * config.data.chunk / seconds, 1),
    }  # fmt: skip


def measure(config: TrainConfig, stage: str, way: str, given: argparse.Namespace) -> dict[str, Any]:
    """One stage: time of an update after the first few."""
    settings = config.stage(stage)
    settings = dataclasses.replace(
        settings, pool=config.data.chunk, refresh=0.0, batch=max(1, settings.batch // given.share)
    )
    runtime = dataclasses.replace(
        config.runtime,
        **{"graphs": False, "compile": False, "fused": False, "workers": 0, "save_pools": False, **WAYS[way]},
    )
    config = dataclasses.replace(
        config, stages=(stage,), runtime=runtime, **{stage: settings}  # type: ignore[arg-type]
    )  # fmt: skip
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, Path(folder), Processes(None, precision=runtime.precision), resume=False)
        pool = trainer._enter(stage)
        update = trainer.update
        assert update is not None
        batch = STAGES[stage].draw(trainer.run, pool, settings) if given.overfit else None

        def step() -> dict[str, torch.Tensor]:
            trainer._pace(settings.learning_rate if given.overfit else 1e-5, 1)
            return update(lambda: batch or STAGES[stage].draw(trainer.run, pool, settings))

        started = clock()
        first_loss = step()["loss"].item()
        for _ in range(WARM_UPS - 1):
            losses = step()
        first = clock() - started
        updates = given.overfit or given.updates
        started = clock()
        for _ in range(updates):
            losses = step()
        seconds = (clock() - started) / updates
        flops = count(step) if way == "plain" else 0
        if given.profile and cuda:
            write_profile(step, Path(given.profile) / f"{stage}-{way}.txt")
    row = {
        "stage": stage, "way": way, "batch": settings.batch, "first_s": round(first, 2),
        "update_ms": round(1e3 * seconds, 1), "clips_per_second": round(settings.batch / seconds, 2),
        "peak_GiB": round(torch.cuda.max_memory_allocated() / 2**30, 2) if cuda else None,
        "first_loss": round(first_loss, 4), "loss": round(losses["loss"].item(), 4),
    }  # fmt: skip
    if flops:
        row |= {"tflop": round(flops / 1e12, 3), "tflops": round(flops / seconds / 1e12, 1)}
    return row


def count(step: Any) -> int:
    """Floating point operations of an update, what is computed again under checkpointing included."""
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def write_profile(step: Any, path: Path) -> None:
    """Kernels of one update: those that take longest, and the same by the shapes that they work on."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities, record_shapes=True) as profile:
        step()
        torch.cuda.synchronize()
    path.parent.mkdir(parents=True, exist_ok=True)
    shapes = profile.key_averages(group_by_input_shape=True)
    path.write_text(
        profile.key_averages().table(sort_by="self_cuda_time_total", row_limit=40, max_name_column_width=90)
        + shapes.table(sort_by="self_cuda_time_total", row_limit=60, max_name_column_width=60,
                       max_shapes_column_width=120),
        encoding="utf-8",
    )  # fmt: skip


def clock() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic()


if __name__ == "__main__":
    main()
