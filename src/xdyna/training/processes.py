"""The processes of one run: one alone, or several on one or more machines that share every batch (accelerate)."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from xdyna.errors import OptionError, ResourceError

SYNC_STEPS = 8
"""Steps between two agreements on the clock and on stopping."""


class Processes:
    """This process among those of its run; started alone, it is the only one.

    Started by `torchrun` or `accelerate launch`, the processes keep their weights in step: by DDP, or with
    `accelerate launch --use_fsdp` by FSDP (version 2), which shares the weights and the optimiser's state out.

    Args:
        device: "cpu", "cuda", or None for CUDA where there is one.
        precision: "no", "bf16" or "fp16" for the learners' forward passes; a CPU always computes in float32.

    Attributes:
        rank, count: which process this is, and how many there are.
        device: where this one computes.
        sharded: whether weights are shared out (FSDP).

    Raises:
        OptionError: an unknown device.
        ResourceError: no such device here.
    """

    def __init__(self, device: str | None, *, precision: str) -> None:
        cpu = _is_cpu(device)
        self.accelerator = Accelerator(cpu=cpu, mixed_precision="no" if cpu else precision)
        self.device: torch.device = self.accelerator.device
        self.rank: int = self.accelerator.process_index
        self.count: int = self.accelerator.num_processes
        # `accelerate launch --use_fsdp` says so in the environment. accelerate itself shards on accelerators only;
        # PyTorch's own call, below, does on CPUs as well, so that it can be tested anywhere.
        self.sharded = self.count > 1 and os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true")
        self.precision = "no" if cpu else precision
        self._singles: list[nn.Parameter] = []
        if self.sharded and self.precision == "fp16":
            raise OptionError("runtime.precision", "fp16 and FSDP do not go together here", "Use bf16 or no")

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    def prepare(self, learner: nn.Module) -> nn.Module:
        """Wrap a learner for this run's processes and precision. Its parameters are to be asked for afterwards."""
        if not self.sharded:
            prepared: nn.Module = self.accelerator.prepare_model(learner)
            return prepared
        half = torch.bfloat16 if self.precision == "bf16" else None
        policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32)
        # Single numbers, such as the gain of the position code, cannot be shared out: everybody keeps them.
        self._singles = [p for p in learner.parameters() if not p.dim()]
        units, kept = getattr(learner, "_no_split_modules", ()), set(self._singles)
        for module in reversed(list(learner.modules())):
            if type(module).__name__ in units:
                fully_shard(module, mp_policy=policy, ignored_params=kept)
        fully_shard(learner, mp_policy=policy, ignored_params=kept)
        return learner

    def in_step(self, learner: nn.Module, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Where a pass runs: gradients are exchanged in the last pass before an update only."""
        if self.sharded:
            learner.set_requires_gradient_sync(last)  # type: ignore[operator]
        if last or self.sharded or self.count == 1:
            return contextlib.nullcontext()
        return self.accelerator.no_sync(learner)

    def step(self, optimiser: torch.optim.Optimizer, *, clip_norm: float) -> None:
        """Clip the gradients and let the optimiser step; with fp16, skip a step whose gradients overflowed."""
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        for single in self._singles:
            if single.grad is not None:
                torch.distributed.all_reduce(single.grad)
                single.grad /= self.count
        scaler = self.accelerator.scaler
        if scaler is not None:
            scaler.unscale_(optimiser)
        torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
        if scaler is None:
            optimiser.step()
        else:
            scaler.step(optimiser)
            scaler.update()

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
        """This process's part of a batch of `number`.

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


def whole(value: Any) -> Any:
    """Tensors that are shared out, in any nest of dicts and lists, put together; all processes must call it."""
    if isinstance(value, DTensor):
        return value.full_tensor().detach().cpu()
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [whole(item) for item in value]
    return value


def shared_like(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A whole tensor, shared out as `like` is."""
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def _is_cpu(name: str | None) -> bool:
    try:
        kind = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu")).type
    except RuntimeError:
        raise OptionError("--device", f"{name!r} is no device", "Give cpu or cuda") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ResourceError("cuda", "there is no CUDA device here", "Leave --device away, or give cpu")
    return kind == "cpu"
