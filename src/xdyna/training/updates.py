"""One update of the weights: forward, backward, step of the optimiser, moving averages; plainly, or recorded.

A network as small as the embedded one starts thousands of kernels a step, each of which takes longer to start than to
run: on an H100, the processor of the host was the limit and the GPU idle for two thirds of the time. `GraphedUpdate`
records a step once as CUDA graphs and replays it, which costs the host next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable

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


class GraphedUpdate:
    """The same, recorded as two CUDA graphs: passes, and the optimiser; gradients are averaged between them.

    Args: as `PlainUpdate`, with the learner as it is (no wrapper) and a `MuonAdamW`.

    Raises:
        OptionError: not on CUDA, or with something that cannot be recorded.
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
        if run.device.type != "cuda" or run.config.runtime.precision == "fp16" or processes.sharded:
            raise OptionError(
                "runtime.graphs",
                "needs CUDA, precision bf16 or no, and no FSDP",
                "Set runtime.graphs = false",
            )
        assert isinstance(optimiser, MuonAdamW)
        self.run, self.learner, self.compute = run, learner, compute
        self.optimiser, self.averages, self.processes = optimiser, averages, processes
        self.clip_norm, self.accumulate = clip_norm, accumulate
        self.gradients = _flat_gradients(optimiser)
        self.stream = torch.cuda.Stream()
        self.done = 0
        self.batch: Batch = {}
        self.losses: Losses = {}
        self.passes = self.settling = None

    def __call__(self, draw: Draw) -> Losses:
        """Update once; see `PlainUpdate`."""
        self.gradients.zero_()
        for _ in range(self.accumulate):
            self._take(draw())
            self._run("passes", self._pass)
        if self.processes.count > 1:
            torch.distributed.all_reduce(self.gradients, torch.distributed.ReduceOp.AVG)
        self._run("settling", self._settle)
        self.done += 1
        return self.losses

    def _take(self, batch: Batch) -> None:
        if not self.batch:
            self.batch = {name: value.clone() for name, value in batch.items()}
        for name, value in batch.items():
            self.batch[name].copy_(value)

    def _run(self, name: str, function: Callable[[], None]) -> None:
        """Do it plainly at first, then record it, then replay the record."""
        graph: torch.cuda.CUDAGraph | None = getattr(self, name)
        if graph is None:
            # On a stream of its own: what ran on the default stream cannot be recorded.
            self.stream.wait_stream(torch.cuda.current_stream())
            if self.done < WARM_UP:
                with torch.cuda.stream(self.stream):
                    function()
                torch.cuda.current_stream().wait_stream(self.stream)
                return
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                function()
            setattr(self, name, graph)
        graph.replay()

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


def _flat_gradients(optimiser: torch.optim.Optimizer) -> torch.Tensor:
    """One tensor for all gradients; every parameter's is a view of it, laid out as the parameter."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    flat = torch.zeros(sum(p.numel() for p in parameters), device=parameters[0].device)
    start = 0
    for parameter in parameters:
        parameter.grad = flat[start : start + parameter.numel()].as_strided(
            parameter.shape, parameter.stride(), start
        )
        start += parameter.numel()
    return flat
