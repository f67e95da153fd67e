"""The values that pass between a run's steps: prepared, encoded, an animation, its output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from torch import Tensor

from xdyna import media
from xdyna.condition_clips import ConditionClips
from xdyna.driving import DrivingVideo
from xdyna.options import AnimateOptions
from xdyna.sampling import Tokens


@dataclass
class Prepared:
    """A run's inputs, ready for the model.

    Attributes:
        picture: (h w 3) uint8, the reference as given: image tokens see it whole.
        reference: (h w 3) uint8 at the canvas's size.
        driving: the chosen driving frames.
        conditions: pose and face clips.
        options: the run's options, every "model's own" filled in.
    """

    picture: np.ndarray
    reference: np.ndarray
    driving: DrivingVideo
    conditions: ConditionClips
    options: AnimateOptions


@dataclass
class Encoded:
    """The reference as the networks read it.

    Attributes:
        reference: (1 c h w) its clean latent.
        tokens: of the conditional half.
        negative: of the unconditional half, or None where there is none.
        features: what a ReferenceNet saw of it, for models that have one.
    """

    reference: Tensor
    tokens: Tokens
    negative: Tokens | None
    features: tuple[Tensor, ...] | None = None


@dataclass
class Animation:
    """A run whose frames are decoded while they are read.

    Attributes:
        frames: iterator over (h w 3) uint8; to be read once.
        count: how many there will be.
        fps: their frame rate.
        prepared: inputs and conditions; its scratch files live until `close`.
        timings: seconds spent in each part so far.
    """

    frames: Iterator[np.ndarray]
    count: int
    fps: Fraction
    prepared: Prepared
    timings: dict[str, float] = field(default_factory=dict)

    def close(self) -> None:
        """Delete the scratch files."""
        self.prepared.conditions.close()


@dataclass(frozen=True)
class AnimationOutput:
    """What calling the pipeline returns.

    Attributes:
        frames: (f h w 3) uint8.
        fps: frame rate.
        options: the options as used.
    """

    frames: np.ndarray
    fps: Fraction
    options: AnimateOptions

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write an mp4 marked as AI-generated."""
        clip = media.Clip(frames=self.frames, fps=self.fps)
        media.write_clip(clip, path, overwrite=overwrite)
        return Path(path)
