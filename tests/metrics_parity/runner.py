"""Run every case of a directory and tell the result line by line."""

from __future__ import annotations

import importlib
import json
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.metrics_parity.files import PublishedFiles
from tests.metrics_parity.fixture import Case, Check, Group, UnknownCase, find_groups

Comparison = Callable[[Case], Iterator[Check]]
"""What a module's `GROUPS` table holds for a group: yields the checks of one case."""

MODULES = (
    "g1_pixel",
    "g2_lpips",
    "g3_fid_inception",
    "g4a_i3d_fvd",
    "g4b_dti3d_dtfvd",
    "g5_resnet3d_fidvid",
    "g6_videomae_cdfvd",
    "g7a_adaface",
    "g7b_align",
    "g7c_mtcnn",
    "g8_frechet",
    "g9_anova",
)
"""Modules of this folder that hold groups. One that cannot be imported makes the cases of its groups fail."""


@dataclass(frozen=True)
class Result:
    """What became of one case.

    Attributes:
        group, case: names.
        worst: the check nearest to its tolerance or farthest above it.
        checks: how many things were compared.
    """

    group: str
    case: str
    worst: Check
    checks: int

    @property
    def passed(self) -> bool:
        """Whether all checks passed."""
        return self.worst.passed


def comparisons() -> tuple[dict[str, Comparison], dict[str, str]]:
    """The functions of all groups by group's name, and why a module could not be imported by module's name."""
    table: dict[str, Comparison] = {}
    broken: dict[str, str] = {}
    for name in MODULES:
        try:
            module = importlib.import_module(f"tests.metrics_parity.{name}")
            table |= module.GROUPS
        except Exception as error:  # the cases of other modules still run
            broken[name] = f"{type(error).__name__}: {error}"
    return table, broken


def run_case(case: Case, compare: Comparison | None, *, reason: str = "") -> Result:
    """Compare one case. Whatever goes wrong becomes a check that fails, with the reason."""
    if compare is None:
        return _failed(case, reason or "no code for this group")
    checks: list[Check] = []
    try:
        with torch.no_grad():
            checks.extend(compare(case))
    except UnknownCase as error:
        return _failed(case, f"no code for this case: {error}", len(checks))
    except Exception as error:  # a comparison that breaks is a miss, and the others still run
        return _failed(case, f"broke with {type(error).__name__}: {error}", len(checks))
    forgotten = sorted(set(case.outputs) - case.used)
    if forgotten:
        return _failed(case, f"outputs that were not compared: {', '.join(forgotten)}", len(checks))
    if not checks:
        return _failed(case, "holds nothing to compare")
    worst = max(checks, key=lambda check: check.badness)
    return Result(case.group.name, case.name, worst, len(checks))


def run_folder(folder: Path, *, only: tuple[str, ...] = ()) -> Iterator[Result]:
    """Results of every case in a folder, and a failed one for everything that its README.json lists and it lacks.

    Args:
        folder: the directory of fixtures.
        only: run groups with these names alone (all when empty).
    """
    table, broken = comparisons()
    found: dict[str, set[str]] = {}
    with tempfile.TemporaryDirectory(prefix="xdyna-metrics-") as scratch:
        files = PublishedFiles(folder / "manifests", Path(scratch))
        for group in find_groups(folder, files):
            if only and group.path.stem not in only:
                continue
            try:
                cases = group.cases
                found[group.name] = {case.name for case in cases}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                yield Result(
                    group.path.stem, "*", Check(f"is no group of cases ({error!r})", math.inf, 0.0), 0
                )
                continue
            reason = next((f"{name}: {why}" for name, why in broken.items() if name == group.name), "")
            if not cases:
                yield Result(group.name, "*", Check("holds no cases", math.inf, 0.0), 0)
            for case in cases:
                yield run_case(case, table.get(group.name), reason=reason)
            _let_go(group)
    yield from _missing(folder, found, only)


def line(result: Result) -> str:
    """One line for people."""
    check = result.worst
    verdict = "ok  " if result.passed else "FAIL"
    numbers = f"error {check.error:8.1e}  tolerance {check.tolerance:7.1e}  of {result.checks:2d}"
    return f"{verdict} {result.group + ' ' + result.case:44s} {numbers}  {check.label}"


def _missing(folder: Path, found: dict[str, set[str]], only: tuple[str, ...]) -> Iterator[Result]:
    try:
        listed = json.loads((folder / "README.json").read_text(encoding="utf-8")).get("groups", {})
        wanted = {name: list(group.get("cases", [])) for name, group in listed.items()}
    except FileNotFoundError:
        wanted = {}
    except (ValueError, AttributeError) as error:
        yield Result("README", "*", Check(f"README.json cannot be read ({error!r})", math.inf, 0.0), 0)
        return
    for group, cases in wanted.items():
        if only and group not in only:
            continue
        for case in [case for case in cases if case not in found.get(group, ())]:
            label = "README.json lists it, the folder does not hold it"
            yield Result(group, case, Check(label, math.inf, 0.0), 0)


def _failed(case: Case, label: str, checks: int = 0) -> Result:
    return Result(case.group.name, case.name, Check(" ".join(label.split()), math.inf, 0.0), checks)


def _let_go(group: Group) -> None:
    # networks and files of hundreds of megabytes: the next group needs others
    group.shared.clear()
    group.files.forget()
