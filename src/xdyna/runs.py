"""The values that pass between a run's steps: prepared, encoded, an animation, its output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from xdyna import media
from xdyna.condition_clips import ConditionClips
from xdyna.driving import DrivingVideo
from xdyna.options import AnimateOptions, ModelPreset
from xdyna.sampling import Controls, Tokens, normalise_condition


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


def make_controls(
    conditions: ConditionClips, options: AnimateOptions, preset: ModelPreset, *, device: torch.device
) -> Controls:
    """The control signals of a run: read from the condition clips when a window needs them.

    Args:
        conditions: pose and face pictures.
        options: their strengths.
        preset: whether they are stretched, and whether the reference's own pose is shown.
        device: where the networks are.
    """

    def stretched(pictures: np.ndarray, name: str) -> Tensor:
        """(f h w 3) uint8 -> (1 f 3 h w) in [0, 1] on the device."""
        low, high = conditions.extremes[name] if preset.stretch_conditions else (0, 255)
        return normalise_condition(_uploaded(pictures, device), low=low, high=high).unsqueeze(0)

    def pose(indices: Sequence[int]) -> Tensor:
        return stretched(conditions.pose(indices), "pose")

    def face(indices: Sequence[int]) -> Tensor:
        local = stretched(conditions.face_local(indices), "local")
        return torch.cat([local, stretched(conditions.face_global(indices), "global")], dim=2)

    own = None
    if preset.reference_pose:
        # black where nobody was found, as in training
        own = stretched(conditions.own_pose()[None], "pose")[0]
    return Controls(
        pose=pose,
        face=face if conditions.faces_found else None,
        pose_scale=options.pose_scale,
        face_scale=options.face_scale,
        reference_pose=own,
    )


def _uploaded(pictures: np.ndarray, device: torch.device) -> Tensor:
    """Pictures on a device; a GPU takes them without the host waiting for what it does just now."""
    there = torch.from_numpy(pictures)
    if device.type == "cuda":
        return there.pin_memory().to(device, non_blocking=True)
    return there.to(device)
