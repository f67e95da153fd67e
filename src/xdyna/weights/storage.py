"""How tensors lie in a file: safetensors, written in a stream, whole or as 8-bit integers with scales.

The file format is safetensors' own (an 8-byte length, a JSON header, the bytes of the tensors). It is
written here tensor by tensor, so that saving a 5 GB network needs the memory of its largest tensor only;
`safetensors.torch.save_file` would want all of them at once.

Storage kinds: ``fp32``, ``fp16``, ``bf16`` and ``int8``. In ``int8`` every floating tensor of two or more
dimensions (and of more than one output channel, the first axis) is kept as round(w / s) with a scale
s = max|w| / 127 for each channel, in fp32 under the name ``<key>.scale``; the small rest is fp16. The
metadata say which it is.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from xdyna.errors import OptionError, OutputError, WeightsError

STORAGES: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "int8": torch.int8,
}
"""Storage kinds and the type that a large tensor has in the file."""

SCALE_SUFFIX = ".scale"
FORMAT_KEY = "xdyna_storage"

_TYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_TYPES = {name: dtype for dtype, name in _TYPE_NAMES.items()}


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that is made when it is needed.

    Attributes:
        shape: its shape.
        dtype: its type.
        load: makes it: a CPU tensor of that shape and type.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], torch.Tensor]

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.dtype.itemsize * torch.Size(self.shape).numel()

    @staticmethod
    def of(tensor: torch.Tensor, dtype: torch.dtype | None = None) -> LazyTensor:
        """The given tensor, floating ones turned into `dtype` only when loaded."""
        target = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        return LazyTensor(tuple(tensor.shape), target, lambda: tensor.detach().to("cpu", target))


def write_safetensors(
    path: Path,
    tensors: Mapping[str, LazyTensor],
    *,
    metadata: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a safetensors file tensor by tensor, under its final name only when complete.

    The same tensors give the same bytes, whatever their order.

    Args:
        path: the file; its folder exists.
        tensors: names and tensors.
        metadata: strings for the file's header.
        progress: called with (bytes written, bytes in all) after each tensor.

    Raises:
        OutputError: the file cannot be written.
        WeightsError: a tensor is not what it said it was.
    """
    # Wide types first: then every tensor starts at a multiple of its item's size, which readers want.
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, object] = {"__metadata__": dict(sorted((metadata or {}).items()))}
    offset = 0
    for name in names:
        tensor = tensors[name]
        header[name] = {
            "dtype": _TYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.size],
        }
        offset += tensor.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            written = 0
            for name in names:
                written += _write_tensor(file.write, name, tensors[name])
                if progress is not None:
                    progress(written, offset)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(
            path, f"cannot be written ({error.strerror or error})", "Free some space"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_tensor(write: Callable[[memoryview], object], name: str, lazy: LazyTensor) -> int:
    tensor = lazy.load()
    if tuple(tensor.shape) != lazy.shape or tensor.dtype != lazy.dtype:
        raise WeightsError(
            name, f"announced as {lazy.shape} {lazy.dtype}, made as {tuple(tensor.shape)} {tensor.dtype}"
        )
    # numpy knows no bfloat16, so the bytes go out as bytes.
    array = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    write(array.data)
    return array.nbytes


def quantise(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn weights into 8-bit integers with one scale for each output channel.

    Args:
        tensor: floating, two or more dimensions, output channels first, on any device.

    Returns:
        values: int8, the tensor's shape, in [-127, 127].
        scale: float32 (channels,); 1 for a channel of zeros. `values * scale` differs from the tensor by at
            most half a scale.

    Raises:
        WeightsError: the tensor holds NaN or infinity.
    """
    flat = tensor.detach().to(torch.float32).flatten(1)
    peak = flat.abs().amax(dim=1)
    if not bool(torch.isfinite(peak).all()):
        raise WeightsError(
            "weights", "NaN or infinity cannot be stored as int8", "Store as fp32 and look for it"
        )
    scale = torch.where(peak > 0, peak / 127, torch.ones_like(peak))
    values = (flat / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
    return values.reshape(tensor.shape), scale


def dequantise(values: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Undo `quantise`: int8 values of any shape and their (channels,) scales to a tensor of `dtype`."""
    return (values.to(torch.float32) * scale.reshape(-1, *[1] * (values.dim() - 1))).to(dtype)


def pack(tensors: Mapping[str, torch.Tensor], storage: str) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    """Lay tensors out for a file.

    Args:
        tensors: names and tensors, on any device.
        storage: a key of `STORAGES`.

    Returns:
        the tensors to write and the metadata that say how they are stored.

    Raises:
        OptionError: there is no such storage.
        WeightsError: a name ends like our own scales do.
    """
    if storage not in STORAGES:
        raise OptionError("storage", f"{storage!r} is not known", f"Choose one of {', '.join(STORAGES)}")
    metadata = {"format": "pt", FORMAT_KEY: storage}
    if storage != "int8":
        return {name: LazyTensor.of(tensor, STORAGES[storage]) for name, tensor in tensors.items()}, metadata
    packed: dict[str, LazyTensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(SCALE_SUFFIX):
            raise WeightsError(
                name, "names that end in .scale are taken by int8 storage", "Rename the parameter"
            )
        if tensor.dim() < 2 or len(tensor) < 2 or not tensor.is_floating_point():
            packed[name] = LazyTensor.of(tensor, torch.float16)
            continue
        # Done once for the values and once for the scales, for the sake of memory: nothing is kept.
        packed[name] = LazyTensor(tuple(tensor.shape), torch.int8, partial(_quantised, tensor, 0))
        packed[name + SCALE_SUFFIX] = LazyTensor(
            (len(tensor),), torch.float32, partial(_quantised, tensor, 1)
        )
    return packed, metadata


def _quantised(tensor: torch.Tensor, part: int) -> torch.Tensor:
    return quantise(tensor.cpu())[part]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file, open for the block.

    Raises:
        WeightsError: it is missing, cut short, or no safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError as error:
        raise WeightsError(path, "there is no such file") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            path, f"not a complete safetensors file ({error})", "Copy or download it again"
        ) from error


class TensorFile:
    """The tensors of one safetensors file, read one at a time and given in full precision names and shapes.

    The scales of int8 storage do not show: a stored tensor and its scale are one tensor here.
    """

    def __init__(self, path: Path) -> None:
        """Open `path` and read its header only.

        Raises:
            WeightsError: it is missing, cut short, or no safetensors file.
        """
        self.path = path
        with opened(path) as file:
            metadata = file.metadata() or {}
            names = set(file.keys())
            slices = {name: file.get_slice(name) for name in names}
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
            types = {name: part.get_dtype() for name, part in slices.items()}
        self.storage = metadata.get(FORMAT_KEY)
        self._scaled = {
            name
            for name in names
            if self.storage == "int8" and name + SCALE_SUFFIX in names and types[name] == "I8"
        }
        for name in self._scaled:
            if shapes[name + SCALE_SUFFIX] != shapes[name][:1]:
                raise WeightsError(path, f"{name}: its scales do not fit it", "Copy or download it again")
        hidden = {name + SCALE_SUFFIX for name in self._scaled}
        self.shapes = {name: shapes[name] for name in sorted(names - hidden)}
        self.types = {name: _TYPES.get(types[name], torch.float32) for name in self.shapes}

    def tensors(
        self, names: list[str], *, dtype: torch.dtype | None = None
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Read tensors one after the other, each in memory of its own.

        Args:
            names: which.
            dtype: what floating tensors become; None keeps the file's (float32 for int8 storage).
        """
        with safe_open(self.path, framework="pt") as file:
            for name in names:
                tensor = file.get_tensor(name)
                if name in self._scaled:
                    scale = file.get_tensor(name + SCALE_SUFFIX)
                    yield name, dequantise(tensor, scale, dtype or torch.float32)
                elif tensor.is_floating_point():
                    # A copy, for else the tensor may stand on the mapped file and change or vanish with it.
                    yield name, tensor.to(dtype or tensor.dtype, copy=True)
                else:
                    yield name, tensor.clone()
