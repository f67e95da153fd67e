"""What a worker does, whoever started it: clips one after another with a model loaded once."""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass

from xdyna.animate import animate_file, load_pipeline
from xdyna.batch.jobs import Job, describe
from xdyna.errors import XdynaError
from xdyna.pipeline import XDynaPipeline

logger = logging.getLogger(__name__)

LOADED = ("model", "dtype", "offload", "fusing", "weights", "graphs")
"""Options that a model is loaded with."""


@dataclass(frozen=True)
class Finished:
    """What became of a job.

    Attributes:
        error: the reason why it failed, in a sentence; None when its result is there.
        seconds: how long it took.
        broken: whether the failure was none that a user can mend, so that the worker had better be replaced.
    """

    error: str | None
    seconds: float
    broken: bool = False


class ClipWorker:
    """Makes clips on one device. The model stays loaded until a job asks for another one.

    Args:
        device: "cuda:0", "cpu" and so on.
        threads: CPU threads to use; None leaves that to PyTorch.
    """

    def __init__(self, device: str, threads: int | None = None) -> None:
        self._device = device
        self._pipeline: XDynaPipeline | None = None
        self._loaded: tuple[object, ...] = ()
        if threads is not None:
            import cv2
            import torch

            torch.set_num_threads(threads)
            cv2.setNumThreads(threads)

    def run(self, job: Job) -> Finished:
        """Make one clip; whatever goes wrong is told in the result."""
        begin = time.monotonic()
        error, broken = None, False
        try:
            options = dataclasses.replace(job.options, device=self._device)
            wanted = tuple(getattr(options, name) for name in LOADED)
            if self._pipeline is None or wanted != self._loaded:
                self._pipeline = None  # the old one goes before the new one comes
                self._pipeline, self._loaded = load_pipeline(options), wanted
            animate_file(job.image, job.video, job.output, options=options, pipeline=self._pipeline)
        except XdynaError as problem:
            error = describe(problem)
        except Exception as problem:
            logger.info("%s: unexpected error", job.where, exc_info=True)
            text = (str(problem).splitlines() or [""])[0][:300]
            error, broken = (
                f"unexpected {type(problem).__name__}: {text} (-v shows where; please report it)",
                True,
            )
        return Finished(error, round(time.monotonic() - begin, 3), broken)
