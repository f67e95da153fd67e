"""Processes that make chunks on CPU cores, ahead of their use.

Not PyTorch's `DataLoader`: a chunk may take minutes, and its processes are waited for, chunk by chunk, when a run ends.
"""

from __future__ import annotations

import pickle
import queue
import signal
from typing import Any

import torch
from torch import multiprocessing

from xdyna.errors import ResourceError
from xdyna.training.chunks import Chunk, Chunks

AHEAD = 2
"""Chunks for each process: the one that it makes, and one made or waiting, so that no process stands still."""
CHECK_SECONDS = 1.0
"""How often whoever waits looks whether those that it waits for are still there."""


class Makers:
    """Chunks in order, made by several processes.

    Args:
        source: where chunks come from; it is pickled.
        first: number of the first one.
        workers: how many processes.
    """

    def __init__(self, source: Chunks, first: int, *, workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._tasks, self._made = context.Queue(), context.Queue()
        self._asked = self._next = first
        self._early: dict[int, Chunk | Exception] = {}
        self._closed = False
        self._processes = [
            context.Process(target=_make, args=(source, self._tasks, self._made), daemon=True)
            for _ in range(workers)
        ]
        for process in self._processes:
            process.start()
        for _ in range(AHEAD * workers):
            self._ask()

    def take(self) -> Chunk:
        """The next chunk, waited for.

        Raises:
            ResourceError: a process is gone.
            whatever making the chunk raised.
        """
        while self._next not in self._early:
            try:
                number, made = self._made.get(timeout=CHECK_SECONDS)
            except queue.Empty:
                self._check()
                continue
            self._early[number] = made
        found = self._early.pop(self._next)
        self._next += 1
        self._ask()
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        """End the processes, whatever they are at; whoever waits for a chunk is told."""
        self._closed = True
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for channel in (self._tasks, self._made):
            channel.close()
            channel.cancel_join_thread()

    def _ask(self) -> None:
        self._tasks.put(self._asked)
        self._asked += 1

    def _check(self) -> None:
        if self._closed:
            raise RuntimeError("closed")
        gone = [process.exitcode for process in self._processes if not process.is_alive()]
        if gone:
            raise ResourceError(
                "runtime.workers",
                f"a process that makes clips has ended with status {gone[0]}, -9 being what a full memory does",
                "Use fewer workers, or a smaller data.chunk",
            )


def _make(source: Chunks, tasks: Any, made: Any) -> None:
    """What one process does, until it is killed or its parent is gone."""
    # Launchers and Ctrl-C signal whole groups of processes; the training stops cleanly, and ends its makers itself.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    while parent is None or parent.is_alive():
        try:
            task = tasks.get(timeout=CHECK_SECONDS)
        except queue.Empty:
            continue
        result: Chunk | Exception
        try:
            result = source[task]
        except Exception as error:
            result = _portable(error)
        made.put((task, result))


def _portable(error: Exception) -> Exception:
    """An exception that another process can be told of."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
