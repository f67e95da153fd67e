"""The processes of one run: one alone, or several on one or more machines that share every batch (accelerate)."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn

from xdyna.errors import OptionError, ResourceError

SYNC_STEPS = 8
"""Steps between two agreements on the clock and on stopping."""


class Processes:
    """This process among those of its run; started alone, it is the only one.

    Args:
        device: "cpu", "cuda", or None for CUDA where there is one.
        mixed_precision: "no", "bf16" or "fp16" for the learners' forward passes; a CPU always computes in float32.

    Attributes:
        rank, count: which process this is, and how many there are.
        device: where this one computes.

    Raises:
        OptionError: an unknown device.
        ResourceError: no such device here.
    """

    def __init__(self, device: str | None, *, mixed_precision: str) -> None:
        cpu = _is_cpu(device)
        self.accelerator = Accelerator(
            cpu=cpu, mixed_precision="no" if cpu else mixed_precision, step_scheduler_with_optimizer=False
        )
        self.device: torch.device = self.accelerator.device
        self.rank: int = self.accelerator.process_index
        self.count: int = self.accelerator.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    def prepare(self, learner: nn.Module) -> nn.Module:
        """Wrap a learner for this run's processes and precision."""
        prepared: nn.Module = self.accelerator.prepare_model(learner)
        return prepared

    def agree(self, *, stop: bool, seconds: float) -> tuple[bool, float]:
        """Stop if any process wants to; the slowest one's clock counts."""
        if self.count == 1:
            return stop, seconds
        told = torch.tensor([float(stop), seconds], dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
        stopped, slowest = told.tolist()
        return bool(stopped), slowest

    def from_main(self, value: Any) -> Any:
        """The main process's `value`, everywhere."""
        if self.count == 1:
            return value
        return broadcast_object_list([value])[0]

    def gather(self, value: Any) -> list[Any]:
        """Every process's `value`, by rank."""
        return [value] if self.count == 1 else list(gather_object([value]))

    def share(self, number: int, what: str) -> int:
        """This process's part of a batch or pool of `number`.

        Raises:
            OptionError: it cannot be shared out evenly.
        """
        if number % self.count:
            raise OptionError(
                what, f"{number} cannot be shared by {self.count} processes", "Make it a multiple of them"
            )
        return number // self.count

    def wait(self) -> None:
        """Until all are here."""
        self.accelerator.wait_for_everyone()


def _is_cpu(name: str | None) -> bool:
    try:
        kind = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu")).type
    except RuntimeError:
        raise OptionError("--device", f"{name!r} is no device", "Give cpu or cuda") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ResourceError("cuda", "there is no CUDA device here", "Leave --device away, or give cpu")
    return kind == "cpu"
