from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from xdyna.evaluation.figures import mean, paired
from xdyna.evaluation.frechet import frechet_distance
from xdyna.synthbench.records import Measured, Record
from xdyna.synthbench.report import build_report
from xdyna.synthbench.table import markdown, summary

HEADER: dict[str, Any] = {
    "cases": 6, "people": 4, "folder": "embedded", "frames": 16, "steps": 8, "seed": 3, "size": [64, 64],
    "device": "cpu", "dtype": "float32", "seconds_per_clip": 1.0, "frozen": False,
}  # fmt: skip


def records(*, features: bool = True) -> list[Record]:
    generator = np.random.default_rng(0)
    out = []
    for case in range(6):
        true = generator.normal(size=8)
        made = true + generator.normal(size=8)
        values = ({"all": [list(true)], "bg": [list(true)]}, {"all": [list(made)], "bg": [list(made + 1)]})
        blocks = {
            name: Measured(
                {"psnr_all": mean(20.0 + case, 16), "psnr_still": mean(20.0, 16)}, row if features else {}
            )
            for name, row in zip(("truth", "model"), values, strict=True)
        }
        line = np.linspace(0, 1, 16)
        blocks["model"].parts["expressions.smile"] = paired(line, line)
        out.append(Record("scene" if case > 3 else "self", case, blocks))
    return out


def test_plain_numbers_and_their_blocks() -> None:
    missing = {"face_cos": "unavailable: needs sface.onnx (from there)"}
    report = build_report(records(), HEADER, unavailable=missing)
    assert report["psnr_still"] == report["model"]["psnr_still"]["value"] == 20
    assert report["expression_corr"] == {"mouth": None, "smile": 1.0, "lid": None, "gaze": None}
    assert report["n"] == 6
    assert report["seed"] == 3
    assert report["face_cos"] is None
    assert report["joint_error_cross_pct"] is None
    assert report["unavailable"] == missing
    assert report["scene_only"]["psnr_all"]["value"] == pytest.approx(24.5)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    lines = summary(report)
    assert "face_cos: unavailable: needs sface.onnx (from there)" in lines
    assert "joint_error_cross_pct: not measured" in lines
    assert "psnr_still: 20" in lines
    assert "needs sface.onnx" in markdown(report)


def test_distances_are_those_of_the_features() -> None:
    given = records()
    report = build_report(given, HEADER, unavailable={})
    sets = [np.array([one.blocks[name].features["bg"][0] for one in given]) for name in ("model", "truth")]
    assert report["dtfvd_synth"]["bg"] == pytest.approx(frechet_distance(*sets), abs=1e-4)
    assert report["dtfvd_synth"]["all"] < report["dtfvd_synth"]["bg"]
    assert report["dtfvd_synth"]["fg"] is None, "no clip has a foreground"
    held = report["model"]["dtfvd_synth"]["bg"]
    assert held["low"] < held["value"] < held["high"]
    assert (held["clips"], held["frames"]) == (6, 96)
    assert report["truth"]["dtfvd_synth"]["all"]["value"] == pytest.approx(0, abs=1e-6)


def test_the_order_of_records_does_not_matter() -> None:
    given = records()
    assert build_report(given, HEADER, unavailable={}) == build_report(given[::-1], HEADER, unavailable={})


def test_without_features_there_is_no_distance() -> None:
    report = build_report(records(features=False), HEADER, unavailable={})
    assert report["dtfvd_synth"] == {"all": None, "fg": None, "bg": None}
    assert "dtfvd_synth" not in report["model"]
