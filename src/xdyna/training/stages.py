"""The stages of training, as rows of a table: what trains, what is frozen, on which data, with which loss.

`image` and `clips` train an embedded model's denoiser from scratch; `stage1` and `stage2` are the paper's (section 3.4;
evaluation.md 1.2), on weights that exist already. `distill` teaches a finished denoiser to do with fewer steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from xdyna.training.config import StageConfig
from xdyna.training.distill import StudentLearner, distill_losses, draw_steps
from xdyna.training.learners import AutoencoderLearner, JudgeLearner
from xdyna.training.pool import Pool
from xdyna.training.run import Run
from xdyna.training.steps import (
    Batch,
    Losses,
    autoencoder_losses,
    clip_losses,
    draw_consecutive,
    draw_judged,
    draw_pictures,
    draw_scattered,
    image_losses,
    judge_losses,
)

Named = dict[str, nn.Parameter]


@dataclass(frozen=True)
class Stage:
    """One row of the table.

    Attributes:
        parameters: what learns, by the name "network.parameter"; everything else is frozen.
        learner: builds the module that is trained from the run's networks.
        draw: takes a batch out of the pool.
        losses: computes on it; "loss" is the one that is minimised.
        scatter: True for frames at random moments of a clip, False for consecutive ones.
        latents: whether the pool is encoded by the finished autoencoder.
        humans_only: True leaves scenes out, whatever the config mixes.
    """

    parameters: Callable[[Run], Named]
    learner: Callable[[Run], nn.Module]
    draw: Callable[[Run, Pool, StageConfig], Batch]
    losses: Callable[[Run, nn.Module, Batch], Losses]
    scatter: bool
    latents: bool
    humans_only: bool = False


def _of(*names: str) -> Callable[[Run], Named]:
    """All parameters of some networks."""

    def parameters(run: Run) -> Named:
        return {
            f"{name}.{key}": value
            for name, network in run.modules().items()
            if name in names
            for key, value in network.named_parameters()
        }

    return parameters


def _denoiser(run: Run) -> Named:
    """All parameters of the denoiser, its ControlNets, and what shows it the reference."""
    return dict(run.networks.denoiser().named_parameters())


def _denoiser_of_pictures(run: Run) -> Named:
    """The same without what only clips can teach."""
    return {name: value for name, value in _denoiser(run).items() if "motion_" not in name}


def _stage1(run: Run) -> Named:
    """What the paper's first stage trains: the reference's way in, the motion modules, the pose ControlNet."""
    denoiser = run.networks.denoiser()
    return denoiser.reference_parameters() | denoiser.motion_parameters() | _of("pose_controlnet")(run)


def _denoiser_learner(run: Run) -> nn.Module:
    denoiser = run.networks.denoiser()
    if run.config.runtime.checkpoint_gradients:
        denoiser.enable_gradient_checkpointing()
    return denoiser


def _student_learner(run: Run) -> nn.Module:
    assert run.student is not None
    return StudentLearner(run.networks.denoiser(), run.student)


STAGES: dict[str, Stage] = {
    "autoencoder": Stage(
        parameters=_of("vae"), learner=lambda run: AutoencoderLearner(run.networks.vae),
        draw=draw_pictures, losses=autoencoder_losses, scatter=True, latents=False,
    ),
    "judge": Stage(
        parameters=_of("judge"), learner=lambda run: JudgeLearner(run.judge),
        draw=draw_judged, losses=judge_losses, scatter=True, latents=False,
    ),
    "image": Stage(
        parameters=_denoiser_of_pictures, learner=_denoiser_learner,
        draw=draw_scattered, losses=image_losses, scatter=True, latents=True,
    ),
    "clips": Stage(
        parameters=_denoiser, learner=_denoiser_learner,
        draw=draw_consecutive, losses=clip_losses, scatter=False, latents=True,
    ),
    "stage1": Stage(
        parameters=_stage1, learner=_denoiser_learner,
        draw=draw_consecutive, losses=clip_losses, scatter=False, latents=True,
    ),
    "stage2": Stage(
        parameters=_of("face_controlnet"), learner=_denoiser_learner,
        draw=draw_consecutive, losses=clip_losses, scatter=False, latents=True, humans_only=True,
    ),
    "distill": Stage(
        parameters=_of("student"), learner=_student_learner,
        draw=draw_steps, losses=distill_losses, scatter=False, latents=True,
    ),
}  # fmt: skip
