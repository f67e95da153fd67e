"""Reading other people's checkpoint files: tensors only, by name, without holding them in memory."""

from __future__ import annotations

import logging
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from xdyna.errors import WeightsError
from xdyna.weights.keys import first_of
from xdyna.weights.storage import LazyTensor, TensorFile

logger = logging.getLogger(__name__)

WRAPPERS = ("state_dict", "model_state_dict")
"""Entries of a saved training state that hold the network."""

STRIPPED = "module."
"""What data-parallel training leaves in names; the official code removes it wherever it stands (spec.md 11)."""


class Checkpoint:
    """The tensors of one file, .safetensors or a pickle, under cleaned names.

    Opening reads names and shapes. Tensors are read when asked for; a pickle in torch's zip format is
    mapped, not loaded. `close` lets go of it; the next `tensor` opens it again.

    A pickle is read with torch's restricted unpickler, which builds tensors and plain containers and runs
    nothing that the file brings along.

    Attributes:
        path: the file.
        shapes: name -> shape, without wrappers and "module."; nested dictionaries join names with dots.
    """

    def __init__(self, path: Path) -> None:
        """Open a file and read its names.

        Raises:
            WeightsError: missing, cut short, no checkpoint, or one that holds more than tensors.
        """
        self.path = path
        self._file: TensorFile | None = None
        self._names: dict[str, str] = {}
        self._state: dict[str, torch.Tensor] | None = None
        if path.suffix == ".safetensors":
            self._file = TensorFile(path)
            shapes = self._file.shapes
        else:
            self._state = _load_pickle(path)
            shapes = {name: tuple(tensor.shape) for name, tensor in self._state.items()}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for stored, shape in shapes.items():
            name = stored.replace(STRIPPED, "")
            if name in self.shapes:
                raise WeightsError(path, f"{name} is in it twice, with and without {STRIPPED!r}")
            self.shapes[name] = shape
            self._names[name] = stored
        self.close()

    def rename(self, names: Mapping[str, str]) -> None:
        """Give tensors other names: old -> new."""
        self.shapes = {names.get(name, name): shape for name, shape in self.shapes.items()}
        self._names = {names.get(name, name): stored for name, stored in self._names.items()}

    def part(self, prefix: str) -> dict[str, tuple[int, ...]]:
        """Names (without the prefix) and shapes of the tensors under a prefix."""
        return {
            name.removeprefix(prefix): shape for name, shape in self.shapes.items() if name.startswith(prefix)
        }

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor, perhaps standing on the mapped file: not to be changed, nor kept after `close`."""
        if self._file is not None:
            return next(self._file.tensors([self._names[name]]))[1]
        if self._state is None:
            self._state = _load_pickle(self.path)
        return self._state[self._names[name]]

    def lazy(self, name: str, dtype: torch.dtype) -> LazyTensor:
        """The tensor in another type, read when needed.

        Raises:
            WeightsError: (when loaded) it holds NaN or infinity, or does in `dtype`.
        """
        return LazyTensor(self.shapes[name], dtype, lambda: self._converted(name, dtype))

    def close(self) -> None:
        """Let go of the file's memory."""
        self._state = None

    def _converted(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        tensor = self.tensor(name)
        converted = tensor.to(dtype)
        if not bool(torch.isfinite(converted).all()):
            if bool(torch.isfinite(tensor).all()):
                raise WeightsError(
                    self.path, f"{name} does not fit into {dtype}", "Convert with --dtype bfloat16 or float32"
                )
            raise WeightsError(self.path, f"{name} holds NaN or infinity", "Download the file again")
        return converted


def _load_pickle(path: Path) -> dict[str, torch.Tensor]:
    try:
        with path.open("rb") as file:
            start = file.read(64)
        mapped = zipfile.is_zipfile(path)  # torch's older format cannot be mapped
        if not mapped and not start.startswith(b"\x80"):
            raise WeightsError(path, "no checkpoint file", _advice(start))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickle protocols: what cannot be read is an error anyway
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError as error:
        raise WeightsError(path, "there is no such file") from error
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise WeightsError(
            path,
            "needs more than tensors to be read" + (f" ({named[1]})" if named else "") + " and was refused",
            "Such a file can run anything on this machine. Where you trust it, save its state_dict alone, "
            "best as .safetensors",
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise WeightsError(path, f"no complete checkpoint file ({reason})", "Download it again") from error
    if not isinstance(content, Mapping):
        raise WeightsError(path, f"holds a {type(content).__name__}, not parameters by name")
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    state: dict[str, torch.Tensor] = {}
    others = []
    for name, value in _leaves(content, ""):
        if isinstance(value, torch.Tensor):
            state[name] = value
        else:
            others.append(name)
    if others:
        raise WeightsError(
            path,
            f"{len(others)} entries are no tensors ({first_of(others)})",
            "Save the network's state_dict alone",
        )
    return state


def _leaves(content: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _advice(start: bytes) -> str:
    if start.startswith(b"version https://git-lfs"):
        return "It is a git-lfs placeholder: run `git lfs pull` in its folder"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "It is a web page: the download failed"
    return "Download it again"
