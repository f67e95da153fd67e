"""Many clips from one list: read, checked, shared out over worker processes or Ray, resumable."""

from __future__ import annotations

from xdyna.batch.check import check_job, is_done
from xdyna.batch.crew import Crew, Died, ProcessCrew
from xdyna.batch.jobs import Job, read_jobs
from xdyna.batch.rays import RayCrew
from xdyna.batch.run import BatchReport, Outcome, run_batch
from xdyna.batch.work import ClipWorker, Finished

__all__ = [
    "BatchReport",
    "ClipWorker",
    "Crew",
    "Died",
    "Finished",
    "Job",
    "Outcome",
    "ProcessCrew",
    "RayCrew",
    "check_job",
    "is_done",
    "read_jobs",
    "run_batch",
]
