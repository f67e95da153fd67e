"""The whole benchmark, from a model folder to report and pictures, by the command."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from xdyna import media, weights
from xdyna.cli import main
from xdyna.errors import OptionError
from xdyna.evaluation.judge import Judge
from xdyna.pipeline import XDynaPipeline
from xdyna.synthbench.cases import people_of
from xdyna.synthbench.options import SynthbenchOptions
from xdyna.synthbench.reading import Reader
from xdyna.synthbench.report import PLAIN, lookup
from xdyna.synthbench.run import measure
from xdyna.synthbench.table import BARS

CASES = 5


@pytest.fixture(scope="module")
def home(pipeline: XDynaPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and a judge."""
    folder = tmp_path_factory.mktemp("synthbench")
    parts = {name: getattr(pipeline, name) for name in ("unet", "vae", "pose_controlnet", "face_controlnet")}
    weights.save_model(
        folder / "model", {**parts, "scheduler": pipeline.scheduler}, storage="fp32", preset=pipeline.preset
    )
    torch.manual_seed(0)
    Judge(8).save(folder / "judge.safetensors")
    return folder


def arguments(home: Path, output: str, *more: str, cases: int = CASES) -> list[str]:
    return [
        "synthbench", "--model", str(home / "model"), "--judge", str(home / "judge.safetensors"), "--cases", str(cases),
        "--frames", "3", "--steps", "1", "--device", "cpu", "-q", "-o", str(home / output), *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def reported(home: Path) -> tuple[Path, dict[str, Any]]:
    assert main(arguments(home, "out", "--batch", "3")) == 0
    return home / "out", json.loads((home / "out" / "report.json").read_text())


def test_the_report_has_every_figure(reported: tuple[Path, dict[str, Any]]) -> None:
    folder, report = reported
    assert report["cases"] == report["n"] == CASES
    assert report["people"] == len(people_of(CASES, frames=3)) == 2
    assert report["frozen"] is False
    for bar in BARS:
        found = lookup(report[bar.block], bar.name)
        assert found is not None, bar.label
        assert found["clips"] >= 1, bar.label
        assert found["frames"] == 3 * found["clips"] or "expressions" in bar.name
        assert found["value"] is not None
    assert report["truth"]["psnr"]["value"] == 60
    assert report["truth"]["scene_motion"]["value"] == 1
    assert report["copy_reference"]["scene_motion"]["value"] == 0
    assert report["cross_rendered"]["joint_error_pct"]["clips"] == report["people"]
    assert report["cross_rendered_truth"]["psnr"]["value"] == 60
    assert "psnr" not in report["cross_driven"], "nobody knows the true pixels of a retargeted clip"
    text = (folder / "report.md").read_text()
    assert "told the truth" in text
    assert all(bar.label in text for bar in BARS)


def test_plain_numbers_stand_at_the_top(reported: tuple[Path, dict[str, Any]]) -> None:
    report = reported[1]
    for name, (block, figure) in PLAIN.items():
        place: Any = report
        for step in name.split("."):
            place = place[step]
        held = lookup(report[block], figure)
        assert place == (None if held is None else held["value"])
        if name.split(".")[0] in report["unavailable"]:
            assert place is None
            assert report["unavailable"][name.split(".")[0]].startswith("unavailable: needs ")
    assert report["seed"] == 0
    assert report["dtfvd_synth"]["all"] > 0
    assert report["dtfvd_synth"]["bg"] > 0
    assert report["truth"]["dtfvd_synth"]["all"]["value"] == 0
    assert report["parts"]["truth"]["dtfvd_synth"]["fg"]["value"] == 0
    assert report["cross_rendered_truth"]["dtfvd_synth"]["all"]["value"] == 0
    assert report["cross_rendered"]["dtfvd_synth"]["all"]["value"] > 0
    assert report["joint_error_cross_pct"] is not None


def test_the_knob_is_compared_with_being_told_nothing(reported: tuple[Path, dict[str, Any]]) -> None:
    knob = reported[1]["knob"]
    assert list(knob) == ["none", "0.0", "0.5", "1.0", "1.5", "2.0", "true"]
    plain = {name: block for name, block in reported[1]["model"].items() if name != "dtfvd_synth"}
    assert {name: block for name, block in knob["none"].items() if name != "change"} == plain
    assert knob["none"]["change"]["joint_error_pct"]["value"] == 0
    told, untold = (knob[name]["joint_error_pct"]["value"] for name in ("2.0", "none"))
    assert knob["2.0"]["change"]["joint_error_pct"]["value"] == pytest.approx(told - untold, abs=2e-4)
    assert knob["2.0"] != knob["0.0"]


def test_parts_are_left_out_one_at_a_time(reported: tuple[Path, dict[str, Any]]) -> None:
    parts = reported[1]["parts"]
    assert set(parts) == {"copy_reference", "no_adapter", "no_face", "no_pose", "full", "truth"}
    assert all(block["joint_error_pct"]["clips"] == 2 for block in parts.values())
    assert len({block["psnr"]["value"] for block in parts.values()}) == 6
    assert parts["full"]["psnr"] == reported[1]["model"]["psnr"]
    assert parts["full"]["change"]["joint_error_pct"]["value"] == 0
    for name in ("no_pose", "no_adapter"):
        apart = parts[name]["joint_error_pct"]["value"] - parts["full"]["joint_error_pct"]["value"]
        assert parts[name]["change"]["joint_error_pct"]["value"] == pytest.approx(apart, abs=2e-4)
    text = (reported[0] / "report.md").read_text()
    assert "| no adapter |" in text
    assert "| the reference, copied |" in text


def test_pictures_and_videos_are_there(reported: tuple[Path, dict[str, Any]]) -> None:
    out = reported[0]
    names = {path.name for path in out.iterdir()}
    people = people_of(CASES, frames=3)
    assert {f"case_{case:02d}.png" for case in range(CASES)} <= names
    assert {
        f"{kind}_{case:02d}.{end}" for case in people for kind in ("cross", "parts") for end in ("png", "mp4")
    } <= names
    assert {"case_00.mp4", "knob_00.mp4", "knob.png", "report.json", "report.md"} <= names
    assert media.count_frames(out / "case_00.mp4") == 6
    assert not [path for path in out.rglob("*") if "tmp" in path.name]


def test_a_second_run_makes_only_what_is_missing(
    home: Path, reported: tuple[Path, dict[str, Any]], pipeline: XDynaPipeline
) -> None:
    out, report = reported
    pictures = {path: path.stat().st_mtime_ns for path in [*out.glob("*.png"), *out.glob("*.mp4")]}
    assert main(arguments(home, "out")) == 0
    again = json.loads((out / "report.json").read_text())
    assert again == report
    changed = {path.name for path, time in pictures.items() if path.stat().st_mtime_ns != time}
    assert changed == {"knob.png"}, "the curve is drawn from the figures"
    (out / "cases" / "parts_004.json").unlink()
    (out / "cross_00.png").unlink()
    assert main(arguments(home, "out")) == 0
    again = json.loads((out / "report.json").read_text())
    assert {**again, "seconds_per_clip": 0} == {**report, "seconds_per_clip": 0}
    assert (out / "cross_00.png").is_file()


def test_fewer_cases_and_another_batch_give_the_same(
    home: Path, reported: tuple[Path, dict[str, Any]]
) -> None:
    assert main(arguments(home, "few", "--suite", "self,cross", "--batch", "1", cases=1)) == 0
    for name in ("self_000.json", "cross_000.json"):
        alone, among = (
            json.loads((folder / "cases" / name).read_text())["blocks"]
            for folder in (home / "few", reported[0])
        )
        assert alone.keys() == among.keys()
        for block in alone:
            for figure, (_, sums, frames) in alone[block]["parts"].items():
                # other batches round otherwise, by a step of 8 bits here and there
                assert among[block]["parts"][figure][1] == pytest.approx(sums, rel=0.02, abs=0.02)
                assert among[block]["parts"][figure][2] == frames
    report = json.loads((home / "few" / "report.json").read_text())
    assert not {"knob", "parts", "scene_only"} & set(report)
    assert {path.name for path in (home / "few").iterdir()} == {"report.json", "report.md", "cases"}


def test_sheets_alone_measure_nothing(home: Path) -> None:
    assert main(arguments(home, "sheets", "--suite", "sheets", cases=2)) == 0
    assert (home / "sheets" / "case_01.png").is_file()
    report = json.loads((home / "sheets" / "report.json").read_text())
    assert "model" not in report
    assert report["psnr_still"] is None


def test_other_options_are_measured_again(home: Path) -> None:
    for steps in ("1", "2"):
        assert main([*arguments(home, "steps", "--suite", "scene", cases=2), "--steps", steps]) == 0
    kept = json.loads((home / "steps" / "cases" / "scene_001.json").read_text())
    assert kept["settings"]["steps"] == 2
    assert kept["settings"]["hash"] == weights.folder_hash(home / "model")


def test_a_model_without_face_and_knob(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parts = {**tiny.tiny_components(), "face_controlnet": None}
    plain = XDynaPipeline(**parts, preset=tiny.PRESET, name="tiny")
    options = SynthbenchOptions(cases=1, frames=2, steps=1, size="64", suite=("knob", "parts"))
    (tmp_path / "cases").mkdir()
    with caplog.at_level(logging.WARNING):
        report = measure(plain, Reader(Judge(8).eval()), tmp_path, options=options)
    assert "knob" not in report
    assert "cannot be told" in caplog.text
    assert set(report["parts"]) == {"copy_reference", "no_adapter", "no_pose", "full", "truth"}
    assert not list((tmp_path / "cases").iterdir()), "what model made it is not known"


def test_mistakes_are_told(home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def said(*given: str) -> str:
        assert main(["synthbench", "--device", "cpu", "-q", *given]) == 2
        return capsys.readouterr().err

    out = ("-o", str(tmp_path / "out"))
    assert "absent" in said(*out, "--judge", str(tmp_path / "absent"), "--model", str(home / "model"))
    assert "--cases: got 51, it must be at most 50" in said(*out, "--cases", "51")
    assert "--suite: got 'selfie', allowed are self, cross" in said(*out, "--suite", "self", "selfie")
    assert "no_such_model" in said(*out, "--model", str(tmp_path / "no_such_model"))
    (tmp_path / "file").write_text("")
    assert "is a file" in said("-o", str(tmp_path / "file"), "--model", str(home / "model"))
    with pytest.raises(OptionError, match="names none"):
        SynthbenchOptions(suite=())
