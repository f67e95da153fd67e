"""What every step of a run reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from xdyna.evaluation.judge import Judge
from xdyna.models.low_rank import LowRankDeltas
from xdyna.training.config import TrainConfig
from xdyna.training.networks import Networks


@dataclass
class Run:
    """A run in memory, less what the loop keeps to itself.

    Attributes:
        config: the whole config.
        device: where everything lives.
        networks: the model.
        judge: the judging networks.
        alphas_cumprod: (1000,) float32, of the scheduler.
        generator: the one source of random numbers, on `device`.
        text: (1 n d) tokens of the empty prompt, for a model that reads text.
        empty_features: (1 n e) CLIP's features of an empty picture, for a model that reads them.
        student: the changes that stage `distill` teaches, for a run that has it.
    """

    config: TrainConfig
    device: torch.device
    networks: Networks
    judge: Judge
    alphas_cumprod: torch.Tensor
    generator: torch.Generator
    text: torch.Tensor | None = None
    empty_features: torch.Tensor | None = None
    student: LowRankDeltas | None = None

    def modules(self) -> dict[str, nn.Module]:
        """All networks by name, the judge and the student's changes included."""
        changes = {} if self.student is None else {"student": self.student}
        return {**self.networks.named(), "judge": self.judge, **changes}

    def autocast(self) -> torch.autocast:
        """For frozen networks: bf16 on CUDA where the config asks for mixed precision; nothing elsewhere."""
        enabled = self.device.type == "cuda" and self.config.runtime.precision != "no"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)

    def uniform(self, *shape: int) -> torch.Tensor:
        """Uniform numbers in [0, 1)."""
        return torch.rand(shape, generator=self.generator, device=self.device)

    def normal(self, *shape: int) -> torch.Tensor:
        """Normal numbers, float32."""
        return torch.randn(shape, generator=self.generator, device=self.device)

    def integers(self, high: int, *shape: int) -> torch.Tensor:
        """Integers in [0, high)."""
        return torch.randint(high, shape, generator=self.generator, device=self.device)
