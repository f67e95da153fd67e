"""Groups and cases of a directory, and what a comparison with one gives."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors.numpy import load_file

from tests.metrics_parity.files import PublishedFiles

T = TypeVar("T")

NETWORK = 2e-5
"""Error of a network's outputs in CPU float32, as a share of the largest reference value."""

_QUOTED_TENSOR = re.compile(r"tensor '(?P<key>[^']+)'")
_NONE = object()


class UnknownCase(Exception):
    """A case that asks for something that no code here knows."""


@dataclass(frozen=True)
class Check:
    """One compared thing: what it is, its largest error, how much is allowed (in the same unit)."""

    label: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """False for a NaN too."""
        return self.error <= self.tolerance

    @property
    def badness(self) -> float:
        """Error over tolerance; infinite for a NaN and for any error where none is allowed."""
        if math.isnan(self.error):
            return math.inf
        if self.tolerance == 0:
            return math.inf if self.error else 0.0
        return self.error / self.tolerance


@dataclass
class Group:
    """One group of cases: its description, its tensors, and what its cases share while they run."""

    path: Path
    files: PublishedFiles
    shared: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def data(self) -> dict[str, Any]:
        """The content of its .json."""
        return json.loads(self.path.read_text(encoding="utf-8"))

    @property
    def name(self) -> str:
        """Its name as the file tells it, else the file's."""
        return str(self.data.get("group", self.path.stem))

    @cached_property
    def tensors(self) -> dict[str, np.ndarray]:
        """All its tensors; none where it has no such file."""
        path = self.path.with_name(str(self.data.get("tensors", f"{self.path.stem}.safetensors")))
        return load_file(path) if path.exists() else {}

    @property
    def cases(self) -> list[Case]:
        """Its cases in the file's order."""
        return [Case(self, entry) for entry in self.data["cases"]]


class Case:
    """One case: inputs, outputs and where networks come from.

    Outputs that nobody asked for while the case ran make it fail, so that none is forgotten.
    """

    def __init__(self, group: Group, entry: dict[str, Any]) -> None:
        self.group, self.entry = group, entry
        self.name: str = entry["name"]
        self.used: set[str] = set()

    @property
    def inputs(self) -> dict[str, Any]:
        """The inputs as they stand in the .json."""
        return self.entry.get("inputs", {})

    @property
    def outputs(self) -> dict[str, Any]:
        """The outputs as they stand in the .json; reading one here does not count as comparing it."""
        return self.entry.get("outputs", {})

    def input(self, name: str, default: Any = _NONE) -> Any:
        """An input: an array where it is a tensor (of another case too), else what the .json holds."""
        if name not in self.inputs:
            if default is _NONE:
                raise UnknownCase(f"has no input {name!r}")
            return default
        return self._value(self.inputs[name])

    def output(self, name: str) -> Any:
        """An output, as `input`; it counts as compared from now on."""
        if name not in self.outputs:
            raise UnknownCase(f"has no output {name!r}")
        self.used.add(name)
        return self._value(self.outputs[name])

    def tensor(self, key: str) -> np.ndarray:
        """Any tensor of the group by its full key, such as "<other case>/input/rgb"."""
        if key not in self.group.tensors:
            raise UnknownCase(f"the group has no tensor {key!r}")
        return self.group.tensors[key]

    def sibling(self, name: str) -> Case:
        """Another case of the group."""
        for case in self.group.cases:
            if case.name == name:
                return case
        raise UnknownCase(f"the group has no case {name!r}")

    def network_file(self, manifest: str) -> Path:
        """The weight file of a network, written from manifests/<manifest>.json in its published container."""
        return self.group.files.path(manifest)

    def shared(self, key: Any, build: Callable[[], T]) -> T:
        """Something built once for all cases of the group (a loaded network); dropped with the group."""
        if key not in self.group.shared:
            self.group.shared[key] = build()
        return self.group.shared[key]

    def _value(self, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("tensor"), str):
            return self.tensor(value["tensor"])
        if isinstance(value, str) and (quoted := _QUOTED_TENSOR.fullmatch(value)):
            return self.tensor(quoted["key"])
        return value


def rule_clip(case: Case) -> np.ndarray:
    """The clip of README.json's clip_rule: (t h w 3) uint8, blocks of 8 px, as many a side as the rule tells."""
    frames = int(case.input("T"))
    told = re.search(r"\(T, (\d+), \d+, 3\)", case.input("clip_rule"))
    cells = int(told[1]) if told else int(case.input("n"))
    drawn = np.random.RandomState(int(case.input("SEED"))).randint(0, 256, (frames, cells, cells, 3))
    return np.repeat(np.repeat(drawn, 8, axis=1), 8, axis=2).astype(np.uint8)


def of_largest(label: str, got: Any, wanted: Any, tolerance: float = NETWORK) -> Check:
    """Largest absolute difference as a share of the largest absolute reference value."""
    scale = float(np.abs(np.asarray(wanted, np.float64)).max(initial=0.0))
    check = absolute(label, got, wanted, tolerance)
    return Check(check.label, check.error / scale if scale else check.error, tolerance)


def absolute(label: str, got: Any, wanted: Any, tolerance: float) -> Check:
    """Largest absolute difference; infinite where shapes differ or only one of two values is finite."""
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    if got.shape != wanted.shape:
        return Check(f"{label}: shape {got.shape}, wanted {wanted.shape}", math.inf, tolerance)
    same = (got == wanted) | (np.isnan(got) & np.isnan(wanted))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(got - wanted))
    error = float(difference.max(initial=0.0))
    return Check(label, math.inf if math.isnan(error) else error, tolerance)


def relative(label: str, got: Any, wanted: Any, tolerance: float, *, floor: float = 0.0) -> Check:
    """Largest difference, each as a share of its own reference value (or of `floor` where that is larger)."""
    check = absolute(label, got, wanted, tolerance)
    if not math.isfinite(check.error):
        return check
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    difference = np.where(got == wanted, 0.0, np.abs(got - wanted))
    scale = np.maximum(np.abs(wanted), floor)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(difference == 0, 0.0, difference / scale)
    return Check(label, float(shares.max(initial=0.0)), tolerance)


def exact(label: str, got: Any, wanted: Any) -> Check:
    """Numbers, texts, lists or arrays that must be equal: the error is 0 or 1."""
    return Check(label, 0.0 if _plain(got) == _plain(wanted) else 1.0, 0.0)


def find_groups(folder: Path, files: PublishedFiles) -> Iterator[Group]:
    """Every .json of a folder but for the directory's own descriptions."""
    for path in sorted(folder.glob("*.json")):
        if path.name not in ("README.json", "sensitivity.json"):
            yield Group(path, files)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
