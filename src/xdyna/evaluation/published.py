"""Reading the weight files that others published: tensors only, every name and shape checked.

A file is .safetensors, a torch pickle (read with `weights_only=True`), a .npz, or an .npy that holds a pickled
dictionary of arrays (MTCNN). Nothing that a file brings along is ever run: classes that a pickle names besides
tensors (old Lightning checkpoints name their callbacks) are replaced by empty ones of our own.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xdyna.errors import WeightsError
from xdyna.weights.keys import first_of

_MOST_STRANGERS = 64
_ARRAY_PARTS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}


@dataclass(frozen=True)
class Layout:
    """How a published file holds the parameters of a network.

    Attributes:
        wrappers: entries that may hold the state dict; the first that is there is opened, a file with none of
            them is the state dict itself.
        prefixes: what may stand in front of the names, tried in this order. Names without the prefix are then
            left over, and wrong unless `ignored`.
        ignored: beginnings of (whole) names that belong to parts not used.
        optional: endings of names that older files lack; such a tensor is filled with zeros.
    """

    wrappers: tuple[str, ...] = ("state_dict", "model_state_dict", "module", "model")
    prefixes: tuple[str, ...] = ("", "module.", "model.")
    ignored: tuple[str, ...] = ()
    optional: tuple[str, ...] = ("num_batches_tracked",)


def load_published(
    path: str | Path, expected: Mapping[str, tuple[int, ...]], *, layout: Layout | None = None
) -> dict[str, torch.Tensor]:
    """Read the parameters of a network from its published file, strictly.

    Args:
        path: the file.
        expected: the network's names and shapes.
        layout: how the file holds them; None for a state dict, plain or wrapped, with or without "module.".

    Returns:
        a tensor for each of `expected`, on the CPU, floats as float32; the file's memory may stand behind them.

    Raises:
        WeightsError: no such file, no weight file, code instead of tensors, a missing, extra or wrongly shaped
            name (the first ones are told), or NaN or infinity in a tensor.
    """
    layout = layout or Layout()
    path = Path(path)
    return fitted(path, read_published(path, layout=layout), expected, layout=layout)


def read_published(path: str | Path, *, layout: Layout | None = None) -> dict[str, torch.Tensor]:
    """All tensors of a published file without their wrapper, under the names they have in it.

    For a network whose size is read off the file (a transformer's depth); everything else takes `load_published`.

    Raises:
        WeightsError: no such file, no weight file, or one that holds code instead of tensors.
    """
    layout = layout or Layout()
    path = Path(path)
    content = _content(path)
    for wrapper in layout.wrappers:
        if isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    tensors = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        nested = [str(name) for name, value in content.items() if isinstance(value, Mapping)]
        raise WeightsError(
            path,
            "holds no tensors by name" + (f", only {first_of(nested)}" if nested else ""),
            "Give the file under its published name, or save its state_dict alone",
        )
    return tensors


def fitted(
    path: str | Path,
    tensors: Mapping[str, torch.Tensor],
    expected: Mapping[str, tuple[int, ...]],
    *,
    layout: Layout | None = None,
) -> dict[str, torch.Tensor]:
    """The tensors of a file (as `read_published` gives them) under the network's names; see `load_published`."""
    layout = layout or Layout()
    prefix = _prefix(tensors, expected, layout)
    found: dict[str, torch.Tensor] = {}
    left_over = []
    for name, tensor in tensors.items():
        if name.startswith(prefix) and name.removeprefix(prefix) in expected:
            found[name.removeprefix(prefix)] = tensor
        elif not name.startswith(layout.ignored):
            left_over.append(name)
    missing = [name for name in expected if name not in found and not name.endswith(layout.optional)]
    wrong = [
        f"{name} is {tuple(found[name].shape)}, not {tuple(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name].shape) != tuple(shape)
    ]
    told = [
        f"{len(names)} {label} ({first_of(names)})"
        for label, names in (("missing", missing), ("not wanted", left_over), ("of another shape", wrong))
        if names
    ]
    if told:
        raise WeightsError(
            path,
            "its parameters do not fit the network: " + "; ".join(told),
            "This is another network's file, or not the published one",
        )
    return {name: _checked(path, name, found.get(name), shape) for name, shape in expected.items()}


def fill_network(
    network: torch.nn.Module, path: str | Path, *, layout: Layout | None = None, device: str = "cpu"
) -> torch.nn.Module:
    """Give a network (real or built on the "meta" device) the parameters of its published file.

    Returns:
        the same network, in evaluation mode, its parameters without gradients.

    Raises:
        WeightsError: as `load_published`.
    """
    state = load_published(path, shapes_of(network), layout=layout)
    return adopt(network, state, device=device)


def adopt(
    network: torch.nn.Module, state: Mapping[str, torch.Tensor], *, device: str = "cpu"
) -> torch.nn.Module:
    """Give a network exactly these tensors, for evaluation."""
    network.load_state_dict(dict(state), strict=True, assign=True)
    return network.requires_grad_(False).eval().to(device)


def shapes_of(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a network's state."""
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def _prefix(
    tensors: Mapping[str, torch.Tensor], expected: Mapping[str, tuple[int, ...]], layout: Layout
) -> str:
    def fitting(prefix: str) -> int:
        return sum(prefix + name in tensors for name in expected)

    # the first of equals: max keeps the order of `prefixes`
    return max(layout.prefixes, key=fitting)


def _checked(
    path: str | Path, name: str, tensor: torch.Tensor | None, shape: tuple[int, ...]
) -> torch.Tensor:
    if tensor is None:
        return torch.zeros(shape, dtype=torch.int64)
    if not tensor.is_floating_point():
        return tensor
    if not bool(torch.isfinite(tensor).all()):
        raise WeightsError(path, f"{name} holds NaN or infinity", "Download the file again")
    return tensor.float()


def _content(path: Path) -> Mapping[Any, Any]:
    if not path.is_file():
        problem = "this is a folder, not a file" if path.is_dir() else "there is no such file"
        raise WeightsError(path, problem)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if path.suffix in (".npy", ".npz"):
            return _arrays(path)
        content = _torch_content(path)
    except WeightsError:
        raise
    except Exception as error:  # damaged files make these readers raise almost anything
        reason = str(error).partition("\n")[0][:200]
        raise WeightsError(path, f"no complete weight file ({reason})", _advice(path)) from error
    if not isinstance(content, Mapping):
        raise WeightsError(path, f"holds a {type(content).__name__}, not parameters by name", _advice(path))
    return content


def _torch_content(path: Path) -> Any:
    mapped = zipfile.is_zipfile(path)  # torch's older format cannot be mapped
    strangers: dict[str, type] = {}
    while True:
        try:
            # each stranger is an empty class of ours under the name that the file asks for
            pairs: list[Any] = [(kind, name) for name, kind in strangers.items()]
            with warnings.catch_warnings(), torch.serialization.safe_globals(pairs):
                warnings.simplefilter("ignore")  # on pickle protocols: what cannot be read is an error anyway
                return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except pickle.UnpicklingError as error:
            named = re.search(r"GLOBAL ([\w.]+) was not an allowed global", str(error))
            if named is None or named[1] in strangers or len(strangers) >= _MOST_STRANGERS:
                raise WeightsError(
                    path,
                    "needs more than tensors to be read" + (f" ({named[1]})" if named else "") + ", refused",
                    "Such a file can run anything on this machine. Where you trust it, save its state_dict alone",
                ) from error
            strangers[named[1]] = type("Stranger", (), {"__setstate__": _forget_state})


def _forget_state(self: object, state: object) -> None:
    """What a file's own objects hold is not wanted."""


def _arrays(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return {name: torch.from_numpy(file[name]) for name in file.files}
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(file)
        if not kind.hasobject or shape != ():
            raise WeightsError(path, "holds one array, not parameters by name")
        held = _ArraysUnpickler(file, encoding="latin1").load()
    content = held.item() if isinstance(held, np.ndarray) else held
    if not isinstance(content, dict) or not all(isinstance(value, np.ndarray) for value in content.values()):
        raise WeightsError(path, "holds something else than arrays by name")
    if any(value.dtype.hasobject for value in content.values()):
        raise WeightsError(path, "holds arrays of objects, not of numbers")
    return {str(name): torch.from_numpy(np.array(value)) for name, value in content.items()}


class _ArraysUnpickler(pickle.Unpickler):
    """Builds arrays and plain containers, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse every name but those that arrays are made of."""
        if (module, name) not in _ARRAY_PARTS:
            raise pickle.UnpicklingError(f"needs {module}.{name}, which is refused")
        return super().find_class(module, name)


def _advice(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        return "It is a git-lfs placeholder: run `git lfs pull` in its folder"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "It is a web page: the download failed"
    return "Download it again"
