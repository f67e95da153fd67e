"""Run every fixture of a directory and tell the result line by line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from tests.parity import model_cases, picture_cases, sampling_cases
from tests.parity.fixture import Check, Fixture, UnknownFixture, find_fixtures

CASES: dict[str, Callable[[Fixture], Iterator[Check]]] = {
    "i": model_cases.check_dynamics_adapter,
    "ii": model_cases.check_motion_module,
    "iii": model_cases.check_token_attention,
    "iv": model_cases.check_unet,
    "v": model_cases.check_controlnet,
    "vi": model_cases.check_resampler,
    "vii": sampling_cases.check_windows,
    "viii": sampling_cases.check_start_latents,
    "ix": sampling_cases.check_loop,
    "x": picture_cases.check_face,
    "xi": model_cases.check_resnet,
    "xii": model_cases.check_transformer,
    "xiii": sampling_cases.check_vae,
    "xiv": picture_cases.check_reference_crop,
}
"""Roman numeral -> the comparison. Every one must be present in a directory."""


def run_fixture(fixture: Fixture) -> Iterator[Check]:
    """All checks of a fixture. Whatever goes wrong becomes a check that fails, with the reason."""
    if fixture.case not in CASES:
        yield Check("no code for this fixture", float("inf"), 0.0)
        return
    number = 0
    try:
        with torch.no_grad():
            for check in CASES[fixture.case](fixture):
                number += 1
                yield check
    except UnknownFixture as error:
        yield Check(f"cannot be compared: {error}", float("inf"), 0.0)
    except Exception as error:  # a comparison that breaks is a miss, and the others still run
        yield Check(f"broke with {type(error).__name__}: {error}", float("inf"), 0.0)
    else:
        if number == 0:
            yield Check("holds nothing to compare", float("inf"), 0.0)


def run_folder(folder: Path) -> Iterator[tuple[str, Check]]:
    """(fixture's name, check) for everything in a folder, and a failed check for every absent numeral."""
    fixtures = list(find_fixtures(folder)) if folder.is_dir() else []
    order = {case: place for place, case in enumerate(CASES)}
    for fixture in sorted(fixtures, key=lambda f: (order.get(f.case, len(order)), f.stem)):
        for check in run_fixture(fixture):
            yield fixture.stem, check
    present = {fixture.case for fixture in fixtures}
    for case in CASES:
        if case not in present:
            yield case, Check("no such fixture in the folder", float("inf"), 0.0)


def line(stem: str, check: Check) -> str:
    """One line for people."""
    verdict = "ok  " if check.passed else "MISS"
    return f"{verdict} {stem:26s} {check.label:52s} error {check.error:8.1e}  tolerance {check.tolerance:.0e}"
