"""What a model itself says about how it is used: stored in its folder, read where the user says nothing."""

from __future__ import annotations

from dataclasses import dataclass

from xdyna.errors import OptionError


@dataclass(frozen=True)
class ModelPreset:
    """What suits a model; stored with it, and used where the user says nothing.

    Attributes:
        height, width: native size; other aspects keep its area.
        multiple: sides are rounded to multiples of this many pixels.
        steps, guidance: sampling defaults.
        stretch_conditions: stretch condition clips to [0, 1] by their extremes, as the official code does.
        fps: frame rate the model was trained at, for the record; 0 when not known.
        shared_noise: share of the start noise's variance that all frames have in common, about as in training.
        lively_noise: the same for `--motion 2`; 1 leaves the noise of 1 and above alone.
        motion_energy: what `--motion 1` stands for, the median motion energy of the moving scenes the model was
            trained on; 0 for a model that cannot be told.
        landmarks: draw the face's 68 landmarks into the pose pictures, for a model that was trained so.
        refine_face: make small heads a second time, as a close-up (`conditions.closeup`).
        hold_still: let what stands still be the picture itself (`sampling.still`).
        reference_pose: show the pose ControlNet the reference person's own pose as well, likewise.
    """

    height: int = 896
    width: int = 512
    multiple: int = 64
    steps: int = 25
    guidance: float = 7.5
    stretch_conditions: bool = True
    fps: float = 0.0
    landmarks: bool = False
    reference_pose: bool = False
    refine_face: bool = False
    hold_still: bool = False
    shared_noise: float = 0.0
    lively_noise: float = 1.0
    motion_energy: float = 0.0

    def energy(self, motion: float | None) -> float | None:
        """The motion energy that `--motion` asks for: none for 0, the median for 1, about three times that for 2.

        Raises:
            OptionError: the model cannot be told.
        """
        if motion is None:
            return None
        if not self.motion_energy:
            raise OptionError(
                "--motion", "this model was not trained to be told how lively a scene is", "Leave it away"
            )
        return self.motion_energy * float(motion) ** 1.5

    def noise_share(self, motion: float | None) -> float:
        """The share of the start noise's variance that all frames have in common, for a `--motion`.

        `shared_noise` for None and 1; everything for 0, so that what is not driven starts out, and stays, still;
        `lively_noise` for 2. Linear between 1 and 2; below 1 by the cube of what is missing, since a scene comes to
        rest at little more than its usual share. A model that cannot be told keeps its own share.
        """
        if motion is None or not self.motion_energy:
            return self.shared_noise
        if motion <= 1:
            return self.shared_noise + (1 - self.shared_noise) * (1 - float(motion)) ** 3
        return self.shared_noise + (min(self.lively_noise, self.shared_noise) - self.shared_noise) * (
            motion - 1
        )
