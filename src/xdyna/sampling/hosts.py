"""The processes that share one clip: windows shared out, predictions summed, frames gathered in order.

Every process has all networks and the latents of the whole clip, and takes every scheduler step; of a step's windows
it predicts its share. So a step costs one all-reduce of the fused predictions, (halves b c f h w) float32: 44 MB for
192 frames of 896x512.

The share of a process is a run of neighbouring windows, because ControlNet residuals belong to frames and neighbours
share frames: `ControlResiduals` then makes each frame's once for all windows of a share, and only the frames where two
shares meet are made twice (4 of 52 for 192 frames on four processes, 1 % of the arithmetic of a step). Exchanging them
instead would move 23 MB a frame and have every process wait for its neighbour in the middle of a step.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from xdyna.errors import ResourceError

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

AHEAD = 2
"""Decoded parts that a process may have waiting for the first one to take: bounds the memory of decoding."""

PATIENCE = timedelta(days=1)
"""How long an exchange waits: the first process may prepare a long video meanwhile. A death is noticed at once."""


class Hosts(Protocol):
    """What the loop asks of the processes it runs in.

    Attributes:
        rank: this process's number, from 0. The first one reads, prepares and writes.
        count: how many there are.
    """

    rank: int
    count: int

    def share(self, windows: Sequence[Item]) -> list[Item]:
        """This process's windows of a step."""

    def add_up(self, values: Tensor) -> None:
        """Replace `values` by their sum over all processes; the same bytes in each."""

    def same(self, values: Tensor) -> Tensor:
        """The first process's `values`, everywhere."""

    def hand_out(self, value: Any) -> Any:
        """The first process's `value`, everywhere; tensors in it lie in main memory. The others pass None."""

    def in_order(self, parts: Iterable[Item], work: Callable[[Item], np.ndarray]) -> Iterator[np.ndarray]:
        """`work` of all parts, shared out: the first process gets every result in order, the others get none."""


class Alone:
    """One process: everything is its own."""

    rank, count = 0, 1

    def share(self, windows: Sequence[Item]) -> list[Item]:
        """All windows."""
        return list(windows)

    def add_up(self, values: Tensor) -> None:
        """Nothing to add."""

    def same(self, values: Tensor) -> Tensor:
        """As they are."""
        return values

    def hand_out(self, value: Any) -> Any:
        """As it is."""
        return value

    def in_order(self, parts: Iterable[Item], work: Callable[[Item], np.ndarray]) -> Iterator[np.ndarray]:
        """`work` of each part."""
        return map(work, parts)


ALONE = Alone()


class Group:
    """The processes of a `torch.distributed` group on one machine, NCCL between GPUs and gloo between CPUs.

    Args:
        rank, count, store: as from `torch.distributed.rendezvous`.
        device: where this process's networks are.
    """

    def __init__(self, rank: int, count: int, store: Any, device: torch.device) -> None:
        self.rank, self.count = rank, count
        backend = "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(device)
            backend = "cpu:gloo,cuda:nccl"
        with _exchange():
            dist.init_process_group(
                backend, store=dist.PrefixStore("group", store), rank=rank, world_size=count, timeout=PATIENCE
            )

    def share(self, windows: Sequence[Item]) -> list[Item]:
        """A run of neighbours; where they do not divide, the first processes have one window more."""
        return list(windows[slice(*bounds(len(windows), self.rank, self.count))])

    def add_up(self, values: Tensor) -> None:
        """All-reduce in place. Its order of adding differs from one process's, so sums differ by rounding."""
        with _exchange():
            dist.all_reduce(values)

    def same(self, values: Tensor) -> Tensor:
        """Broadcast of a copy."""
        values = values.clone(memory_format=torch.contiguous_format)
        with _exchange():
            dist.broadcast(values, 0)
        return values

    def hand_out(self, value: Any) -> Any:
        """Broadcast of a pickle between our own processes."""
        box: list[Any] = [value]
        with _exchange():
            dist.broadcast_object_list(box, 0)
        return box[0]

    def in_order(self, parts: Iterable[Item], work: Callable[[Item], np.ndarray]) -> Iterator[np.ndarray]:
        """Parts go round the processes; those after the first work at most `AHEAD` parts ahead of it."""
        waiting: deque[tuple[list[Any], Any]] = deque()
        for number, part in enumerate(parts):
            owner = number % self.count
            if owner == self.rank == 0:
                yield work(part)
            elif self.rank == 0:
                yield self._received(owner)
            elif owner == self.rank:
                while len(waiting) >= AHEAD:
                    self._settle(waiting.popleft())
                waiting.append(self._sent(work(part)))
        while waiting:
            self._settle(waiting.popleft())

    def leave(self) -> None:
        """End the group, once all is done."""
        dist.destroy_process_group()

    @staticmethod
    def _sent(result: np.ndarray) -> tuple[list[Any], Any]:
        """A result on its way: what to wait for, and the memory to hold until then."""
        data = torch.from_numpy(np.ascontiguousarray(result))
        shape = torch.tensor(data.shape)
        with _exchange():
            return [dist.isend(shape, 0), dist.isend(data, 0)], (shape, data)

    @staticmethod
    def _settle(sent: tuple[list[Any], Any]) -> None:
        with _exchange():
            for work in sent[0]:
                work.wait()

    @staticmethod
    def _received(owner: int) -> np.ndarray:
        shape = torch.empty(4, dtype=torch.int64)
        with _exchange():
            dist.recv(shape, owner)
            data = torch.empty(shape.tolist(), dtype=torch.uint8)
            dist.recv(data, owner)
        return data.numpy()


def bounds(number: int, rank: int, count: int) -> tuple[int, int]:
    """First and last-but-one of a process's run of `number` things: as even as can be, longer runs first."""
    each, more = divmod(number, count)
    begin = rank * each + min(rank, more)
    return begin, begin + each + (rank < more)


class LostProcess(ResourceError):
    """Another process of the group ended before its work was done."""


@contextlib.contextmanager
def _exchange() -> Iterator[None]:
    """An exchange that breaks off says that another process ended."""
    try:
        yield
    except RuntimeError as error:
        logger.info("an exchange between processes broke off: %s", error)
        raise LostProcess(
            "this run",
            "one of its processes ended, so the others cannot go on",
            "Where that one left no message, it was killed: out of memory is the usual cause",
        ) from error
