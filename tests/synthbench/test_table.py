from __future__ import annotations

from tests.synthbench.test_report import HEADER
from xdyna.evaluation.figures import mean
from xdyna.synthbench.records import Measured, Record
from xdyna.synthbench.report import build_report
from xdyna.synthbench.table import BARS, markdown


def test_verdicts() -> None:
    still, motion, error = (
        next(bar for bar in BARS if word in bar.label) for word in ("walls", "scene motion", "joint")
    )
    assert [still.verdict(v) for v in (0.1, 0.4, 0.6, None)] == ["aim", "met", "**missed**", "not measured"]
    assert [motion.verdict(v) for v in (1.0, 0.92, 1.2)] == ["aim", "met", "**missed**"]
    assert [error.verdict(v) for v in (0.9, 1.0, 2.0)] == ["aim", "met", "**missed**"]


def test_a_star_marks_what_a_part_surely_changes() -> None:
    records = [
        Record("parts", case, {
            "parts.full": Measured({"psnr_person": mean(20.0 + case, 16), "joint_error_pct": mean(2.0 + case % 2, 16)}),
            "parts.no_face": Measured({"psnr_person": mean(18.9 + case, 16), "joint_error_pct": mean(2.5, 16)}),
        })
        for case in range(8)
    ]  # fmt: skip
    report = build_report(records, HEADER, unavailable={})
    assert report["parts"]["no_face"]["change"]["psnr_person"]["high"] < -1
    lines = markdown(report).splitlines()
    (row,) = [line for line in lines if line.startswith("| no face |")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert [cell.endswith("*") for cell in cells] == [False, True, False], cells
    (full,) = [line for line in lines if line.startswith("| full |")]
    assert "*" not in full
