"""What a training step costs on a GPU: every stage of a config, plain and recorded as CUDA graphs.

    python -m benchmarks.training_step [CONFIG] [--stages clips image] [--set a.b=c] [--updates 10] [--profile] [-o F]

Prints, for each stage: seconds until the first updates are done (libraries, recording), milliseconds an update, clips a
second, peak memory; and what rendering a pool costs. Run it before a long run, on the machine of that run. A stage that
fails is reported, and the others go on. `--profile` lists the kernels that take longest.
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

from xdyna.training.chunks import SyntheticChunks
from xdyna.training.config import TrainConfig
from xdyna.training.config_file import load_config
from xdyna.training.processes import Processes
from xdyna.training.stages import STAGES
from xdyna.training.trainer import Trainer

WARM_UPS = 5


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_step", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("config", nargs="?", default="configs/train/embedded.toml")
    parser.add_argument("--stages", nargs="+", choices=sorted(STAGES))
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C")
    parser.add_argument(
        "--share", type=int, default=1, help="divide batches by this, as so many processes would"
    )
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--plain-only", action="store_true", help="leave CUDA graphs out")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("-o", "--output")
    given = parser.parse_args(arguments)
    config = load_config(given.config, overrides=given.set)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    print(f"{name}, torch {torch.__version__}", flush=True)
    rows: list[dict[str, Any]] = []
    if config.data.source == "synthetic":
        rows += [rendering(config, scatter, device) for scatter in (True, False)]
        for row in rows:
            print(row, flush=True)
    for stage in given.stages or config.stages:
        for graphs in (False, True) if device == "cuda" and not given.plain_only else (False,):
            try:
                row = measure(
                    config, stage, graphs, share=given.share, updates=given.updates, profile=given.profile
                )
            except (RuntimeError, torch.OutOfMemoryError) as error:
                row = {"stage": stage, "graphs": graphs, "failed": f"{type(error).__name__}: {error}"[:500]}
            rows.append(row)
            print(row, flush=True)
    if given.output:
        Path(given.output).write_text(
            json.dumps({"device": name, "rows": rows}, indent=2) + "\n", encoding="utf-8"
        )


def rendering(config: TrainConfig, scatter: bool, device: str) -> dict[str, Any]:
    """Seconds of a chunk, after one to warm up."""
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


def measure(
    config: TrainConfig, stage: str, graphs: bool, *, share: int, updates: int, profile: bool
) -> dict[str, Any]:
    """One stage: time of an update after the first few."""
    settings = config.stage(stage)
    settings = dataclasses.replace(
        settings, pool=config.data.chunk, refresh=0.0, batch=settings.batch // share
    )
    runtime = dataclasses.replace(config.runtime, graphs=graphs, workers=0, save_pools=False)
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

        def step() -> dict[str, torch.Tensor]:
            trainer._pace(1e-5, 1)
            return update(lambda: STAGES[stage].draw(trainer.run, pool, settings))

        started = clock()
        for _ in range(WARM_UPS):
            losses = step()
        first = clock() - started
        started = clock()
        for _ in range(updates):
            losses = step()
        seconds = (clock() - started) / updates
        if profile and cuda:
            show_profile(step)
    return {
        "stage": stage, "graphs": graphs, "batch": settings.batch, "first_s": round(first, 2),
        "update_ms": round(1e3 * seconds, 1), "clips_per_second": round(settings.batch / seconds, 1),
        "peak_GiB": round(torch.cuda.max_memory_allocated() / 2**30, 2) if cuda else None,
        "loss": round(losses["loss"].item(), 4),
    }  # fmt: skip


def show_profile(step: Any) -> None:
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        step()
        torch.cuda.synchronize()
    averages = profile.key_averages()
    print(averages.table(sort_by="self_cuda_time_total", row_limit=14, max_name_column_width=60), flush=True)


def clock() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic()


if __name__ == "__main__":
    main()
