from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.parity.__main__ import main
from tests.parity.fixture import Check, Fixture, compare, find_fixtures
from tests.parity.runner import CASES, run_fixture, run_folder

FOLDER = Path(os.environ.get("XDYNA_SHARED", Path(__file__).parents[3] / "shared")) / "reference" / "parity"
needs_fixtures = pytest.mark.skipif(not FOLDER.is_dir(), reason="the parity fixtures are not on this machine")


@needs_fixtures
@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow) if case == "ix" else case for case in CASES]
)
def test_our_numbers_are_the_official_ones(case: str) -> None:
    fixtures = [fixture for fixture in find_fixtures(FOLDER) if fixture.case == case]
    checks = [check for fixture in fixtures for check in run_fixture(fixture)]
    assert checks
    assert [check for check in checks if not check.passed] == []


def test_a_folder_without_fixtures_misses_every_case(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert [stem for stem, check in run_folder(tmp_path) if not check.passed] == list(CASES)
    assert main([str(tmp_path)]) == 1
    assert "0 of 14 checks passed" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["xv_something", "i", "notes"])
def test_a_fixture_that_no_code_knows_is_a_miss(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.json").write_text("{}")
    checks = [check for stem, check in run_folder(tmp_path) if stem == name and "no code" in check.label]
    assert len(checks) == 1
    assert not checks[0].passed


@needs_fixtures
def test_a_wrong_number_and_a_missing_part_are_misses(tmp_path: Path) -> None:
    for path in FOLDER.glob("xi_*"):
        shutil.copy(path, tmp_path)
    tensors = load_file(next(tmp_path.glob("xi_*.safetensors")))
    fixture = next(find_fixtures(tmp_path))
    assert all(check.passed for check in run_fixture(fixture))

    def rewritten(changed: dict[str, torch.Tensor]) -> list[Check]:
        save_file(changed, tmp_path / f"{fixture.stem}.safetensors")
        return list(run_fixture(Fixture(tmp_path, fixture.stem)))

    wrong = tensors["y"].clone()
    wrong[0, 0, 0, 0, 0] += 1e-3
    (check,) = rewritten({**tensors, "y": wrong})
    assert not check.passed
    assert check.error == pytest.approx(1e-3, rel=0.1)
    (check,) = rewritten({**tensors, "y": tensors["y"] * float("nan")})
    assert not check.passed
    (check,) = rewritten({**tensors, "y": tensors["y"][:, :, :2].contiguous()})
    assert not check.passed
    assert "shape" in check.label
    (check,) = rewritten({key: value for key, value in tensors.items() if key != "y"})
    assert not check.passed
    assert "KeyError" in check.label


@needs_fixtures
def test_a_fixture_with_no_cases_is_a_miss(tmp_path: Path) -> None:
    (tmp_path / "vii_context.json").write_text(json.dumps({"cases": []}))
    (check,) = run_fixture(next(find_fixtures(tmp_path)))
    assert not check.passed


def test_compare_takes_the_largest_difference() -> None:
    check = compare("x", torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.5, 2.75]), 0.5)
    assert check.error == 0.5
    assert check.passed
    assert not compare("x", torch.tensor([1.0]), torch.tensor([1.6]), 0.5).passed
