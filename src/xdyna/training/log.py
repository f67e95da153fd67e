"""The log of a run: mean losses every so often, a JSON line in a file and a human one."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xdyna.media import write_image
from xdyna.training.config import RuntimeConfig

logger = logging.getLogger(__name__)

LOG_FILE = "log.jsonl"


class TrainLog:
    """Mean losses every so often: a JSON line in the run's log, a line for people, and TensorBoard's.

    Args:
        folder: the run's.
        stage: under which name.
        runtime: how often, and whether TensorBoard is wanted.
    """

    def __init__(self, folder: Path, stage: str, runtime: RuntimeConfig) -> None:
        self.folder, self.stage, self.runtime = folder, stage, runtime
        self.sums: dict[str, torch.Tensor] = {}
        self.count, self.since = 0, time.monotonic()
        self.line: dict[str, float] = {}

    def add(
        self,
        losses: dict[str, torch.Tensor],
        *,
        steps: int,
        seconds: float,
        rate: float,
        clips: int,
        share: float,
        made: int,
    ) -> None:
        """Count one step in; write when it is time. `made` is how many clips the stage's pools have made so far: fewer
        fresh ones than `refresh` asks for mean that old ones are seen too often."""
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach().float()
        self.count += 1
        self.line = {
            "step": steps,
            "seconds": round(seconds, 1),
            "rate": rate,
            "share": round(share, 4),
            "clips": clips,
            "made": made,
        }
        if time.monotonic() - self.since >= self.runtime.log_seconds:
            self.write()

    def write(self) -> None:
        """Write the line, if any step was counted since the last."""
        if not self.count:
            return
        now = time.monotonic()
        means = {name: round(float(value) / self.count, 5) for name, value in self.sums.items()}
        per_second = self.line["clips"] * self.count / max(now - self.since, 1e-6)
        entry = {"stage": self.stage, **self.line, "clips_per_second": round(per_second, 2), **means}
        with (self.folder / LOG_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        text = " ".join(f"{name} {value:.4f}" for name, value in means.items())
        logger.info(
            "%s %3.0f %% step %d (%.0f s): %s, %.1f clips/s, rate %.1e",
            self.stage, 100 * self.line["share"], self.line["step"], self.line["seconds"], text, per_second,
            self.line["rate"],
        )  # fmt: skip
        steps = int(self.line["step"])
        with _writer(self.folder, self.runtime) as writer:
            if writer is not None:
                shown = {**means, "rate": self.line["rate"], "clips_per_second": per_second}
                for name, number in shown.items():
                    writer.add_scalar(f"{self.stage}/{name}", number, steps)
        self.sums, self.count, self.since = {}, 0, now

    @staticmethod
    def show(folder: Path, runtime: RuntimeConfig, name: str, picture: np.ndarray, *, steps: int) -> None:
        """A picture (h w 3) uint8: a PNG in the run's folder, and TensorBoard's."""
        path = folder / f"{name}-{steps:07d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, picture, overwrite=True)
        with _writer(folder, runtime) as writer:
            if writer is not None:
                writer.add_image(name, picture, steps, dataformats="HWC")


@contextlib.contextmanager
def _writer(folder: Path, runtime: RuntimeConfig) -> Iterator[Any]:
    """TensorBoard's writer, or None where it is not wanted or not installed."""
    if not runtime.tensorboard or importlib.util.find_spec("tensorboard") is None:
        yield None
        return
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"))
    try:
        yield writer
    finally:
        writer.close()
