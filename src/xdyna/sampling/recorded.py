"""Calls of a network recorded as CUDA graphs: replaying one costs the host next to nothing.

A pass of the published denoiser starts some two thousand kernels, and the host may need longer to start them than the
GPU to run them. Windows have one shape, so a run needs a recording or two of each network.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

logger = logging.getLogger(__name__)

MOST_RECORDINGS = 8
"""Recordings of one network; calls of yet other shapes run plainly (an open loop's last windows may differ)."""


class Recorder:
    """Records functions on the current CUDA device; all recordings share one memory pool, and run one at a time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._buffer = torch.empty(0, dtype=torch.uint8)

    def __call__(self, run: Callable[[], list[Tensor]]) -> Callable[[], list[Tensor]]:
        """Record `run`, which reads and makes tensors; returns what replays it and gives copies of what it made."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # libraries and kernels set themselves up in their first calls
                made = run()
        torch.cuda.current_stream().wait_stream(stream)
        # where results lie is not left to the pool: another recording may write there
        places = self._places(made)
        del made
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            for place, value in zip(places, run(), strict=True):
                place.copy_(value)

        def replay() -> list[Tensor]:
            graph.replay()
            return [place.clone() for place in places]

        return replay

    def _places(self, like: list[Tensor]) -> list[Tensor]:
        """Memory for tensors of such shapes and strides, shared by all recordings."""
        sizes = [256 * math.ceil(value.numel() * value.element_size() / 256) for value in like]
        if sum(sizes) > self._buffer.numel():
            self._buffer = torch.empty(sum(sizes), dtype=torch.uint8, device=like[0].device)
        parts = self._buffer[: sum(sizes)].split(sizes)
        return [
            part[: value.numel() * value.element_size()]
            .view(value.dtype)
            .as_strided(value.shape, value.stride())
            for part, value in zip(parts, map(_dense, like), strict=True)
        ]


class Recorded:
    """A network whose calls are recorded and replayed; everything else of it is as it is.

    The first call of each shape records. Arguments are told apart by shape, dtype and place; what is no tensor must be
    the same for a recording to fit. Results are new tensors each time. Where recording fails, that is logged, and the
    network runs plainly.

    Args:
        network: without gradients, on the recorder's device; its weights stay where they are.
        recorder: a `Recorder`, shared by the networks of a run; or any function like it.
    """

    def __init__(
        self, network: Any, recorder: Callable[[Callable[[], list[Tensor]]], Callable[[], list[Tensor]]]
    ) -> None:
        self._network, self._recorder = network, recorder
        self._recordings: dict[Any, _Recording] = {}
        self._works = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def __call__(self, *values: Any, **named: Any) -> Any:
        """What the network gives for these arguments, in tensors of the caller's own."""
        return self._run(self._network, values, named)

    def halves(self, *values: Any, **named: Any) -> Any:
        """A denoiser's predictions for several guidance halves (`models.halves`), in one recording."""
        return self._run(self._network.halves, values, named)

    def _run(self, function: Callable[..., Any], values: tuple[Any, ...], named: dict[str, Any]) -> Any:
        flat, spec = pytree.tree_flatten((values, named))
        tensors = [value for value in flat if isinstance(value, Tensor)]
        key = (
            getattr(function, "__name__", ""),
            str(spec),
            tuple((value.shape, value.dtype) if isinstance(value, Tensor) else value for value in flat),
        )
        recording = self._recordings.get(key)
        if recording is None and self._works and len(self._recordings) < MOST_RECORDINGS:
            recording = self._record(function, flat, spec)
            if recording is not None:
                self._recordings[key] = recording
        if recording is None:
            return function(*values, **named)
        return recording.replay(tensors)

    def _record(self, function: Callable[..., Any], flat: list[Any], spec: Any) -> _Recording | None:
        try:
            return _Recording(function, self._recorder, flat, spec)
        except Exception as error:  # CUDA's and the libraries' errors have no common type
            self._works = False
            logger.warning("a network cannot be recorded as a CUDA graph, it runs plainly: %s", error)
            return None


class _Recording:
    """One recorded call: where it reads its arguments, and how it is replayed."""

    def __init__(self, function: Callable[..., Any], recorder: Any, flat: list[Any], spec: Any) -> None:
        self._slots = [value.clone() for value in flat if isinstance(value, Tensor)]
        self._made: list[Any] = []
        self._spec: Any = None

        def run() -> list[Tensor]:
            values, named = pytree.tree_unflatten(_filled(flat, self._slots), spec)
            made, self._spec = pytree.tree_flatten(function(*values, **named))
            # what is no tensor is the same each time; the tensors themselves are not kept
            self._made = [value.shape if isinstance(value, Tensor) else value for value in made]
            self._tensors = [isinstance(value, Tensor) for value in made]
            return [value for value in made if isinstance(value, Tensor)]

        self._replay = recorder(run)

    def replay(self, tensors: list[Tensor]) -> Any:
        for slot, value in zip(self._slots, tensors, strict=True):
            slot.copy_(value)
        made = iter(self._replay())
        flat = [
            next(made) if is_one else value for is_one, value in zip(self._tensors, self._made, strict=True)
        ]
        return pytree.tree_unflatten(flat, self._spec)


def _filled(flat: list[Any], tensors: list[Tensor]) -> list[Any]:
    """The list with its tensors replaced, in order."""
    given = iter(tensors)
    return [next(given) if isinstance(value, Tensor) else value for value in flat]


def _dense(value: Tensor) -> Tensor:
    """A tensor whose numbers lie without gaps, in the same order of axes where they did."""
    order = sorted(range(value.ndim), key=lambda axis: -value.stride()[axis])
    return value if value.permute(order).is_contiguous() else value.contiguous()
