"""Stage `distill`: one step of a student learns to do what several steps of its teacher do.

Progressive distillation (Salimans and Ho 2022, "Progressive Distillation for Fast Sampling of Diffusion Models"), one
round of it: the teacher takes `student.substeps` DDIM steps from a noisy clip, and the student, which sees the same
noisy clip, learns the velocity with which a single DDIM step arrives at the same place. With zero terminal SNR the
first step starts from pure noise, where the velocity is still well defined.

The student is its teacher with low-rank changes (LCM-LoRA, Luo et al. 2023, does the same for consistency models), so
one set of weights serves both. The ControlNets are not changed: what they say to a noisy clip is made once for both.
Chosen over consistency distillation because its target needs no second, averaged network and no boundary condition, and
because a student of 4 steps for a teacher of 8 is one round away.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from xdyna.errors import OptionError
from xdyna.models import Denoiser
from xdyna.models.low_rank import LowRankDeltas
from xdyna.training.config import NoiseConfig, StageConfig, TrainConfig
from xdyna.training.losses import add_noise, prediction_loss
from xdyna.training.networks import Networks, build_scheduler
from xdyna.training.pool import Pool
from xdyna.training.run import Run
from xdyna.training.steps import Batch, Losses, draw_consecutive, given_conditions
from xdyna.weights import read_preset, resolve


class StudentLearner(nn.Module):
    """The denoiser under changed weights.

    Args:
        denoiser: the teacher; its weights stay as they are.
        changes: what learns.
    """

    def __init__(self, denoiser: Denoiser, changes: LowRankDeltas) -> None:
        super().__init__()
        self.denoiser, self.changes = denoiser, changes

    def forward(self, noisy: Tensor, timesteps: Tensor, conditions: dict[str, Any]) -> Tensor:
        """The student's prediction, (b c f h w); `conditions` are the other arguments of `Denoiser.forward`."""
        changed = self.changes(dict(self.denoiser.unet.named_parameters()))
        weights = {f"unet.{name}": value for name, value in changed.items()}
        prediction: Tensor = functional_call(self.denoiser, weights, (noisy, timesteps), conditions)
        return prediction


def make_student(config: TrainConfig, networks: Networks) -> LowRankDeltas:
    """The changes that a run with stage `distill` teaches, doing nothing yet; the same for the same config.

    Raises:
        OptionError: the config says something else of the teacher than its own folder does.
    """
    if config.stages[0] == "distill":
        _check_teacher(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed + 2)
        return LowRankDeltas(
            networks.unet, rank=config.student.rank, convolutions=config.student.convolutions
        )


def _check_teacher(config: TrainConfig) -> None:
    preset = read_preset(resolve(config.initial))
    settings = {
        "model.reference_pose": (preset.reference_pose, config.model.reference_pose),
        "noise.shared": (preset.shared_noise, config.noise.shared),
    }
    wrong = {key: values for key, values in settings.items() if values[0] != values[1]}
    if wrong:
        told = ", ".join(f"{key} is {here}, not {there}" for key, (there, here) in wrong.items())
        raise OptionError(
            "distill", f"the teacher {config.initial} was trained with other settings: {told}",
            "Add " + " ".join(f"--set {key}={str(there).lower()}" for key, (there, _) in wrong.items()),
        )  # fmt: skip


def draw_steps(run: Run, pool: Pool, stage: StageConfig) -> Batch:
    """Reference and consecutive frames, as noisy as a clip is where one of the student's steps begins."""
    batch = draw_consecutive(run, pool, stage)
    begins = _timesteps(run.config.noise, run.config.student.steps).to(run.device)
    return {**batch, "timesteps": begins[run.integers(len(begins), stage.batch)]}


@functools.lru_cache
def _timesteps(noise: NoiseConfig, steps: int) -> Tensor:
    """Where the steps of a run of `steps` begin."""
    scheduler = build_scheduler(noise)
    scheduler.set_timesteps(steps)
    timesteps: Tensor = scheduler.timesteps
    return timesteps


def distill_losses(run: Run, learner: nn.Module, batch: Batch) -> Losses:
    """Weighted squared error of the student's velocity.

    Also "undistilled", the same of the teacher's own velocity, which is where the student begins: the ratio of the two
    says how much of the difference is still to be learned.
    """
    student, config = run.config.student, run.config
    times, clean = batch["timesteps"], batch["clean"]
    noisy = add_noise(clean, batch["noise"], alpha_bar(run, times))
    given = given_conditions(run, batch)
    teacher = run.networks.denoiser()
    stride = len(run.alphas_cumprod) // student.steps  # as DDIM's own step reckons it
    with torch.no_grad(), run.autocast():
        first = teacher.residuals(noisy, times, **_controls(given))
        own = teacher(noisy, times, **given, residuals=first).float()
        place, now, velocity = noisy, times, own
        for number in range(1, student.substeps + 1):
            after = times - number * stride // student.substeps
            place = ddim_step(place, velocity, alpha_bar(run, now), alpha_bar(run, after))
            if number < student.substeps:
                velocity, now = teacher(place, after, **given).float(), after
        begin, end = alpha_bar(run, times), alpha_bar(run, times - stride)
        target = velocity_between(noisy, place, begin, end)
    output = learner(noisy, times, {**given, "residuals": first})

    def error(prediction: Tensor) -> Tensor:
        return prediction_loss(
            prediction, target, batch["weights"], begin, min_snr=config.loss.min_snr,
            prediction=config.noise.prediction,
        )  # fmt: skip

    with torch.no_grad():
        undistilled = error(own)
    return {"loss": error(output), "undistilled": undistilled}


def alpha_bar(run: Run, timesteps: Tensor) -> Tensor:
    """(b) -> (b 1 1 1 1) of the schedule; below timestep 0 lies the clean clip, 1."""
    values = torch.where(timesteps < 0, 1.0, run.alphas_cumprod[timesteps.clamp(min=0)])
    return values.view(-1, 1, 1, 1, 1)


def ddim_step(noisy: Tensor, velocity: Tensor, now: Tensor, after: Tensor) -> Tensor:
    """A deterministic step (Song et al. 2021) from alpha-bar `now` to `after`, for a predicted velocity."""
    clean = now.sqrt() * noisy - (1 - now).sqrt() * velocity
    noise = now.sqrt() * velocity + (1 - now).sqrt() * noisy
    return after.sqrt() * clean + (1 - after).sqrt() * noise


def velocity_between(noisy: Tensor, arrived: Tensor, now: Tensor, after: Tensor) -> Tensor:
    """The velocity with which `ddim_step` goes from `noisy` to `arrived`.

    A step turns (noisy, velocity) by the angle between the two noise levels: arrived = cos noisy - sin velocity.
    """
    cosine = (now * after).sqrt() + ((1 - now) * (1 - after)).sqrt()
    sine = (after * (1 - now)).sqrt() - (now * (1 - after)).sqrt()
    return (cosine * noisy - arrived) / sine


def _controls(given: dict[str, Any]) -> dict[str, Any]:
    """What of a denoiser's arguments its ControlNets read."""
    names = ("reference", "pose", "face", "reference_pose", "text", "pose_scale", "face_scale")
    return {name: given[name] for name in names if name in given}
