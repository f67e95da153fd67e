"""The one training loop: resumable at any step, budgeted in steps or in minutes.

A run folder holds `config.json` and `run.json` (`record.py`), `state.pt` (replaced atomically), `log.jsonl`, `models/`
(the newest model folders, ready for `XDynaPipeline`), `samples/`, `tensorboard/`, `pool-*.safetensors` (clips, so that
a resumed run need not make them again) and, once trained, `judge.safetensors`.

On a CPU a run whose stages end by steps is a function of its config: stopped and resumed anywhere, it ends with the
same weights. Runs budgeted in minutes are resumable as well, but how many steps fit is up to the machine.
"""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch

from xdyna.errors import OutputError, ResourceError
from xdyna.training.config import TrainConfig
from xdyna.training.config_file import load_config
from xdyna.training.processes import Processes
from xdyna.training.trainer import Progress, Trainer

logger = logging.getLogger(__name__)


def run(
    config_path: str | Path,
    output: str | Path,
    overrides: Sequence[str] = (),
    max_minutes: float | None = None,
    *,
    resume: bool = True,
    device: str | None = None,
) -> Progress:
    """Train by a config file; what the command line calls.

    Args:
        config_path: a TOML file of configs/train.
        output: the run's folder; made if absent.
        overrides: `section.key=value` strings.
        max_minutes: stop cleanly after this long; the same call goes on from there.
        resume: go on from the folder's state, if it has one.
        device: "cpu", "cuda"; by default CUDA where there is one.
    """
    config = load_config(config_path, overrides=overrides)
    return train(config, output=output, resume=resume, max_minutes=max_minutes, device=device)


def train(
    config: TrainConfig,
    *,
    output: str | Path,
    resume: bool = True,
    max_minutes: float | None = None,
    max_steps: int | None = None,
    device: str | None = None,
) -> Progress:
    """Run the stages of `config` until done, or until told to stop.

    Args:
        config: what to train.
        output: the run's folder.
        resume: go on from the folder's state, if it has one; otherwise start anew.
        max_minutes: stop cleanly after this many minutes of this call.
        max_steps: stop cleanly after this many steps of this call.
        device: where to train; by default CUDA where there is one.

    Returns:
        how far the run is. SIGTERM and SIGINT stop it cleanly, too.

    Raises:
        OptionError: the folder's state is of another model, or the device is unknown.
        OutputError: the folder cannot be written.
        ResourceError: there is no such device, or its memory ran out.
    """
    folder = Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "log.jsonl").touch()
    except OSError as error:
        raise OutputError(folder, f"cannot be written ({error.strerror})", "Choose another folder") from None
    if config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)
    processes = Processes(device, precision=config.runtime.precision)
    trainer = Trainer(config, folder, processes, resume=resume)
    with _stop_signals() as stop:
        deadline = math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes
        try:
            return trainer.train(stop, deadline=deadline, max_steps=max_steps)
        except torch.OutOfMemoryError as error:
            raise ResourceError(
                str(trainer.run.device), f"out of memory ({error})", "Lower the stage's batch or pool"
            ) from error
        finally:
            trainer.close()


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; their old handlers come back at the end."""
    event = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        event.set()

    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    old = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield event
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
