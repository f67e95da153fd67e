"""Fixture files and what a comparison with one gives."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

LAYER, NETWORK, LOOP, EXACT = 1e-5, 1e-4, 2e-3, 0.0
"""Largest absolute error allowed, in fp32."""

_NAME = re.compile(r"(?P<case>[ivxlc]+)_(?P<name>.+)")


class UnknownFixture(Exception):
    """A fixture that asks for something our code or this runner does not know."""


@dataclass(frozen=True)
class Check:
    """One compared thing: what it is, its maximum absolute error, and how much is allowed."""

    label: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """False for a NaN too."""
        return self.error <= self.tolerance


@dataclass(frozen=True)
class Fixture:
    """One fixture: its file's stem and folder. Its contents are read when asked for."""

    folder: Path
    stem: str

    @property
    def case(self) -> str:
        """The roman numeral, or "" for a name that has none."""
        match = _NAME.fullmatch(self.stem)
        return match["case"] if match else ""

    @property
    def name(self) -> str:
        """What follows the numeral."""
        match = _NAME.fullmatch(self.stem)
        return match["name"] if match else self.stem

    @cached_property
    def meta(self) -> dict[str, Any]:
        """The fixture's .json."""
        return json.loads((self.folder / f"{self.stem}.json").read_text())

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """The fixture's tensors, floats as float32; empty for a fixture without."""
        path = self.folder / f"{self.stem}.safetensors"
        return _as_float32(load_file(path)) if path.exists() else {}

    def array(self, name: str) -> np.ndarray:
        """A tensor as an array."""
        return self.tensors[name].numpy()

    def layer_weights(self) -> dict[str, Tensor]:
        """The `w.*` tensors, without that prefix."""
        return {key[2:]: value for key, value in self.tensors.items() if key.startswith("w.")}

    def told_weights(self, default: str) -> str:
        """The name of the weights that the fixture's description tells, or `default`."""
        told = re.search(r"weights: (\w+)\.weights\.safetensors", self.meta["what"])
        return told[1] if told else default

    def network_weights(self, name: str) -> dict[str, Tensor]:
        """Weights that several fixtures of the folder share."""
        path = self.folder / f"{name}.weights.safetensors"
        if not path.exists():
            raise UnknownFixture(f"{path.name} is not in the folder")
        return _as_float32(load_file(path))

    def sibling(self, case: str, name: str | None = None) -> Fixture:
        """Another fixture of the folder, by numeral and, where there are several, by name."""
        for fixture in find_fixtures(self.folder):
            if fixture.case == case and name in (None, fixture.name):
                return fixture
        raise UnknownFixture(
            f"needs the configuration in {case}_{name or '*'}.json, which is not in the folder"
        )


def find_fixtures(folder: Path) -> Iterator[Fixture]:
    """Everything in a folder that is a fixture, or should be one."""
    stems = {
        path.stem
        for path in folder.iterdir()
        if path.suffix in (".json", ".safetensors")
        and path.name != "META.json"
        and not path.name.endswith(".weights.safetensors")
    }
    yield from (Fixture(folder, stem) for stem in sorted(stems))


def compare(label: str, got: Tensor, wanted: Tensor, tolerance: float) -> Check:
    """Maximum absolute difference; infinite where shapes differ."""
    if got.shape != wanted.shape:
        label = f"{label}: shape {tuple(got.shape)}, wanted {tuple(wanted.shape)}"
        return Check(label, float("inf"), tolerance)
    difference = (got.detach().double() - wanted.double()).abs()
    return Check(label, float(difference.max()) if difference.numel() else 0.0, tolerance)


def compare_arrays(label: str, got: np.ndarray, wanted: np.ndarray) -> Check:
    """Arrays that must be equal to the last bit."""
    return compare(label, torch.from_numpy(np.array(got)), torch.from_numpy(np.array(wanted)), EXACT)


def compare_values(label: str, got: Any, wanted: Any) -> Check:
    """Numbers and nested lists that must be equal: the error is 0 or 1."""
    return Check(label, 0.0 if _plain(got) == _plain(wanted) else 1.0, EXACT)


def worst_of(label: str, checks: Iterable[Check]) -> Check:
    """Several checks of one tolerance as one: the largest error, and the label of the first that fails."""
    checks = list(checks)
    failed = next((check for check in checks if not check.passed), None)
    error = failed.error if failed else max(check.error for check in checks)
    return Check(f"{label}: {failed.label}" if failed else label, error, checks[0].tolerance)


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _as_float32(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
