"""What a run asks of the machine: a device, a number format, memory, time."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from xdyna.errors import OptionError, ResourceError

SHORT_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""Other names of the number formats."""


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
    name = SHORT_DTYPES.get(name, name)
    if name not in formats:
        raise OptionError(
            "--dtype", f"got {name!r}, allowed are auto, {', '.join([*formats, *SHORT_DTYPES])}"
        )
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
        helps = "--offload, --weights int8, --dtype float16, " if device.type == "cuda" else ""
        raise ResourceError(
            str(device), "out of memory", f"These need less: {helps}a smaller --size, a smaller --window"
        ) from error


def return_memory() -> None:
    """Give freed memory back to the system, which the C library otherwise keeps: after work that freed a lot."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # not glibc
            ctypes.CDLL("libc.so.6").malloc_trim(0)


class Lent:
    """Networks that lie in main memory and are copied to the device for their work, so many at a time as are asked for.

    Weights do not change, so nothing is copied back: the originals stay where they are.

    Args:
        device: where they work.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._out: list[tuple[Any, torch.Tensor, torch.Tensor]] = []

    def take(self, networks: Iterable[Any]) -> None:
        """Have these on the device and no others; those that are there already stay."""
        wanted = list(networks)
        if {id(network) for network in wanted} == {id(network) for network, _, _ in self._out}:
            return
        self.give_back()
        for network in wanted:
            for tensor in itertools.chain(network.parameters(), network.buffers()):
                if tensor.device != self.device:
                    self._out.append((network, tensor, tensor.data))
                    tensor.data = tensor.data.to(self.device, non_blocking=True)

    def holds(self, network: Any) -> bool:
        """Whether a network was brought to the device."""
        return any(one is network for one, _, _ in self._out)

    def give_back(self) -> None:
        """Have none on the device."""
        for _, tensor, original in self._out:
            tensor.data = original
        if self._out and self.device.type == "cuda":
            torch.cuda.empty_cache()
        self._out = []

    @contextlib.contextmanager
    def holding(self, networks: Iterable[Any]) -> Iterator[Lent]:
        """These networks on the device inside the block, and none after it."""
        try:
            self.take(networks)
            yield self
        finally:
            self.give_back()


class LentNetwork:
    """A network that is fetched when it is called, and stays until another of the same `Lent` is called."""

    def __init__(self, network: Any, lent: Lent) -> None:
        self._network, self._lent = network, lent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def __call__(self, *values: Any, **named: Any) -> Any:
        """What the network gives for these arguments."""
        self._lent.take([self._network])
        return self._network(*values, **named)

    def halves(self, *values: Any, **named: Any) -> Any:
        """A denoiser's predictions for several guidance halves, see `models.halves`."""
        self._lent.take([self._network])
        return self._network.halves(*values, **named)
