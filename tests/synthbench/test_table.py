from __future__ import annotations

from xdyna.synthbench.table import BARS


def test_verdicts() -> None:
    still, motion, error = (
        next(bar for bar in BARS if word in bar.label) for word in ("walls", "scene motion", "joint")
    )
    assert [still.verdict(v) for v in (0.1, 0.4, 0.6, None)] == ["aim", "met", "**missed**", "not measured"]
    assert [motion.verdict(v) for v in (1.0, 0.92, 1.2)] == ["aim", "met", "**missed**"]
    assert [error.verdict(v) for v in (0.9, 1.0, 2.0)] == ["aim", "met", "**missed**"]
