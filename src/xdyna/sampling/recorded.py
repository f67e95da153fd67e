"""Calls of a network recorded as CUDA graphs: replaying one costs the host next to nothing.

A pass of the published denoiser starts some two thousand kernels, and the host may need longer to start them than the
GPU to run them. Windows have one shape, so a run needs a recording or two of each network.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from xdyna.sampling.controls import Networks

logger = logging.getLogger(__name__)

MOST_RECORDINGS = 8
"""Recordings of one network; calls of yet other shapes run plainly (an open loop's last windows may differ)."""


PAYS_FROM = 100
"""Window steps from which recording pays. At 896x512 on an H200 it costs about 3 s: for each shape (the denoiser's, and
two or three of each ControlNet) two calls to warm up and the recording itself; and a replayed window is 52 ms quicker
(295 in place of 347 ms), so it is won back after some 60. (25 steps of one window are 25, of 192 frames 400.)"""


ROOM = 6 << 30
"""Bytes that a GPU must have free for runs to record by themselves. At 896x512 a recorded run holds 1.9 GiB beside the
weights; while recordings were made it was 4.8 (on an H200, before they worked in their own memory; not measured
since)."""


def recording_pays(calls: float, device: torch.device) -> bool:
    """Whether a run of so many window steps is to record its networks, where nobody said.

    Args:
        calls: window steps of this process.
        device: where its networks are, their weights in place.
    """
    roomy = device.type != "cuda" or torch.cuda.mem_get_info(device)[0] >= ROOM
    return calls >= PAYS_FROM and roomy


class Arena:
    """Memory that is given out again and again, always from its beginning: for what is wanted one after the other."""

    def __init__(self) -> None:
        self._buffer = torch.empty(0, dtype=torch.uint8)

    def places(self, like: Sequence[Tensor], *, device: torch.device | None = None) -> list[Tensor]:
        """Memory for tensors of such shapes and strides, the same whenever asked for the same.

        Whoever asks for more than ever before gets new memory; what was given out before stays as it is.

        Args:
            like: what the tensors are to be like.
            device: where they are to lie; by default where those lie.
        """
        sizes = [256 * math.ceil(value.numel() * value.element_size() / 256) for value in like]
        if sum(sizes) > self._buffer.numel():
            self._buffer = torch.empty(sum(sizes), dtype=torch.uint8, device=device or like[0].device)
        parts = self._buffer[: sum(sizes)].split(sizes)
        return [
            part[: value.numel() * value.element_size()]
            .view(value.dtype)
            .as_strided(value.shape, value.stride())
            for part, value in zip(parts, map(_dense, like), strict=True)
        ]

    def holds(self, value: Tensor) -> bool:
        """Whether a tensor lies here."""
        return _storage(value) == _storage(self._buffer) and self._buffer.numel() > 0


class Recorder:
    """Records functions on the current CUDA device; all recordings share one memory pool, and run one at a time.

    Attributes:
        arena: where recordings read arguments and leave results, all in one place: arguments are copied there before a
            replay, and nothing reads them any more when results are written.
        standing: memory of the caller's whose place does not change: a recording reads it where it lies.
    """

    def __init__(self) -> None:
        self._pool, self._stream = torch.cuda.MemPool(), torch.cuda.Stream()
        self.arena, self.standing = Arena(), Arena()

    def __call__(self, run: Callable[[], list[Tensor]]) -> Callable[[], list[Tensor]]:
        """Record `run`, which reads and makes tensors; returns what replays it and tells where its results lie.

        They lie there until the next recording runs.
        """
        # the first calls work in the recordings' own memory, which belongs to one stream: elsewhere they would need as
        # much again
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream), torch.cuda.use_mem_pool(self._pool):
            for _ in range(2):  # libraries and kernels set themselves up in their first calls
                made = run()
        torch.cuda.synchronize()
        # where results lie is not left to the pool: another recording may write there
        places = self.arena.places(made)
        del made
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            graph, pool=cast(Any, self._pool.id), stream=self._stream, capture_error_mode="thread_local"
        ):
            # a result that is an argument would be overwritten by those before it
            made = [value.clone() if self.arena.holds(value) else value for value in run()]
            for place, value in zip(places, made, strict=True):
                place.copy_(value)

        def replay() -> list[Tensor]:
            graph.replay()
            return places

        return replay


class Recorded:
    """A network whose calls are recorded and replayed; everything else of it is as it is.

    The first call of each shape records. Arguments are told apart by shape, dtype and place; what is no tensor must be
    the same for a recording to fit. Where recording fails, that is logged, and the network runs plainly.

    Args:
        network: without gradients, on the recorder's device; its weights stay where they are.
        recorder: a `Recorder`, shared by the networks of a run; or anything like it.
        lends: results are not copied: they are the caller's until any network of the recorder is called again.
    """

    def __init__(self, network: Any, recorder: Any, *, lends: bool = False) -> None:
        self._network, self._recorder, self.lends = network, recorder, lends
        self._recordings: dict[Any, _Recording] = {}
        self._works = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def __call__(self, *values: Any, **named: Any) -> Any:
        """What the network gives for these arguments, in tensors of the caller's own unless it `lends`."""
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
        return recording.replay(tensors, lends=self.lends)

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
        self._standing = recorder.standing
        given = [value for value in flat if isinstance(value, Tensor)]
        moved = [value for value in given if not self._standing.holds(value)]
        places = iter(recorder.arena.places(moved) if moved else [])
        self._slots = [value if self._standing.holds(value) else next(places) for value in given]
        self._fill(given)
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

    def _fill(self, tensors: list[Tensor]) -> None:
        """Bring arguments to where they are read, but for those that lie there."""
        moves = [
            # what stands elsewhere in the same memory might be overwritten by the moves before its own
            (slot, value.clone() if self._standing.holds(value) else value)
            for slot, value in zip(self._slots, tensors, strict=True)
            if slot.data_ptr() != value.data_ptr() or slot.stride() != value.stride()
        ]
        for slot, value in moves:
            slot.copy_(value)

    def replay(self, tensors: list[Tensor], *, lends: bool) -> Any:
        self._fill(tensors)
        results = self._replay()
        made = iter(results if lends else [value.clone() for value in results])
        flat = [
            next(made) if is_one else value for is_one, value in zip(self._tensors, self._made, strict=True)
        ]
        return pytree.tree_unflatten(flat, self._spec)


def _filled(flat: list[Any], tensors: list[Tensor]) -> list[Any]:
    """The list with its tensors replaced, in order."""
    given = iter(tensors)
    return [next(given) if isinstance(value, Tensor) else value for value in flat]


def record_networks(
    unet: Any, pose_controlnet: Any = None, face_controlnet: Any = None, *, recorder: Any = None
) -> Networks:
    """The networks of a denoising step, recorded at their first calls; `recorder` is a new `Recorder` by default.

    Residuals are summed where the denoiser's recording reads them, so the ControlNets lend theirs.
    """
    recorder = recorder or Recorder()
    pose, face = (
        part and Recorded(part, recorder, lends=True) for part in (pose_controlnet, face_controlnet)
    )
    return Networks(Recorded(unet, recorder), pose, face, standing=recorder.standing)


def _storage(value: Tensor) -> int:
    return value.untyped_storage().data_ptr()


def _dense(value: Tensor) -> Tensor:
    """A tensor whose numbers lie without gaps, in the same order of axes where they did."""
    order = sorted(range(value.ndim), key=lambda axis: -value.stride()[axis])
    return value if value.permute(order).is_contiguous() else value.contiguous()
