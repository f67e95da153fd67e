"""The parameters of a batch: everything that defines its clips but the pictures' size, drawn on the CPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xdyna.data.synthetic.appearance import sample_appearance
from xdyna.data.synthetic.camera import MOVING_SHARE, sample_camera
from xdyna.data.synthetic.captured import sample_captured
from xdyna.data.synthetic.company import COMPANY_SHARE, CompanyParams, sample_company
from xdyna.data.synthetic.draws import Draws, Params, take
from xdyna.data.synthetic.foreign import foreign_heads
from xdyna.data.synthetic.identity import sample_identity
from xdyna.data.synthetic.modelled.shape import sample_modelled
from xdyna.data.synthetic.motion import sample_motion
from xdyna.data.synthetic.scenery import KNOBS
from xdyna.data.synthetic.scenes import MOVING_SCENES, SCENES, SLOPES, STILL_SCENES, STILL_SHARES
from xdyna.data.synthetic.tempo import FROZEN_SHARE, sample_tempo

HELD_OUT_SEED = 900_000_000
"""Seeds from here on are for evaluation; training must stay below."""

STEP = 1 / 8
"""Seconds between consecutive frames."""


@dataclass
class SceneParams:
    """Scenes and how they were filmed, b clips, on the CPU.

    Attributes:
        kind: (b,) int64 places in `SCENES`.
        knobs: (b KNOBS) uniform numbers that the scene's painter uses up.
        texture: (b 3 t t) periodic noise.
        tempo: of `tempo.sample_tempo`: the scenes' speed and wind.
        camera: of `camera.sample_camera`.
        appearance: of `appearance.sample_appearance`.
    """

    kind: Tensor
    knobs: Tensor
    texture: Tensor
    tempo: Params
    camera: Params
    appearance: Params

    def take(self, index: Tensor) -> SceneParams:
        """The scenes of the chosen clips."""
        return SceneParams(
            self.kind[index],
            self.knobs[index],
            self.texture[index],
            take(self.tempo, index),
            take(self.camera, index),
            take(self.appearance, index),
        )

    def still(self) -> Tensor:
        """(b,) bool: neither the scene moves (by its kind, or because it is frozen) nor the camera."""
        kinds = torch.tensor([name in STILL_SCENES for name in SCENES])[self.kind]
        return (kinds | (self.tempo["speed"] == 0)) & (self.camera["moves"] == 0)


@dataclass
class SyntheticParams:
    """All that defines a batch but the pictures' size, on the CPU.

    Attributes:
        identity, motion: the people and how they move.
        foreign: identities whose heads the face maps show, with the augmentation of those maps.
        scene: what is behind the people.
        human: (b,) bool, False for clips without a person.
        times: (b 1+f) seconds, the reference's moment first.
        company: second people, whom nothing drives.
        modelled: which people are modelled in three dimensions, and their shapes, see `modelled.shape`.
    """

    identity: Params
    motion: Params
    foreign: Params
    scene: SceneParams
    human: Tensor
    times: Tensor
    company: CompanyParams
    modelled: Params


def sample_params(
    seed: int,
    batch: int,
    *,
    frames: int = 16,
    human_share: float = 0.8,
    still_share: float = 0.35,
    moving_camera_share: float = MOVING_SHARE,
    company_share: float = COMPANY_SHARE,
    frozen_share: float = FROZEN_SHARE,
    scatter: bool = False,
    modelled_share: float = 0.0,
    captured_share: float = 0.0,
) -> SyntheticParams:
    """Draw the parameters of a batch on the CPU.

    Args:
        seed: any non-negative int; see `HELD_OUT_SEED`.
        batch: how many clips.
        frames: how many frames beside the reference.
        human_share: share of clips with a person.
        still_share: share of still scenes among the clips with a person; clips without one show moving kinds.
        moving_camera_share: share of clips whose camera pans, zooms, rolls or shakes.
        company_share: share of the clips with a person that show a second one.
        frozen_share: share of the clips whose scene, whatever its kind, stands still as in a photograph.
        scatter: frames at random moments of the clip instead of consecutive ones.
        modelled_share: share of the people who are modelled in three dimensions instead of drawn. Everything else
            of the batch is the same with any share.
        captured_share: share of the people who move as somebody filmed did (`captured`), likewise.
    """
    draws = Draws(seed, batch)
    human = draws.chance(human_share) > 0
    is_still = (draws.chance(still_share) > 0) & human
    still = torch.tensor([SCENES.index(name) for name in STILL_SCENES])[
        draws.choice(tuple(STILL_SHARES.values()))
    ]
    moving = torch.tensor([SCENES.index(name) for name in MOVING_SCENES])[
        draws.choice([1.0] * len(MOVING_SCENES))
    ]
    kind = torch.where(is_still, still, moving)
    slopes = torch.tensor([SLOPES.get(name, 1.3) for name in SCENES])[kind] + draws.uniform(-0.12, 0.12)
    identity, motion, foreign = sample_identity(draws), sample_motion(draws), sample_identity(draws)
    foreign |= foreign_heads(draws)
    scene = SceneParams(
        kind,
        draws.uniform(0, 1, KNOBS),
        draws.texture(3, slopes),
        sample_tempo(draws, frozen_share),
        sample_camera(draws, moving_camera_share),
        sample_appearance(draws),
    )
    start = draws.uniform(0, 20, 1)
    times = start + (draws.uniform(-2, 4, frames) if scatter else STEP * torch.arange(frames))
    reference = start + draws.uniform(-2, 4, 1)
    company = sample_company(draws, motion, company_share)
    return SyntheticParams(
        identity, sample_captured(seed, motion, captured_share), foreign, scene, human,
        torch.cat([reference, times], 1), company, sample_modelled(seed, batch, modelled_share),
    )  # fmt: skip
