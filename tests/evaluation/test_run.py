from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.clip_folders import moving, write_frames
from xdyna.cli import main
from xdyna.errors import InputError, OptionError
from xdyna.evaluation import suites
from xdyna.evaluation.compare import compare
from xdyna.evaluation.metrics import METRICS, full_name, split_name, title_of
from xdyna.evaluation.options import EvaluateOptions
from xdyna.evaluation.report import Report, markdown, tex_text
from xdyna.evaluation.run import chosen_suites, evaluate


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pred, truth, masks of three clips; no network files are here."""
    monkeypatch.setenv("XDYNA_WEIGHTS", str(tmp_path / "weights"))
    for number, name in enumerate(("a", "b", "c")):
        truth = moving(number, size=(48, 48))
        noise = np.random.default_rng(number).integers(0, 4 + 4 * number, truth.shape)
        write_frames(tmp_path / "truth" / name, truth)
        write_frames(tmp_path / "pred" / name, np.clip(truth + noise, 0, 255).astype(np.uint8))
        mask = np.zeros((6, 48, 48, 3), np.uint8)
        mask[:, 10:30, 30:44] = 255
        write_frames(tmp_path / "masks" / name, mask)
    return tmp_path


def measured(folders: Path, suite: str = "pixel", name: str = "ours", pred: str = "pred") -> Report:
    return evaluate(
        folders / pred, folders / f"report-{name}", truth=folders / "truth", masks=folders / "masks",
        options=EvaluateOptions(suite=suite, workers=1, name=name),
    )  # fmt: skip


def test_a_report_holds_every_number_with_what_it_was_measured_on(folders: Path) -> None:
    report = measured(folders, "pixel,set")
    found = report.metrics["psnr"]
    assert found["clips"] == 3
    assert found["frames"] == 18
    assert found["low"] <= found["value"] <= found["high"]
    assert found["value"] == pytest.approx(np.mean([report.clips[c]["values"]["psnr"] for c in "abc"]))
    assert len(report.clips["a"]["curves"]["psnr"]) == 6
    assert report.metrics["fg:psnr"]["value"] > found["value"], "black outside of the mask is easy"
    assert "needs" in report.unavailable["fid"]
    assert "pt_inception" in report.unavailable["fid"]
    assert not set(report.metrics) & set(report.unavailable)
    text = json.loads((folders / "report-ours" / "report.json").read_text())
    assert text["metrics"]["psnr"] == found
    assert Report.read(folders / "report-ours").metrics == report.metrics
    assert "PSNR" in (folders / "report-ours" / "report.md").read_text()
    page = (folders / "report-ours" / "report.html").read_text()
    assert "<script" not in page
    assert "worst frames" in page
    assert (folders / "report-ours" / "worst" / "00.png").is_file()
    assert r"\\" in (folders / "report-ours" / "report.tex").read_text()


def test_a_second_run_measures_only_what_changed(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = measured(folders)
    seen: list[str] = []
    whole = suites.CLIP_SUITES["pixel"]
    monkeypatch.setitem(suites.CLIP_SUITES, "pixel", lambda pair: (seen.append(pair.name), whole(pair))[1])
    assert measured(folders).metrics == first.metrics
    assert seen == []
    write_frames(folders / "pred" / "b", moving(9, size=(48, 48)))
    assert measured(folders).metrics != first.metrics
    assert seen == ["b"]


def test_a_broken_cache_file_is_measured_again(folders: Path) -> None:
    first = measured(folders)
    for path in (folders / "report-ours" / "cache").iterdir():
        path.write_text("{}")
    assert measured(folders).metrics == first.metrics


def test_motion_without_people_says_so_and_measures_the_scene(folders: Path) -> None:
    report = measured(folders, "motion")
    assert report.metrics["scene_motion_ratio"]["value"] > 0
    assert report.metrics["joint_error_pct"]["value"] is None
    assert report.metrics["joint_error_pct"]["clips"] == 0
    assert "| - |" in markdown(report).replace("Joint error, % of width (down)", "x")


def test_cross_driving_has_no_truth(folders: Path) -> None:
    report = evaluate(
        folders / "pred", folders / "out", driving=folders / "truth",
        options=EvaluateOptions(suite="pixel,motion", workers=1),
    )  # fmt: skip
    assert report.unavailable["psnr"] == "unavailable: needs --truth"
    assert report.about["protocol"]["joints"].endswith("driving")
    with pytest.raises(OptionError, match="nothing to compare"):
        evaluate(folders / "pred", folders / "out")


def test_several_processes_find_the_same(folders: Path) -> None:
    one = measured(folders)
    two = evaluate(
        folders / "pred", folders / "two", truth=folders / "truth", masks=folders / "masks",
        options=EvaluateOptions(suite="pixel", workers=2, name="ours"),
    )  # fmt: skip
    assert two.metrics == one.metrics


def test_the_tables_of_two_systems(folders: Path) -> None:
    measured(folders)
    measured(folders, name="truth", pred="truth")
    text = compare([folders / "report-ours", folders / "report-truth" / "report.json"], folders / "tables")
    row = next(line for line in text.splitlines() if line.startswith("| truth"))
    assert "**" in row, "the true clips are best"
    assert "Table 2" in text
    assert r"\textbf" in (folders / "tables" / "table2.tex").read_text()
    with pytest.raises(OptionError, match="several are called ours"):
        compare([folders / "report-ours", folders / "report-ours"])
    (folders / "no.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match="no report"):
        compare([folders / "no.json"])


def test_reports_of_other_clips_are_compared_with_a_warning(folders: Path) -> None:
    measured(folders)
    evaluate(
        folders / "truth", folders / "short", truth=folders / "truth",
        options=EvaluateOptions(suite="pixel", workers=1, frames=3),
    )  # fmt: skip
    assert "Not the same frames" in compare([folders / "report-ours", folders / "short"])


def test_the_command_line(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "evaluate",
        "--pred",
        str(folders / "pred"),
        "--truth",
        str(folders / "truth"),
        "--suite",
        "pixel",
    ]
    assert main([*arguments, "--workers", "1", "-q", "-o", str(folders / "out")]) == 0
    assert "PSNR" in capsys.readouterr().out
    assert main(["compare", str(folders / "out")]) == 0
    assert "Table 2" in capsys.readouterr().out
    assert main([*arguments[:-1], "taste", "-o", str(folders / "out")]) == 2
    assert "allowed are pixel" in capsys.readouterr().err
    assert main(["evaluate", "--pred", str(folders), "--truth", "nowhere", "-o", "x"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_suites_and_names() -> None:
    assert chosen_suites("motion, pixel") == ["pixel", "motion"]
    assert chosen_suites("all") == ["pixel", "set", "face", "motion"]
    assert full_name("psnr", "fg") == "fg:psnr"
    assert split_name("fg:lpips[vgg,unit]") == (METRICS["lpips[vgg,unit]"], "fg")
    assert title_of("bg:dtfvd[16]") == "BG DTFVD"
    assert tex_text("a_b & 5%") == r"a\_b \& 5\%"
