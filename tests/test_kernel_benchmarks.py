"""The benchmark of the fused kernels runs at tiny sizes, and says how far each way's results lie apart."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from benchmarks import kernels, training_step

from xdyna.training.config import RuntimeConfig


def test_every_way_is_measured_and_compared(tmp_path: Path) -> None:
    torch.manual_seed(0)
    kernels.main(["--share", "16", "-o", str(tmp_path / "rows.json")])
    head, *rows = json.loads((tmp_path / "rows.json").read_text())
    assert head["copy_GB_s"] > 0
    assert not [row for row in rows if "failed" in row]
    for word in ("clip_norm", "token_norm", "bias", "attention", "conditions"):
        of_kind = [row for row in rows if row["case"].startswith(word)]
        assert {"plain"} <= {row["way"] for row in of_kind}, word
        assert all(row["both_ms"] > 0 and row["floor_ms"][0] < row["floor_ms"][1] for row in of_kind)
    others = [row for row in rows if row["way"] in ("products", "ones")]
    assert {row["way"] for row in others} == {"products", "ones"}
    assert all(float(error) < 0.03 for row in others for error in row["apart"])


def test_a_wrong_way_would_show(tmp_path: Path) -> None:
    x = torch.randn(4, 4)
    assert kernels.apart(x, x) == 0
    assert kernels.apart(x + 0.1 * x.abs().max(), x) > 0.09


def test_ways_of_a_step_change_what_the_config_knows() -> None:
    names = {name for way in training_step.WAYS.values() for name in way}
    assert names <= set(RuntimeConfig.__dataclass_fields__)
    assert training_step.WAYS["fused-graphs"] == {"fused": True, "graphs": True}
