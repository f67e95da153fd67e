"""One update of the weights: forward, backward, step of the optimiser, moving averages; plainly, or recorded.

A network as small as the embedded one starts many small kernels a step, which may take longer to start than to run.
`GraphedUpdate` records a step once as CUDA graphs and replays it, which costs the host next to nothing
(docs/benchmarks.md says what that gains).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from xdyna.errors import OptionError
from xdyna.training.averages import Averages
from xdyna.training.optimiser import MuonAdamW
from xdyna.training.processes import Processes
from xdyna.training.run import Run
from xdyna.training.steps import Batch, Losses

Draw = Callable[[], Batch]
Compute = Callable[[Run, nn.Module, Batch], Losses]

WARM_UP = 3
"""Updates done plainly before one is recorded: libraries set themselves up in their first calls."""


class PlainUpdate:
    """An update as it stands, for every device and any number of processes.

    Args:
        run: the run.
        learner: as it came from `Processes.prepare`.
        compute: the stage's losses.
        optimiser: of what learns.
        averages: of what learns.
        processes: those of the run.
        clip_norm: largest norm of the gradient.
        accumulate: forward passes for one update.
    """

    def __init__(
        self,
        run: Run,
        learner: nn.Module,
        compute: Compute,
        *,
        optimiser: torch.optim.Optimizer,
        averages: Averages,
        processes: Processes,
        clip_norm: float,
        accumulate: int,
    ) -> None:
        self.run, self.learner, self.compute = run, learner, compute
        self.optimiser, self.averages, self.processes = optimiser, averages, processes
        self.clip_norm, self.accumulate = clip_norm, accumulate

    def __call__(self, draw: Draw) -> Losses:
        """Update once; `draw` gives each forward pass its batch. Returns the last pass's losses."""
        self.optimiser.zero_grad(set_to_none=True)
        for turn in range(self.accumulate):
            last = turn == self.accumulate - 1
            with self.processes.in_step(self.learner, last):
                losses = self.compute(self.run, self.learner, draw())
                self.processes.accelerator.backward(losses["loss"] / self.accumulate)
        self.processes.step(self.optimiser, clip_norm=self.clip_norm)
        self.averages.update()
        return losses


class FlatUpdate(PlainUpdate):
    """The same with all gradients in one tensor, which several processes average in one exchange of their own.

    Args: as `PlainUpdate`, with the learner as it is (no wrapper) and a `MuonAdamW`. All processes must begin with the
    same weights.
    """

    def __init__(self, run: Run, learner: nn.Module, compute: Compute, **parts: Any) -> None:
        super().__init__(run, learner, compute, **parts)
        self.gradients = _flat_gradients(self.optimiser)
        self.batch: Batch = {}
        self.losses: Losses = {}

    def __call__(self, draw: Draw) -> Losses:
        """Update once; see `PlainUpdate`."""
        self.gradients.zero_()
        for _ in range(self.accumulate):
            self._take(draw())
            self._run("passes", self._pass)
        if self.processes.count > 1:
            torch.distributed.all_reduce(self.gradients)
            self.gradients /= self.processes.count
        self._run("settling", self._settle)
        return self.losses

    def _take(self, batch: Batch) -> None:
        """Copy a batch to where the passes read it."""
        if not self.batch:
            self.batch = {name: value.clone() for name, value in batch.items()}
        for name, value in batch.items():
            self.batch[name].copy_(value)

    def _run(self, name: str, function: Callable[[], None]) -> None:
        function()

    def _pass(self) -> None:
        with self.run.autocast():
            losses = self.compute(self.run, self.learner, self.batch)
        (losses["loss"] / self.accumulate).backward()
        self.losses = {name: value.detach() for name, value in losses.items()}

    def _settle(self) -> None:
        norm = self.gradients.norm()
        self.gradients.mul_((self.clip_norm / (norm + 1e-6)).clamp(max=1))
        self.optimiser.step()
        self.averages.update()


class GraphedUpdate(FlatUpdate):
    """A `FlatUpdate`, recorded as two CUDA graphs: the passes, and the optimiser with all that follows.

    Raises:
        OptionError: not on CUDA, or with something that cannot be recorded.
    """

    def __init__(self, run: Run, learner: nn.Module, compute: Compute, **parts: Any) -> None:
        if run.device.type != "cuda" or run.config.runtime.precision == "fp16" or parts["processes"].sharded:
            raise OptionError(
                "runtime.graphs",
                "needs CUDA, precision bf16 or no, and no FSDP",
                "Set runtime.graphs = false",
            )
        assert isinstance(parts["optimiser"], MuonAdamW)
        super().__init__(run, learner, compute, **parts)
        self.stream = torch.cuda.Stream()
        self.calls: dict[str, int] = {}
        self.graphs: dict[str, torch.cuda.CUDAGraph] = {}

    def _run(self, name: str, function: Callable[[], None]) -> None:
        """Do it plainly at first, then record it, then replay the record."""
        if name not in self.graphs:
            # On a stream of its own: what ran on the default stream cannot be recorded.
            self.stream.wait_stream(torch.cuda.current_stream())
            self.calls[name] = self.calls.get(name, 0) + 1
            if self.calls[name] <= WARM_UP:
                with torch.cuda.stream(self.stream):
                    function()
                torch.cuda.current_stream().wait_stream(self.stream)
                return
            graph = torch.cuda.CUDAGraph()
            # other threads of this process may use the device meanwhile
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                function()
            self.graphs[name] = graph
        self.graphs[name].replay()


def _flat_gradients(optimiser: torch.optim.Optimizer) -> torch.Tensor:
    """One tensor for all gradients; every parameter's is a view of it, laid out as the parameter."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    flat = torch.zeros(sum(p.numel() for p in parameters), device=parameters[0].device)
    start = 0
    for parameter in parameters:
        parameter.grad = flat.as_strided(parameter.shape, parameter.stride(), start)
        start += parameter.numel()
    return flat
