"""Folders that nobody should give to `xdyna evaluate`, and what may come of it: see test_fuzz.py."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.evaluation.clip_folders import moving, write_frames
from xdyna.errors import XdynaError
from xdyna.evaluation.options import EvaluateOptions
from xdyna.evaluation.run import evaluate

SIZE = (32, 40)
FRAMES = 3


class Ended(NamedTuple):
    """How an evaluation ended: with an error, or a report."""

    error: XdynaError | None
    report: dict[str, Any]

    def value(self, name: str) -> float | None:
        assert self.error is None, self.error
        found: float | None = self.report["metrics"][name]["value"]
        return found


def run(root: Path, *, suite: str = "all", out: Path | None = None, **options: Any) -> Ended:
    """Evaluate ROOT/pred against ROOT/truth, ROOT/driving and ROOT/masks, as far as they are there.

    Anything else than the two good endings fails.
    """
    out = out or root / "out"
    others = {kind: root / kind for kind in ("truth", "driving", "masks") if (root / kind).is_dir()}
    try:
        evaluate(
            root / "pred", out, **others,
            options=EvaluateOptions(suite=suite, workers=1, device="cpu", resamples=5, **options),
        )  # fmt: skip
    except XdynaError as error:
        return _refused(error, out)
    report = strict(out / "report.json")
    for name, found in report["metrics"].items():
        for number in (found["value"], found["low"], found["high"], found["coverage"]):
            assert number is None or math.isfinite(number), name
        assert 0 <= found["coverage"] <= 1, name
        assert name not in report["unavailable"]
    for path in (out / "cache").glob("*.json"):
        strict(path)
    for name in ("report.md", "report.tex", "report.html"):
        found = re.search(r"\b(nan|NaN|inf|Infinity|None)\b", (out / name).read_text())
        assert found is None, f"{name} says {found}"
    return Ended(None, report)


def _refused(error: XdynaError, out: Path) -> Ended:
    assert len(str(error)) > 20
    assert error.remedy, f"says what to do: {error}"
    assert "\0" in str(out) or len(out.name) > 255 or not list(out.glob(".*.tmp*")), "nothing half written"
    return Ended(error, {})


def strict(path: Path) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{path} holds {word}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def clips(root: Path, **sets: np.ndarray | list[np.ndarray]) -> Path:
    """Sets of clips a, b, ... as folders of frames."""
    for kind, given in sets.items():
        for name, clip in zip("abcd", given if isinstance(given, list) else [given], strict=False):
            write_frames(root / kind / name, clip)
    return root


def grey(level: int, *, frames: int = FRAMES, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.full((frames, *size, 3), level, np.uint8)


def lively(seed: int = 0, *, frames: int = FRAMES, size: tuple[int, int] = SIZE) -> np.ndarray:
    return moving(seed, frames=frames, size=size)


def box() -> np.ndarray:
    """Masks of somebody."""
    masks = grey(0)
    masks[:, 8:24, 8:24] = 255
    return masks
