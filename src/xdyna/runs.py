"""The values that pass between a run's steps: prepared, encoded, an animation, its output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xdyna import media
from xdyna.condition_clips import ConditionClips
from xdyna.driving import DrivingVideo
from xdyna.model_preset import ModelPreset
from xdyna.models.warping import moved_reference
from xdyna.options import AnimateOptions
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

    @property
    def close_up(self) -> Prepared | None:
        """The inputs of the head's close-up, a run of its own; None without one."""
        if self.conditions.near is None:
            return None
        _, reference, conditions = self.conditions.near
        # its window follows the head: of how lively the scene is it says nothing, and nothing in it stands still;
        # prompts are encoded once
        options = replace(self.options, motion=None, hold_still=False, prompt="", negative_prompt="")
        return Prepared(reference, reference, self.driving, conditions, options)

    def controls(self, preset: ModelPreset, device: torch.device, moving: Tensor | None = None) -> Controls:
        """The control signals as a model reads them; pictures come off the disk frame by frame.

        Args:
            preset: the model's.
            device: where they go.
            moving: (1 c h w) the reference's latent, for a denoiser that is shown it moved as the person moves.
        """
        conditions, options = self.conditions, self.options

        def stretched(pictures: np.ndarray, name: str) -> Tensor:
            low, high = conditions.extremes[name] if preset.stretch_conditions else (0, 255)
            return normalise_condition(_uploaded(pictures, device), low=low, high=high)

        def pose(indices: Sequence[int]) -> Tensor:
            return stretched(conditions.pose(indices), "pose").unsqueeze(0)

        def face(indices: Sequence[int]) -> Tensor:
            local = stretched(conditions.face_local(indices), "local")
            whole = stretched(conditions.face_global(indices), "global")
            return torch.cat([local, whole], dim=1).unsqueeze(0)

        return Controls(
            pose=pose,
            face=face if conditions.faces_found else None,
            pose_scale=options.pose_scale,
            face_scale=options.face_scale,
            # black where nobody was found, as in training
            reference_pose=stretched(conditions.own_pose()[None], "pose") if preset.reference_pose else None,
            moved=None if moving is None else self._moved(moving),
        )

    def _moved(self, latent: Tensor) -> Tensor | None:
        """The reference's latent moved as the person moves (1 c f h w); None where poses or person are not known."""
        own, driven = self.conditions.own, self.conditions.keypoints
        if own is None or driven is None or not self.options.pose_scale:
            return None
        points = (torch.from_numpy(part.body).to(latent.device) for part in (own, driven))
        reference, body = points
        return moved_reference(latent, reference, body[None], size=self.conditions.size)


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

    def moving(self, unet: Any) -> Tensor | None:
        """The latent, for a denoiser that is shown it moved as the person moves."""
        return self.reference if unet.moves_reference else None

    def to(self, device: torch.device | str) -> Encoded:
        """The same on another device."""

        def moved(tokens: Tokens) -> Tokens:
            text, image = (None if part is None else part.to(device) for part in (tokens.text, tokens.image))
            return Tokens(text, image)

        return Encoded(
            self.reference.to(device),
            moved(self.tokens),
            None if self.negative is None else moved(self.negative),
            None if self.features is None else tuple(feature.to(device) for feature in self.features),
        )


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


def _uploaded(pictures: np.ndarray, device: torch.device) -> Tensor:
    """Pictures on a device; a GPU takes them without the host waiting for what it does just now."""
    there = torch.from_numpy(pictures)
    if device.type == "cuda":
        return there.pin_memory().to(device, non_blocking=True)
    return there.to(device)
