"""From clips to figures: every clip gives sums, a figure is made of all clips' sums, with an interval over clips.

Frames of one clip are alike, so the clip is what is drawn again and again for the interval (percentile bootstrap:
Efron and Tibshirani 1993), never the frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

DRAWS = 1000
"""How often the clips are drawn anew for an interval."""
COVERED = 0.95
"""Share of these draws that lie in the interval."""


@dataclass(frozen=True)
class Part:
    """What one clip adds to a figure.

    Attributes:
        kind: how the figure is made of all clips' sums, a key of `KINDS`.
        sums: of "ratio" and "median" (above, below), of "correlation" those of `paired`.
        frames: how many of the clip's frames it was measured on.
    """

    kind: str
    sums: tuple[float, ...]
    frames: int


@dataclass(frozen=True)
class Figure:
    """A figure over many clips.

    Attributes:
        value: NaN where nothing defines it.
        low, high: the interval; NaN for a single clip.
        clips, frames: what it was measured on.
    """

    value: float
    low: float
    high: float
    clips: int
    frames: int

    def rounded(self) -> dict[str, float | int | None]:
        """For a JSON file, which knows no NaN."""
        values = {"value": self.value, "low": self.low, "high": self.high}
        numbers = {name: round(v, 4) if math.isfinite(v) else None for name, v in values.items()}
        return {**numbers, "clips": self.clips, "frames": self.frames}


def mean(value: float, frames: int) -> Part:
    """A clip's own mean; every clip counts alike."""
    return Part("ratio", (value, 1.0), frames)


def paired(first: np.ndarray, second: np.ndarray) -> Part:
    """Two values (f,) of every frame of a clip, to be correlated over the frames of all clips."""
    x, y = first.astype(np.float64), second.astype(np.float64)
    sums = (len(x), x.sum(), y.sum(), x @ x, y @ y, x @ y)
    return Part("correlation", tuple(float(n) for n in sums), len(x))


def _ratio(sums: np.ndarray) -> np.ndarray:
    total = sums.sum(-2)
    return _divided(total[..., 0], total[..., 1])


def _median(sums: np.ndarray) -> np.ndarray:
    return np.median(_divided(sums[..., 0], sums[..., 1]), -1)


def _correlation(sums: np.ndarray) -> np.ndarray:
    """Pearson's; 0 where one of the two does not vary."""
    count, x, y, xx, yy, xy = np.moveaxis(sums.sum(-2), -1, 0)
    first, second = xx - x * x / count, yy - y * y / count
    scale = np.sqrt(np.maximum(first, 0) * np.maximum(second, 0))
    # What is left of a constant after rounding is no variation.
    varies = (first > 1e-9 * np.maximum(xx, 1)) & (second > 1e-9 * np.maximum(yy, 1))
    return np.where(varies, (xy - x * y / count) / np.where(varies, scale, 1), 0.0)


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.where(below != 0, above / np.where(below != 0, below, 1), np.nan)


KINDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ratio": _ratio,
    "median": _median,
    "correlation": _correlation,
}
"""Sums (... clips k) to figures (...): the ratio of the sums, the median of the clips' ratios, a correlation."""


def figure(
    parts: Sequence[Part], *, less: Sequence[Part] | None = None, draws: int = DRAWS, seed: int = 0
) -> Figure:
    """Make a figure of what the clips add.

    Args:
        parts: of one kind.
        less: of the same clips, in the same order, measured in another way; the figure is then the difference of the
            two. Its interval is much narrower than those of the two, since both see the same clips in every draw.
        draws: for the interval; 0 leaves it out.
        seed: of these draws; the same clips always give the same interval.
    """
    if less is not None and len(less) != len(parts):
        raise ValueError(f"{len(parts)} clips less {len(less)}: only the same clips can be compared")
    if not parts:
        return Figure(math.nan, math.nan, math.nan, 0, 0)
    sides = [parts] if less is None else [parts, less]
    sums = np.stack([np.array([part.sums for part in side], np.float64) for side in sides])

    def combine(chosen: np.ndarray) -> np.ndarray:
        found = KINDS[parts[0].kind](chosen)
        return found[0] if less is None else found[0] - found[1]

    low = high = math.nan
    if draws and len(parts) > 1:
        picks = np.random.default_rng(seed).integers(0, len(parts), (draws, len(parts)))
        drawn = combine(sums[:, picks])
        drawn = drawn[np.isfinite(drawn)]
        if len(drawn):
            outside = (1 - COVERED) / 2
            low, high = (float(n) for n in np.quantile(drawn, (outside, 1 - outside)))
    return Figure(float(combine(sums)), low, high, len(parts), sum(part.frames for part in parts))


class Tally:
    """Collects clips' parts by block and name, and tells the figures."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[str, list[Part]]] = {}

    def add(self, block: str, readings: Sequence[Mapping[str, Part]]) -> None:
        """Count some clips in; a clip adds only to the figures that it has a part of."""
        held = self._parts.setdefault(block, {})
        for reading in readings:
            for name, part in reading.items():
                held.setdefault(name, []).append(part)

    def figures(self, block: str) -> dict[str, Figure]:
        """All figures of a block, by name; empty for a block that nothing was added to."""
        return {name: figure(parts) for name, parts in self._parts.get(block, {}).items()}

    def change(self, block: str, other: str, name: str) -> Figure:
        """How much larger a figure is in a block than in another one of the same clips."""
        parts, less = (self._parts.get(held, {}).get(name, []) for held in (block, other))
        return figure(parts, less=less)

    def blocks(self) -> list[str]:
        """Names of the blocks, in the order in which they came."""
        return list(self._parts)


def nested(figures: Mapping[str, Figure]) -> dict[str, Any]:
    """Figures for a JSON file; "a.b" becomes b within a."""
    out: dict[str, Any] = {}
    for name, found in figures.items():
        *folders, last = name.split(".")
        place = out
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = found.rounded()
    return out
