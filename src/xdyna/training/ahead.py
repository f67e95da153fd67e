"""Fresh clips made beside the training: by a thread on the training's own GPU, by processes on CPU cores, or both."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent import futures

import torch

from xdyna.training.chunks import CHUNKS, Chunk, Chunks
from xdyna.training.makers import Makers


class Ahead:
    """The chunks of a source from a number on, the next one always under way.

    They come in order, but for `both`: then each chunk is the first one ready, and those made on `device` have numbers
    of their own, from the middle of the source on.

    Args:
        source: where chunks come from.
        first: the number of the first one.
        device: where they go.
        workers: processes that make them on the CPU; 0 makes them on `device`, on a stream of its own.
        both: with `workers`, make some on `device` too.
    """

    def __init__(
        self, source: Chunks, first: int, *, device: torch.device, workers: int, both: bool = False
    ) -> None:
        self.device, self._source, self._number = device, source.on(device), first
        # Thousands of small kernels: a high priority lets each of them in between the training's large ones.
        self._stream = torch.cuda.Stream(device, priority=-1) if device.type == "cuda" else None
        self._makers = Makers(source.on(torch.device("cpu")), first, workers=workers) if workers else None
        ways: list[Callable[[], Chunk]] = []
        if self._makers is not None:
            ways.append(self._fetch)
        if self._makers is None or both:
            self._number += CHUNKS // 2 if workers else 0
            ways.append(self._make)
        self._threads = futures.ThreadPoolExecutor(len(ways), thread_name_prefix="clips")
        self._next: dict[Callable[[], Chunk], futures.Future[Chunk]] = {
            way: self._threads.submit(way) for way in ways
        }

    def take(self, *, wait: bool) -> Chunk | None:
        """The next chunk; None if it is not ready and `wait` is False.

        Raises:
            whatever making it raised.
        """
        if wait:
            futures.wait(self._next.values(), return_when=futures.FIRST_COMPLETED)
        ready = next((way for way, future in self._next.items() if future.done()), None)
        if ready is None:
            return None
        chunk = self._next[ready].result()
        if self._stream is not None:
            for value in chunk.values():
                if value.is_cuda:
                    # made on the other stream, whose allocator must not use the memory again too early
                    value.record_stream(torch.cuda.current_stream(self.device))
        self._next[ready] = self._threads.submit(ready)
        return chunk

    def close(self) -> None:
        """End the processes and the threads; a chunk under way on `device` is waited for."""
        if self._makers is not None:
            self._makers.close()
        self._threads.shutdown(cancel_futures=True)

    def _make(self) -> Chunk:
        number, self._number = self._number, self._number + 1
        with self._aside():
            return self._source[number]

    def _fetch(self) -> Chunk:
        assert self._makers is not None
        chunk = self._makers.take()
        with self._aside():
            return {name: value.to(self.device) for name, value in chunk.items()}

    @contextlib.contextmanager
    def _aside(self) -> Iterator[None]:
        """On the other stream, until it has done what it was asked to."""
        with contextlib.nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
            yield
        if self._stream is not None:
            self._stream.synchronize()
