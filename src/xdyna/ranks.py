"""Starting the processes that share one clip, and ending all of them when one fails.

Each process is the same command again, told by torchrun's environment variables which one it is, so that
`torchrun --nproc_per_node N -m xdyna animate ...` and `xdyna animate --gpus N ...` run the same code: the second
starts the processes itself (`launch`), and `joined` makes them a group in both.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta

import torch
from torch.distributed import Store, TCPStore, rendezvous

from xdyna.errors import OptionError, ResourceError, XdynaError
from xdyna.machine import choose_device
from xdyna.sampling import ALONE, Group, Hosts, LostProcess

logger = logging.getLogger(__name__)

TOLD = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What tells a process its place; torchrun sets the same."""

WATCHED = "XDYNA_WATCHED"
"""Set by `launch`: the standard input is a pipe that ends when the parent does."""

LOST = 3
"""Exit status of a process that ends because another one did."""

GRACE = 10.0
"""Seconds that a process has for cleaning up before it is killed."""


def is_rank() -> bool:
    """Whether this process was started as one of several that share a clip."""
    return all(name in os.environ for name in TOLD) and os.environ["WORLD_SIZE"] != "1"


def rank_device(name: str) -> torch.device:
    """The device of this process among those of its run: a GPU each, or the CPU.

    Args:
        name: what `--device` says.

    Raises:
        OptionError: one certain device, which cannot be everybody's.
        ResourceError: more processes than GPUs.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cuda", "cpu"):
        raise OptionError(
            "--device",
            f"got {name}, several processes have a GPU each or share the CPU",
            "Use auto, cuda or cpu",
        )
    return choose_device(name if name == "cpu" else f"cuda:{os.environ['LOCAL_RANK']}")


@contextlib.contextmanager
def joined(device: str) -> Iterator[tuple[Hosts, str]]:
    """The processes this one belongs to, and the name of its device; alone unless it was started as one of several.

    Where several fail, only the first one's error leaves the block; the others end quietly with status 2, as the loss
    of one makes the exchanges of all fail.

    Args:
        device: what `--device` says.

    Raises:
        OptionError: processes on several machines: condition pictures are shared through the disk.
    """
    if not is_rank():
        yield ALONE, device
        return
    # torchrun and `launch` end a process by SIGTERM: unwind as for Ctrl-C, so that no half file stays
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parent = os.getppid()
    if WATCHED in os.environ:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    if os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]) != os.environ["WORLD_SIZE"]:
        raise OptionError(
            "torchrun", "these processes are on several machines, a clip is shared on one", "Use --nnodes 1"
        )
    store, rank, count = next(iter(rendezvous("env://", timeout=timedelta(minutes=5))))
    try:
        place = rank_device(device)
        group = Group(rank, count, store, place)
        yield group, str(place)
        group.leave()
    except KeyboardInterrupt:
        # the parent says so, once, and clears up; where it is gone, this process must clear up to its end
        if WATCHED in os.environ and os.getppid() == parent:
            raise _exit_at_once(130) from None
        raise SystemExit(130) from None
    except LostProcess:
        # the parent knows better what became of the other
        if WATCHED in os.environ or not _failed_first(store):
            raise _exit_at_once(LOST) from None
        raise
    except Exception as error:
        logger.info("process %d of %d failed: %s", rank, count, error)
        if not _failed_first(store):
            raise _exit_at_once(2) from None
        if isinstance(error, XdynaError):
            _exit_at_once(2)
        raise
    finally:
        # asked to end while it ends: nothing is left to unwind
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if WATCHED in os.environ and os.getppid() != parent:
            with contextlib.suppress(OSError):
                os.rmdir(tempfile.gettempdir())  # which the parent would have removed


def _exit_at_once(status: int) -> SystemExit:
    """What to raise to end with this status. The interpreter's own end is left out: threads of a broken exchange may
    abort it, which would look as if the process had been killed."""

    def end() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    atexit.register(end)
    return SystemExit(status)


def launch(arguments: Sequence[str], devices: Sequence[str]) -> int:
    """Run `xdyna ARGUMENTS...` as several processes of this machine that share the work.

    All end when one fails; its message is on standard error by then. Ctrl-C ends all.

    Args:
        arguments: of the command line, without the program's name.
        devices: of each process, from `choose_devices`.

    Returns:
        The exit status: 0 when all ended well, else 2, or that of the first to fail.

    Raises:
        ResourceError: a process was killed, or none can be started.
    """
    count, gpus = len(devices), [int(device[5:]) for device in devices if device.startswith("cuda:")]
    # the parent keeps the store, so that it outlives whichever process fails
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    environment = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        WATCHED: "1",
    }
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(_visible(gpus))
    else:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // count)))
    processes: list[subprocess.Popen[bytes]] = []
    scratch = tempfile.mkdtemp(prefix="xdyna-ranks-")
    environment["TMPDIR"] = scratch
    try:
        for rank in range(count):
            told = environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            # a session of its own: Ctrl-C comes to the parent alone, which then ends the others in order
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "xdyna", *arguments],
                    env=told,
                    stdin=subprocess.PIPE,
                    start_new_session=True,
                )
            )
        return _wait(processes)
    except OSError as error:
        raise ResourceError(
            "--gpus", f"no process can be started ({error.strerror})", "Free some memory"
        ) from error
    finally:
        _end(processes)
        shutil.rmtree(scratch, ignore_errors=True)  # of processes that had to be killed


def _failed_first(store: Store) -> bool:
    """Note that this process failed; whether it is the first, whose message counts."""
    try:
        return bool(store.add("failed", 1) == 1)
    except (RuntimeError, ValueError):
        return False  # whoever keeps the store is gone already


def _wait(processes: list[subprocess.Popen[bytes]]) -> int:
    """Until all ended well, or one did not."""
    while True:
        statuses = [process.poll() for process in processes]
        killed = next(
            (rank for rank, status in enumerate(statuses) if status is not None and status < 0), None
        )
        if killed is not None:
            _settle(processes)
            told = [
                status
                for process in processes
                if (status := process.poll()) and status > 0 and status != LOST
            ]
            if told:  # one said what went wrong, and took the other with it
                return told[0]
            raise ResourceError(
                f"process {killed} of {len(processes)}",
                f"was ended by signal {-(statuses[killed] or 0)}, so the run stopped",
                "Out of memory is the usual cause: use a smaller --size, or fewer processes",
            )
        failed = [status for status in statuses if status]
        if failed and None in statuses:
            # others fail with it: the one that failed first, or was killed, counts
            _settle(processes)
            if statuses != (statuses := [process.poll() for process in processes]):
                continue
        if failed:
            told = [status for status in failed if status != LOST]
            if told:
                return told[0]
            raise ResourceError("this run", "its processes lost each other, so it stopped", "Try again")
        if None not in statuses:
            return 0
        time.sleep(0.05)


def _settle(processes: list[subprocess.Popen[bytes]], seconds: float = 1.0) -> None:
    """A moment for the others to end as well."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(process.poll() is None for process in processes):
        time.sleep(0.05)


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """End those that still run: asked first, so that they remove what is half written, then killed."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    _settle(processes, GRACE)
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _end_with_parent() -> None:
    """Read until the parent is gone (kill -9 tells nobody), then end as if asked to."""
    with contextlib.suppress(OSError, ValueError):
        os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)


def _visible(gpus: Sequence[int]) -> list[str]:
    """What CUDA_VISIBLE_DEVICES must say for these, in a process that may itself see only some."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in seen.split(",")] if seen else []
    return [names[gpu] if names else str(gpu) for gpu in gpus]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
