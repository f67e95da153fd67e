"""Fresh clips made beside the training: by a thread on the training's own GPU, or by other processes on CPU cores."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch.utils.data import DataLoader

from xdyna.training.chunks import CHUNKS, Chunk, Chunks


class Ahead:
    """The chunks of a source from a number on, in order, the next one always under way.

    Args:
        source: where chunks come from.
        first: the number of the first one.
        device: where they go.
        workers: processes that make them on the CPU; 0 makes them on `device`, on a stream of its own.
    """

    def __init__(self, source: Chunks, first: int, *, device: torch.device, workers: int) -> None:
        self.device = device
        self._loader: Iterator[Chunk] | None = None
        self._source, self._number = source.on(device), first
        if workers:
            self._loader = iter(
                DataLoader(
                    source.on(torch.device("cpu")),
                    batch_size=None,
                    sampler=range(first, CHUNKS),
                    num_workers=workers,
                    prefetch_factor=1,
                    pin_memory=device.type == "cuda",
                    multiprocessing_context="spawn",
                    worker_init_fn=_outlive_signals,
                )
            )
        # Thousands of small kernels: a high priority lets each of them in between the training's large ones.
        self._stream = torch.cuda.Stream(device, priority=-1) if device.type == "cuda" else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="clips")
        self._next: Future[Chunk] = self._thread.submit(self._make)

    def take(self, *, wait: bool) -> Chunk | None:
        """The next chunk; None if it is not ready and `wait` is False.

        Raises:
            whatever making it raised.
        """
        if not wait and not self._next.done():
            return None
        chunk = self._next.result()
        if self._stream is not None:
            for value in chunk.values():
                if value.is_cuda:
                    # made on the other stream, whose allocator must not use the memory again too early
                    value.record_stream(torch.cuda.current_stream(self.device))
        self._next = self._thread.submit(self._make)
        return chunk

    def close(self) -> None:
        """End the processes and the thread; the chunk under way is waited for."""
        self._thread.shutdown(cancel_futures=True)
        self._loader = None

    def _make(self) -> Chunk:
        if self._loader is not None:
            return next(self._loader)
        number, self._number = self._number, self._number + 1
        stream = self._stream
        with contextlib.nullcontext() if stream is None else torch.cuda.stream(stream):
            chunk = self._source[number]
        if stream is not None:
            stream.synchronize()
        return chunk


def _outlive_signals(worker: int) -> None:
    """Launchers and Ctrl-C signal whole groups of processes; the training stops cleanly, and its workers after it."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
