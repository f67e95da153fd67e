"""The log of a run: mean losses every so often, a JSON line in a file and a human one."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import torch

logger = logging.getLogger(__name__)


class TrainLog:
    """Mean losses every so often: a json line in a file, and a human one."""

    def __init__(self, path: Path, stage: str, *, every: float) -> None:
        self.path, self.stage, self.every = path, stage, every
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
    ) -> None:
        """Count one step in; write when it is time."""
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach().float()
        self.count += 1
        self.line = {
            "step": steps,
            "seconds": round(seconds, 1),
            "rate": rate,
            "share": round(share, 4),
            "clips": clips,
        }
        if time.monotonic() - self.since >= self.every:
            self.write()

    def write(self) -> None:
        """Write the line, if any step was counted since the last."""
        if not self.count:
            return
        now = time.monotonic()
        means = {name: round(float(value) / self.count, 5) for name, value in self.sums.items()}
        per_second = self.line["clips"] * self.count / max(now - self.since, 1e-6)
        entry = {"stage": self.stage, **self.line, "clips_per_second": round(per_second, 2), **means}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        text = " ".join(f"{name} {value:.4f}" for name, value in means.items())
        logger.info(
            "%s %3.0f %% step %d (%.0f s): %s, %.1f clips/s, rate %.1e",
            self.stage, 100 * self.line["share"], self.line["step"], self.line["seconds"], text, per_second,
            self.line["rate"],
        )  # fmt: skip
        self.sums, self.count, self.since = {}, 0, now
