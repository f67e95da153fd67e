"""What a metric that looks at one frame at a time says of a clip."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class FrameScores:
    """One metric of one clip.

    Attributes:
        name: the metric's full name, variant included: `ssim_disco`, `face_cos[sface]`.
        values: one for each frame in order; None where the frame cannot be judged (no face in it, an empty
            mask). Never NaN: that is refused.
        protocol: all that a reader needs to get the same numbers: sizes, ranges, masks, networks.
    """

    name: str
    values: tuple[float | None, ...]
    protocol: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if any(value is not None and not math.isfinite(value) for value in self.values):
            raise ValueError(f"{self.name}: a frame's value is not finite; None is for what cannot be judged")

    @classmethod
    def of(cls, name: str, values: Iterable[float | None], **protocol: Any) -> FrameScores:
        """The scores of the given values, numpy's numbers made plain ones."""
        return cls(name, tuple(None if value is None else float(value) for value in values), protocol)

    @property
    def judged(self) -> np.ndarray:
        """(n) float64: the values that there are."""
        return np.array([value for value in self.values if value is not None], np.float64)

    @property
    def mean(self) -> float | None:
        """The mean over the judged frames; None where there are none."""
        judged = self.judged
        return float(judged.mean()) if judged.size else None

    @property
    def coverage(self) -> float:
        """Which share of the frames could be judged, 0 to 1; 0 for a clip without frames."""
        return self.judged.size / len(self.values) if self.values else 0.0

    @property
    def zero_filled_mean(self) -> float | None:
        """The mean over all frames, those that cannot be judged counted as 0; None for a clip without frames."""
        return float(self.judged.sum()) / len(self.values) if self.values else None
