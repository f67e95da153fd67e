"""Worker processes: one a device, each with its model loaded once; one that dies is found out and replaced."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from xdyna.batch.jobs import Job
from xdyna.batch.work import ClipWorker, Finished
from xdyna.errors import ResourceError

GRACE = 10.0
"""Seconds that a worker has for removing what is half written before it is killed."""


@dataclass(frozen=True)
class Died:
    """In place of a result: the worker ended in the middle of its job.

    Attributes:
        how: "ended by signal 9", for a message.
    """

    how: str


class Crew(Protocol):
    """Places where jobs run, one at a time each.

    Attributes:
        places: how many; they are numbered from 0.
    """

    places: int

    def submit(self, place: int, job: Job) -> None:
        """Begin a job at a free place, with a new worker if there is none."""

    def wait(self, seconds: float) -> list[tuple[int, Finished | Died]]:
        """The places whose job ended, with its result; after so many seconds possibly none."""

    def close(self) -> None:
        """End all workers; running jobs are broken off and leave nothing behind."""


@dataclass
class _Worker:
    process: Any
    jobs: Connection
    life: Connection
    scratch: str


class ProcessCrew:
    """Processes of this machine.

    Args:
        devices: of each worker, from `choose_devices`.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        self.places, self._devices = len(devices), list(devices)
        self._workers: dict[int, _Worker] = {}
        cpus = self._devices.count("cpu")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._threads = max(1, cores // cpus) if cpus > 1 else None

    def submit(self, place: int, job: Job) -> None:
        """Hand a job to a place's worker; it is started where there is none.

        Raises:
            ResourceError: no process can be started.
        """
        if place not in self._workers:
            self._workers[place] = self._started(self._devices[place])
        with contextlib.suppress(OSError):  # it died while idle: `wait` finds out
            self._workers[place].jobs.send(job)

    def wait(self, seconds: float) -> list[tuple[int, Finished | Died]]:
        """Results that came, and workers that died."""
        watched = [
            thing for worker in self._workers.values() for thing in (worker.jobs, worker.process.sentinel)
        ]
        ready = set(wait(watched, seconds))
        results: list[tuple[int, Finished | Died]] = []
        for place, worker in list(self._workers.items()):
            if not ready & {worker.jobs, worker.process.sentinel}:
                continue
            try:
                # a last word may have come before the end
                result = worker.jobs.recv() if worker.jobs.poll() else None
            except (EOFError, OSError):
                result = None
            if result is not None:
                if result.broken:
                    self._end(place)
                results.append((place, result))
                continue
            worker.process.join(GRACE)
            status = worker.process.exitcode
            self._end(place)
            results.append((place, Died(_how(status))))
        return results

    def close(self) -> None:
        """Ask all workers to end, and kill those that do not."""
        for worker in self._workers.values():
            if worker.process.is_alive():
                worker.process.terminate()
        for place in list(self._workers):
            self._end(place)

    def _started(self, device: str) -> _Worker:
        context = multiprocessing.get_context("spawn")
        jobs, theirs = context.Pipe()
        # nobody ever writes: reading ends when this process does, however it ends
        life_end, life = context.Pipe(duplex=False)
        scratch = tempfile.mkdtemp(prefix="xdyna-worker-")
        level = logging.getLogger().getEffectiveLevel()
        process = context.Process(
            target=_serve, args=(device, self._threads, theirs, life_end, scratch, level), daemon=True
        )
        try:
            process.start()
        except OSError as error:
            shutil.rmtree(scratch, ignore_errors=True)
            raise ResourceError(
                "worker", f"no process can be started ({error.strerror})", "Free memory"
            ) from error
        theirs.close()
        life_end.close()
        return _Worker(process, jobs, life, scratch)

    def _end(self, place: int) -> None:
        worker = self._workers.pop(place)
        if worker.process.is_alive():
            worker.process.terminate()
            worker.process.join(GRACE)
        if worker.process.is_alive():
            worker.process.kill()
        worker.process.join()
        worker.jobs.close()
        worker.life.close()
        shutil.rmtree(worker.scratch, ignore_errors=True)


def _how(status: int | None) -> str:
    if status is not None and status < 0:
        return f"ended by signal {-status}"
    return f"ended with status {status}"


def _serve(
    device: str, threads: int | None, jobs: Connection, life: Connection, scratch: str, level: int
) -> None:
    """A worker's life: jobs come, results go."""
    # Ctrl-C goes to the whole terminal: the parent ends the workers, each unwinds as for Ctrl-C
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        threading.Thread(target=_watch, args=(life,), daemon=True).start()
        logging.basicConfig(level=level, format="%(levelname)s: %(message)s")
        os.environ["TMPDIR"] = tempfile.tempdir = scratch
        worker = ClipWorker(device, threads)
        while True:
            jobs.send(worker.run(jobs.recv()))
    except (KeyboardInterrupt, EOFError, BrokenPipeError):
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        shutil.rmtree(scratch, ignore_errors=True)


def _watch(life: Connection) -> None:
    """End with the parent, which could not say so if it was killed."""
    with contextlib.suppress(EOFError, OSError):
        life.recv()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)
