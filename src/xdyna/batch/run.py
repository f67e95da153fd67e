"""The course of a batch: what is done is passed over, what fails is noted, and the rest goes on."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from xdyna.batch.check import is_done
from xdyna.batch.crew import Crew, Died
from xdyna.batch.jobs import Job, describe
from xdyna.batch.work import Finished
from xdyna.errors import XdynaError
from xdyna.media.files import remove_leftovers, write_failure

logger = logging.getLogger(__name__)

REPORT = "batch.jsonl"
"""The log in the folder of results: a line for each job and run."""

ATTEMPTS = 2
"""How often a job may take its worker down before it counts as failed."""

LOOK = 1.0
"""Seconds between two looks at the workers, so that Ctrl-C is heard."""

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Outcome:
    """What became of a job; a line of the report.

    Attributes:
        job: its place in the list.
        output: the result's path.
        state: "done", "skipped" (was there already) or "failed".
        error: why it failed.
        seconds: how long its last attempt took.
        attempts: how often it was begun.
    """

    job: str
    output: str
    state: str
    error: str | None = None
    seconds: float = 0.0
    attempts: int = 0


@dataclass
class BatchReport:
    """What became of all jobs, in the order they ended."""

    outcomes: list[Outcome] = field(default_factory=list)

    def count(self, state: str) -> int:
        """How many jobs ended so."""
        return sum(outcome.state == state for outcome in self.outcomes)

    def lines(self) -> list[str]:
        """The failures, and a summary."""
        failures = [f"{one.job}: {one.error}" for one in self.outcomes if one.state == "failed"]
        states = ", ".join(f"{self.count(state)} {state}" for state in ("done", "skipped", "failed"))
        return [*failures, f"{len(self.outcomes)} clips: {states}"]


def run_batch(
    jobs: Sequence[Job], folder: str | Path, *, crew: Crew, progress: Progress | None = None
) -> BatchReport:
    """Make all clips of a list.

    A job whose result is there, made by the same settings, is passed over. One that fails does not stop the others; one
    whose worker dies is tried once more with a new worker. The report is written line by line into `batch.jsonl`.

    Args:
        jobs: from `read_jobs`.
        folder: of the results.
        crew: who does the work; closed when this returns or raises, Ctrl-C included.
        progress: called with ("clips", done, of how many).

    Raises:
        OutputError: the report cannot be written.
    """
    batch = _Batch(list(jobs), Path(folder).expanduser(), crew, progress)
    try:
        return batch.run()
    finally:
        crew.close()
        for job, _ in batch.busy.values():
            _remove_leftovers(job)


class _Batch:
    """The queue, who works on what, and the report."""

    def __init__(self, jobs: list[Job], folder: Path, crew: Crew, progress: Progress | None) -> None:
        self._queue, self._total = deque(jobs), len(jobs)
        self._folder, self._crew, self._progress = folder, crew, progress
        self._attempts: Counter[str] = Counter()
        self._deaths = 0
        self._report = BatchReport()
        self.busy: dict[int, tuple[Job, float]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_failure(folder, error) from error

    def run(self) -> BatchReport:
        self._tell()
        while self._queue or self.busy:
            for place in range(self._crew.places):
                while place not in self.busy and self._queue:
                    self._begin(place, self._queue.popleft())
            if self.busy:
                for place, result in self._crew.wait(LOOK):
                    if place in self.busy:
                        self._end(place, result)
        return self._report

    def _begin(self, place: int, job: Job) -> None:
        if self._deaths >= ATTEMPTS * (self._crew.places + 1):
            self._note(
                job, "failed", f"not begun: the last {self._deaths} workers died, with no clip made between"
            )
            return
        try:
            if self._attempts[job.where] == 0 and is_done(job):
                self._note(job, "skipped")
                return
        except XdynaError as error:
            self._note(job, "failed", describe(error))
            return
        self._attempts[job.where] += 1
        self.busy[place] = job, time.monotonic()
        self._crew.submit(place, job)

    def _end(self, place: int, result: Finished | Died) -> None:
        job, began = self.busy.pop(place)
        if isinstance(result, Finished):
            self._deaths = 0
            self._note(job, "failed" if result.error else "done", result.error, result.seconds)
            return
        self._deaths += 1
        # a name's beginning may be that of a clip in the making
        if all(job.output.stem[:40] != other.output.stem[:40] for other, _ in self.busy.values()):
            _remove_leftovers(job)
        if self._attempts[job.where] < ATTEMPTS:
            logger.warning("%s: its worker was %s; once more with a new one", job.where, result.how)
            self._queue.appendleft(job)
            return
        problem = f"its worker was {result.how}, {ATTEMPTS} times; out of memory is the usual cause"
        self._note(job, "failed", problem, time.monotonic() - began)

    def _note(self, job: Job, state: str, error: str | None = None, seconds: float = 0.0) -> None:
        attempts = self._attempts[job.where]
        outcome = Outcome(job.where, str(job.output), state, error, round(seconds, 3), attempts)
        self._report.outcomes.append(outcome)
        if error is not None:
            logger.warning("%s: %s", job.where, error)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        line = json.dumps({"at": now, **dataclasses.asdict(outcome)}, ensure_ascii=False) + "\n"
        path = self._folder / REPORT
        try:
            with open(path, "ab+") as file:
                if file.tell() and _last_byte(path) != b"\n":
                    line = "\n" + line  # an earlier run was cut off in the middle of a line
                file.write(line.encode())
        except OSError as problem:
            raise write_failure(path, problem) from problem
        self._tell()

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress("clips", len(self._report.outcomes), self._total)


def _last_byte(path: Path) -> bytes:
    with open(path, "rb") as file:
        file.seek(-1, 2)
        return file.read(1)


def _remove_leftovers(job: Job) -> None:
    """What a killed worker left half written."""
    for suffix in (job.output.suffix, ".json", ".compare.mp4", ".sheet.png"):
        remove_leftovers(job.output.with_suffix(suffix))
