from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.metrics_parity import runner
from tests.metrics_parity.__main__ import main
from tests.metrics_parity.files import fill
from tests.metrics_parity.fixture import Case, Check, absolute, exact, of_largest, relative
from tests.metrics_parity.runner import run_folder

SHARED = Path(os.environ.get("XDYNA_SHARED", Path(__file__).parents[3] / "shared"))
FOLDER = SHARED / "reference" / "metrics-parity"
needs_fixtures = pytest.mark.skipif(not FOLDER.is_dir(), reason="the metric fixtures are not on this machine")

SLOW = {
    "g2_lpips",
    "g4a_i3d_fvd",
    "g4b_dti3d_dtfvd",
    "g5_resnet3d_fidvid",
    "g6_videomae_cdfvd",
    "g7a_adaface",
}
"""Groups whose networks take more than a few seconds on one core."""


@needs_fixtures
@pytest.mark.parametrize(
    "group",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
        for name in runner.MODULES
        if (Path(__file__).parent / f"{name}.py").exists()
    ],
)
def test_our_numbers_are_the_references(group: str) -> None:
    results = list(run_folder(FOLDER, only=(group,)))
    assert results
    assert [result for result in results if not result.passed] == []


@needs_fixtures
def test_the_rule_fills_as_the_readme_shows() -> None:
    toy = json.loads((FOLDER / "README.json").read_text())["weight_rule"]["toy"]
    filled = fill({name: (tuple(entry["shape"]), "num" not in name) for name, entry in toy.items()})
    for name, entry in toy.items():
        assert np.array_equal(filled[name], np.asarray(entry["value"], filled[name].dtype))


def write(folder: Path, entries: list[dict[str, Any]], name: str = "toy", **tensors: np.ndarray) -> None:
    (folder / f"{name}.json").write_text(json.dumps({"group": name, "cases": entries}))
    if tensors:
        save_file(
            {key.replace("__", "/"): value for key, value in tensors.items()}, folder / f"{name}.safetensors"
        )


def doubled(case: Case) -> Iterator[Check]:
    yield absolute("twice", 2 * case.input("x"), case.output("twice"), 1e-3)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "comparisons", lambda: ({"toy": doubled}, {"gone": "ImportError: gone"}))


def verdicts(folder: Path) -> dict[str, tuple[bool, str]]:
    return {result.case: (result.passed, result.worst.label) for result in run_folder(folder)}


@pytest.mark.usefixtures("toy")
def test_misses_of_every_kind_are_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    reference = {"tensor": "a/output/twice", "shape": [2], "dtype": "float32"}
    given = {"tensor": "a/input/x", "shape": [2], "dtype": "float32"}
    write(
        tmp_path,
        [
            {"name": "right", "inputs": {"x": given}, "outputs": {"twice": reference}},
            {"name": "other", "inputs": {"x": "tensor 'a/input/x'"}, "outputs": {"twice": [2.0, 4.1]}},
            {"name": "shape", "inputs": {"x": given}, "outputs": {"twice": [2.0, 4.0, 6.0]}},
            {"name": "nan", "inputs": {"x": given}, "outputs": {"twice": [2.0, float("nan")]}},
            {"name": "no_input", "inputs": {}, "outputs": {"twice": reference}},
            {"name": "breaks", "inputs": {"x": None}, "outputs": {"twice": reference}},
            {"name": "more", "inputs": {"x": given}, "outputs": {"twice": reference, "thrice": 3}},
        ],
        a__input__x=np.array([1, 2], np.float32),
        a__output__twice=np.array([2, 4], np.float32),
    )
    told = verdicts(tmp_path)
    assert told.pop("right") == (True, "twice")
    assert not any(passed for passed, _ in told.values())
    for name, words in {
        "shape": "shape (2,), wanted (3,)",
        "no_input": "has no input 'x'",
        "breaks": "TypeError",
        "more": "not compared: thrice",
    }.items():
        assert words in told[name][1]
    assert main([str(tmp_path)]) == 1
    assert "1 of 7 cases passed" in capsys.readouterr().out


@pytest.mark.usefixtures("toy")
def test_groups_that_are_unknown_broken_empty_or_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([str(tmp_path)]) == 1
    write(tmp_path, [{"name": "one"}], "unheard")
    write(tmp_path, [{"name": "two"}], "gone")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "no_cases.json").write_text("[]")
    write(tmp_path, [])
    (tmp_path / "README.json").write_text(json.dumps({"groups": {"toy": {"cases": ["listed"]}}}))
    told = {f"{r.group} {r.case}": r.worst.label for r in run_folder(tmp_path) if not r.passed}
    assert "no code" in told["unheard one"]
    assert "gone: ImportError" in told["gone two"]
    assert "no group" in told["broken *"]
    assert "no group" in told["no_cases *"]
    assert "holds no cases" in told["toy *"]
    assert "does not hold it" in told["toy listed"]
    capsys.readouterr()


@needs_fixtures
def test_a_changed_number_in_a_real_group_is_a_miss(tmp_path: Path) -> None:
    for path in FOLDER.glob("g8_*"):
        shutil.copy(path, tmp_path)
        (tmp_path / path.name).chmod(0o644)
    assert all(passed for passed, _ in verdicts(tmp_path).values())
    tensors = load_file(tmp_path / "g8_frechet.safetensors")
    name = next(iter(sorted(tensors)))
    tensors[name] = tensors[name] * np.float32(1.001)
    save_file(tensors, tmp_path / "g8_frechet.safetensors")
    assert [case for case, (passed, _) in verdicts(tmp_path).items() if not passed] == [name.split("/")[0]]


@needs_fixtures
@pytest.mark.parametrize("change", ["drop", "shape", "extra"])
def test_a_weight_file_that_does_not_fit_is_a_miss(change: str, tmp_path: Path) -> None:
    for path in FOLDER.glob("g5_*"):
        shutil.copy(path, tmp_path)
    manifest = json.loads((FOLDER / "manifests" / "resnet3d50_kinetics.json").read_text())
    manifest.pop("fill_check")
    if change == "drop":
        manifest["keys"] = [key for key in manifest["keys"] if key[0] != "module.layer3.2.bn2.bias"]
    elif change == "shape":
        manifest["keys"] = [
            [name, [7], kind] if shape == [64] else [name, shape, kind]
            for name, shape, kind in manifest["keys"]
        ]
    else:
        manifest["keys"].append(["module.layer5.weight", [3], "float32"])
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "resnet3d50_kinetics.json").write_text(json.dumps(manifest))
    told = verdicts(tmp_path)
    assert told
    assert all("do not fit the network" in label and not passed for passed, label in told.values())


def test_ways_to_compare() -> None:
    assert of_largest("", [1.0, 10.0], [1.1, 10.0]).error == pytest.approx(0.01)
    assert relative("", [1.0, 10.0], [1.1, 10.0], 1).error == pytest.approx(0.1 / 1.1)
    assert relative("", 0.0, 0.0, 0).passed
    assert not relative("", 1e-9, 0.0, 1.0).passed
    assert exact("", np.array([1, 2]), [1, 2]).passed
    assert not exact("", "a", "b").passed
    assert not absolute("", float("nan"), 1.0, 1e9).passed
    assert absolute("", float("inf"), float("inf"), 0).passed
    assert Check("", float("nan"), 1.0).badness == float("inf")
