"""What a run asks of the machine: a device, a number format, memory, time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch

from xdyna.errors import OptionError, ResourceError


def choose_device(name: str) -> torch.device:
    """The device of an option's text.

    Raises:
        OptionError: no such kind of device.
        ResourceError: this machine has none.
    """
    mps = getattr(torch.backends, "mps", None) is not None and torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise OptionError("--device", f"got {name!r}, allowed are auto, cpu, cuda, cuda:N and mps")
    missing = (device.type == "cuda" and not torch.cuda.is_available()) or (device.type == "mps" and not mps)
    if missing:
        raise ResourceError(
            "--device", f"{name} was asked for and PyTorch sees no such device", "Use --device cpu"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ResourceError(
            "--device", f"{name} was asked for and there are {count} GPUs", "Count from cuda:0"
        )
    return device


def choose_devices(gpus: str, device: str = "auto") -> list[str]:
    """The device of each process, of what `--gpus` and `--device` say.

    Args:
        gpus: "auto" for all there are, a count, or numbers from 0 with commas between ("0,2"; "2," is number 2 alone).
        device: with "cpu", `gpus` counts processes on the CPU.

    Returns:
        "cuda:0", "cuda:2" and so on, or "cpu" as often as there are processes.

    Raises:
        OptionError: none of these forms, or a `--device` that says otherwise.
        ResourceError: this machine has fewer GPUs.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise OptionError("--device", f"got {device} beside --gpus {gpus}", "Give one of the two")
    here = torch.cuda.device_count()
    if gpus == "auto":
        numbers = list(range(1 if device == "cpu" else here))
    else:
        try:
            numbers = [int(part) for part in gpus.split(",") if part.strip()]
        except ValueError:
            numbers = [-1]
        if "," not in gpus:
            numbers = list(range(min(numbers[0], 1024))) if numbers else []
        if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
            raise OptionError("--gpus", f"got {gpus!r}, allowed are auto, a count, and numbers such as 0,2")
    if device == "cpu":
        return ["cpu"] * len(numbers)
    if not numbers or max(numbers) >= here:
        raise ResourceError(
            "--gpus", f"{gpus} was asked for and PyTorch sees {here}",
            "GPUs count from 0; with --device cpu, --gpus counts processes on the CPU",
        )  # fmt: skip
    return [f"cuda:{number}" for number in numbers]


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format of an option's text.

    Raises:
        OptionError: unknown, or one that the device computes wrongly or hundreds of times slower.
    """
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.float16
    formats = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if name not in formats:
        raise OptionError("--dtype", f"got {name!r}, allowed are auto, {', '.join(formats)}")
    if device.type == "cpu" and name != "float32":
        raise OptionError("--dtype", f"{name} does not run usefully on a CPU", "Use --dtype float32 or a GPU")
    return formats[name]


@contextlib.contextmanager
def timed(timings: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds spent in the block to `timings[name]`."""
    begin = time.perf_counter()
    try:
        yield
    finally:
        timings[name] = timings.get(name, 0.0) + time.perf_counter() - begin


@contextlib.contextmanager
def memory_advice(device: torch.device) -> Iterator[None]:
    """Turn "out of memory" into an error that says which options help."""
    try:
        yield
    except (torch.cuda.OutOfMemoryError, MemoryError, RuntimeError) as error:
        text = str(error)
        exhausted = isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)) or "alloc" in text.lower()
        if not exhausted or isinstance(error, ResourceError):
            raise
        helps = "--offload, --dtype float16, " if device.type == "cuda" else ""
        raise ResourceError(
            str(device), "out of memory", f"These need less: {helps}a smaller --size, a smaller --window"
        ) from error
