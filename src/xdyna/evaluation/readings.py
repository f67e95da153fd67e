"""What one clip adds to a metric, and the metric of all clips with its interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xdyna.errors import InputError, XdynaError
from xdyna.evaluation.figures import Figure, Part, figure


@dataclass(frozen=True)
class Reading:
    """One metric of one clip.

    Attributes:
        above, below: the metric of all clips is the sum of above over the sum of below: for a metric of frames the sum
            of its values and how many there are, for a ratio the two sides.
        total: of how many frames it could have been measured.
        curve: value of each frame, None where a frame cannot be judged; empty where there is no such thing.
    """

    above: float
    below: float
    total: int
    curve: tuple[float | None, ...] = ()

    @classmethod
    def of_frames(cls, values: Iterable[float | None]) -> Reading:
        """A metric of single frames."""
        every = tuple(_finite(value) for value in values)
        there = [value for value in every if value is not None]
        return cls(math.fsum(there), float(len(there)), len(every), every)

    @classmethod
    def of_clip(cls, value: float | None, frames: int, *, curve: Sequence[float | None] = ()) -> Reading:
        """A metric of the clip as a whole: every clip counts alike."""
        there = _finite(value)
        clean = tuple(_finite(v) for v in curve)
        return cls(there or 0.0, 0.0 if there is None else 1.0, frames, clean)

    @classmethod
    def of_ratio(cls, above: float, below: float, frames: int) -> Reading:
        """A ratio of two sums."""
        there = math.isfinite(above) and math.isfinite(below)
        return cls(float(above), float(below), frames) if there else cls(0.0, 0.0, frames)

    @property
    def value(self) -> float | None:
        """Of the clip alone; None where there is nothing."""
        return self.above / self.below if self.below else None

    def to_json(self) -> dict[str, Any]:
        """For the cache."""
        return {"above": self.above, "below": self.below, "total": self.total, "curve": list(self.curve)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Reading:
        """As `to_json` wrote it.

        Raises:
            KeyError, TypeError, ValueError: it did not.
        """
        above, below, total = (float(value[name]) for name in ("above", "below", "total"))
        curve = tuple(None if v is None else float(v) for v in value["curve"])
        if not all(math.isfinite(v) for v in (above, below, total, *curve) if v is not None):
            raise ValueError("readings are finite")
        return cls(above, below, int(total), curve)


@dataclass
class ClipReadings:
    """What a suite says of one clip.

    Attributes:
        readings: by the metric's full name, such as "fg:psnr".
        unavailable: metrics that could not be measured, and why.
        protocol: what a reader needs to get the same numbers.
    """

    readings: dict[str, Reading] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    protocol: dict[str, str] = field(default_factory=dict)

    def attempt(self, names: Iterable[str], measure: Callable[[], dict[str, Reading]]) -> None:
        """Measure some metrics, or note why they cannot be."""
        try:
            self.readings.update(measure())
        except InputError:
            raise
        except XdynaError as problem:
            self.unavailable.update({name: str(problem) for name in names})


@dataclass(frozen=True)
class Result:
    """A metric over all clips.

    Attributes:
        value: None where no clip could be measured.
        low, high: bootstrap interval of 95 % over clips; None with fewer than two.
        clips, frames: how much it was measured on; coverage: share of the frames that could be judged.
    """

    value: float | None
    low: float | None
    high: float | None
    clips: int
    frames: int
    coverage: float

    @classmethod
    def over(cls, readings: Sequence[Reading]) -> Result:
        """Of all clips."""
        total = sum(reading.total for reading in readings)
        judged = sum(
            sum(v is not None for v in r.curve) if r.curve else (r.total if r.below else 0) for r in readings
        )
        parts = [Part("ratio", (r.above, r.below), r.total) for r in readings if r.below]
        found = figure(parts) if parts else Figure(math.nan, math.nan, math.nan, 0, 0)
        return cls(
            value=_plain(found.value),
            low=_plain(found.low),
            high=_plain(found.high),
            clips=len(parts),
            frames=judged,
            coverage=judged / total if total else 0.0,
        )

    def to_json(self) -> dict[str, Any]:
        """For the report."""
        return dict(vars(self))


def _finite(value: float | None) -> float | None:
    """NaN and infinity are no values: such a frame or clip could not be measured, and coverage tells so."""
    return None if value is None or not math.isfinite(value) else float(value)


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
