"""How much faster one long clip is on several GPUs of a host: the published widths, random weights.

    torchrun --nproc_per_node N -m benchmarks.several_gpus [--way fused] [--frames 192] [--rounds 3] [-o FOLDER]

A step of the long clip (see `full_size` for the protocol) by the first process alone, the others waiting, and by all of
them, in turn (A B A B); their ratio, and how far the latents of both lie apart after two steps. The share of each
process is a run of windows, so N processes cannot be faster than windows / (most windows of one) times: 16 windows on
3 processes 2.7. `--width tiny` is a small model on CPUs, to try the script.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from xdyna.allocator import expand_segments

expand_segments()  # as the command does, before torch is imported

import diffusers
import torch
import torch.distributed as dist
from benchmarks.full_size_ways import WAYS, WINDOW, Copies, Protocol, Runner, build
from benchmarks.results import Results
from torch.distributed import rendezvous

from xdyna.sampling import ALONE, Group, Hosts
from xdyna.windows import step_windows

COMPARED_STEPS = 2


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.several_gpus", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument(
        "--way", choices=[name for name, way in WAYS.items() if not way.official], default="fused"
    )
    parser.add_argument("--frames", type=int, default=192)
    parser.add_argument("--size", nargs=2, type=int, default=[896, 512], metavar=("H", "W"))
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--width", choices=("full", "tiny"), default="full")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, default=Path("several_gpus"))
    given = parser.parse_args(arguments)
    diffusers.utils.logging.set_verbosity_error()  # it warns of every .to()
    with group() as (hosts, device):
        measure(given, hosts, device)


@contextlib.contextmanager
def group() -> Iterator[tuple[Group, torch.device]]:
    """The processes that torchrun started, and this one's device."""
    store, rank, count = next(iter(rendezvous("env://")))
    kind = "cuda" if torch.cuda.device_count() >= count else "cpu"
    device = torch.device(f"cuda:{rank}" if kind == "cuda" else "cpu")
    hosts = Group(rank, count, store, device)
    try:
        yield hosts, device
    finally:
        hosts.leave()


def measure(given: argparse.Namespace, hosts: Group, device: torch.device) -> None:
    """All rows; the first process writes them."""
    exact = build(given.width, device)
    protocol = Protocol(given.width, given.size, device, exact.unet.config.in_channels)
    copies = Copies(exact, getattr(torch, given.dtype), device)
    runner = Runner(WAYS[given.way], copies.get(WAYS[given.way].base), protocol)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    windows = len(step_windows(given.frames, size=WINDOW, overlap=4, loop="closed", offset=0))
    about = {"device": f"{hosts.count} x {name}", "torch": torch.__version__, "dtype": given.dtype,
             "size": given.size, "width": given.width, "frames": given.frames, "windows": windows,
             "way": given.way, "date": time.strftime("%Y-%m-%d")}  # fmt: skip
    results = Results(given.output, about) if hosts.rank == 0 else None

    def timed(row: str, mine: Hosts, *, steps: int = 1) -> torch.Tensor | None:
        """Denoise and note the seconds; a process that is not asked only waits."""
        latents = None
        dist.barrier()
        begin = clock(device)
        if mine is hosts or hosts.rank == 0:
            latents = runner.steps(given.frames, steps, hosts=mine)
        dist.barrier()
        if results is not None:
            results.add(row, f"{steps} steps s", [clock(device) - begin])
        return latents

    whole, shared = "one process", f"{hosts.count} processes"
    # the first runs compile kernels, and record each shape where the way records
    alone, together = timed(whole, ALONE, steps=COMPARED_STEPS), timed(shared, hosts, steps=COMPARED_STEPS)
    for _ in range(given.rounds):
        timed(whole, ALONE)
        timed(shared, hosts)
    if results is None:
        return
    report(results, whole, shared, alone, together)


def report(results: Results, whole: str, shared: str, alone: Any, together: Any) -> None:
    """How much faster, and how alike."""
    times = [results.values(row, "1 steps s") for row in (whole, shared)]
    ratios = [one / several for one, several in zip(*times, strict=True)]
    results.add(shared, "times as fast", ratios)
    error = (alone - together).norm() / alone.norm()
    results.add(shared, f"relative difference after {COMPARED_STEPS} steps", [error.item()])
    print(results.table(), flush=True)


def clock(device: torch.device) -> float:
    """Seconds, when the device has done all it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic()


if __name__ == "__main__":
    main()
