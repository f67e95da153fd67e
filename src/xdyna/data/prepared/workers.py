"""Many tasks over several processes; a task that takes its process down is found out and does not stop the others."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


class Crashed:
    """In place of a result: the process that worked on this task died."""


def run_tasks(
    work: Callable[[Task], Result], tasks: Sequence[Task], *, workers: int
) -> Iterator[tuple[Task, Result | Crashed]]:
    """Do all tasks; yields each with its result as soon as it is there.

    Args:
        work: a module's function; it and the tasks are pickled.
        tasks: what to call it with.
        workers: how many processes; 1 works in this one.

    Raises:
        Exception: whatever `work` raises; tasks not begun are dropped.
    """
    if workers == 1 or len(tasks) <= 1:
        for task in tasks:
            yield task, work(task)
        return
    left = dict(enumerate(tasks))
    suspects: list[int] = []
    while left:
        if suspects:
            # One of these took the last pool down: each gets a pool of its own.
            number = suspects.pop(0)
            batch, size = {number: left[number]}, 1
        else:
            batch, size = dict(left), min(workers, len(left))
        broken = False
        for number, result in _pooled(work, batch, size):
            if isinstance(result, BrokenProcessPool):
                broken = True
                continue
            yield left.pop(number), result
        if broken and size == 1:
            yield left.pop(next(iter(batch))), Crashed()
        elif broken:
            # Tasks are handed out in order, one more than there are workers.
            suspects = [number for number in batch if number in left][: 2 * size + 1]


def _pooled(
    work: Callable[[Task], Result], batch: dict[int, Task], size: int
) -> Iterator[tuple[int, Result | BrokenProcessPool]]:
    context = get_context("spawn")
    # Nobody ever writes: reading ends when this process does, however it ends.
    reader, writer = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(size, mp_context=context, initializer=_settle, initargs=(reader,))
    try:
        futures: dict[Future[Result], int] = {
            pool.submit(work, task): number for number, task in batch.items()
        }
        for future in as_completed(futures):
            try:
                yield futures[future], future.result()
            except BrokenProcessPool as error:
                yield futures[future], error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        writer.close()
        reader.close()


def default_workers() -> int:
    """One for each core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _settle(parent: Connection) -> None:
    """What every worker does first: one thread each, and an end when the parent is gone (kill -9 tells nobody)."""
    import cv2

    cv2.setNumThreads(1)

    def watch() -> None:
        try:
            parent.recv()
        except (EOFError, OSError):
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
