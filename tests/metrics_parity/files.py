"""Weight files of networks, written from manifests by the rule of README.json.

The rule gives every tensor from its published name alone, so that the numbers of a case can be reproduced without
the published weights, and reading the file tests the loader.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

Shapes = dict[str, tuple[tuple[int, ...], bool]]
"""Name -> (shape, whether floating)."""


class WrongFill(Exception):
    """A manifest whose own sums and hash our filling does not give."""


class PublishedFiles:
    """Writes the files of a directory's manifests into a folder, each once."""

    def __init__(self, manifests: Path, folder: Path) -> None:
        self.manifests, self.folder = manifests, folder

    def manifest(self, name: str) -> dict[str, Any]:
        """The content of one manifest."""
        return json.loads((self.manifests / f"{name}.json").read_text(encoding="utf-8"))

    def path(self, name: str) -> Path:
        """The weight file of a network, written now if it is not there yet.

        Raises:
            FileNotFoundError: there is no such manifest.
            WrongFill: what was filled is not what the manifest expects.
        """
        manifest = self.manifest(name)
        suffix = next(
            (suffix for suffix in (".npy", ".safetensors") if suffix in manifest["container"]), ".pth"
        )
        path = self.folder / f"{name}{suffix}"
        if path.exists():
            return path
        state = fill({key: (tuple(shape), "float" in kind) for key, shape, kind in manifest["keys"]})
        check_fill(manifest, state)
        if suffix == ".npy":
            np.save(path, np.array(state, dtype=object), allow_pickle=True)
        elif suffix == ".safetensors":
            save_file(state, path)
        else:
            torch.save(contained({k: torch.from_numpy(v) for k, v in state.items()}, manifest), path)
        return path

    def forget(self) -> None:
        """Delete the files written."""
        for path in self.folder.iterdir():
            path.unlink()


def contained(state: dict[str, torch.Tensor], manifest: dict[str, Any]) -> dict[str, Any]:
    """A state dict in the container that the manifest describes, with what real files carry beside it."""
    words = manifest["container"]
    if "features.* are used" in words:
        state = {**state, "classifier.6.weight": torch.zeros(10, 4), "classifier.6.bias": torch.zeros(10)}
    if "lightning" in words:
        state = {**state, "head.kernel": torch.zeros(4, 10)}
    if nested := re.search(r"key '(\w+)'", words):
        return {"epoch": 3, nested[1]: state, "optimizer_states": [{"lr": 0.1}]}
    return state


def fill(shapes: Shapes) -> dict[str, np.ndarray]:
    """Every tensor by the rule of README.json, floats as float32."""
    return {name: _value(name, shape, floating, shapes) for name, (shape, floating) in shapes.items()}


def check_fill(manifest: dict[str, Any], state: dict[str, np.ndarray]) -> None:
    """Compare with the manifest's own hash and first values."""
    wanted = manifest.get("fill_check", {})
    for name, values in wanted.get("probes", {}).items():
        if not np.array_equal(state[name].ravel()[: len(values)], np.asarray(values, np.float32)):
            raise WrongFill(f"{manifest['net']}: {name} is not filled as the manifest says")
    digest = hashlib.sha256()
    for name in sorted(state):
        if state[name].dtype == np.float32:
            digest.update(np.ascontiguousarray(state[name], "<f4").tobytes())
    hashed = wanted.get("sha256_of_float_tensors_sorted_by_key_little_endian", digest.hexdigest())
    if hashed != digest.hexdigest():
        raise WrongFill(f"{manifest['net']}: the filled tensors have another hash than the manifest says")


def _value(name: str, shape: tuple[int, ...], floating: bool, shapes: Shapes) -> np.ndarray:
    if not floating:
        return np.zeros(shape, np.int64)
    generator = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
    drawn = np.asarray(generator.standard_normal(shape), np.float64).astype(np.float32)
    stem, _, leaf = name.rpartition(".")
    tenth = np.float32(0.1)
    if leaf == "running_var":
        value = np.float32(0.5) + np.abs(drawn)
    elif leaf == "running_mean" or leaf.endswith("bias"):
        value = tenth * drawn
    elif len(shape) >= 2:
        value = drawn * np.float32(np.sqrt(2.0 / np.prod(shape[1:], dtype=np.float64)))
    elif f"{stem}.bias" in shapes:
        value = np.float32(1.0) + tenth * drawn
    else:
        value = np.float32(0.25) + tenth * drawn
    return np.asarray(value, np.float32)
