"""The stages of training, as rows of a table: what trains, on which frames, with which step.

A step is a plain function from a `Run`, a pool and the stage's settings to named losses, of which "loss" is the one
that is minimised. The loop in `loop.py` knows nothing else of a stage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from xdyna.sampling import mix_noise
from xdyna.training.config import StageConfig, TrainConfig
from xdyna.training.judge import Judge, judge_loss
from xdyna.training.learners import AutoencoderLearner, DenoiserLearner, JudgeLearner
from xdyna.training.losses import (
    add_noise,
    detail_weights,
    kl_loss,
    reconstruction_loss,
    velocity_loss,
    velocity_target,
)
from xdyna.training.networks import Networks
from xdyna.training.pool import Pool, to_signed

Losses = dict[str, torch.Tensor]


@dataclass
class Run:
    """What every step reads.

    Attributes:
        config: the whole config.
        device: where everything lives.
        networks: the model.
        judge: the judging networks.
        alphas_cumprod: (1000,) float32, of the scheduler.
        generator: the one source of random numbers, on `device`.
        learner: what the stage under way trains, wrapped for its processes; None between stages.
    """

    config: TrainConfig
    device: torch.device
    networks: Networks
    judge: Judge
    alphas_cumprod: torch.Tensor
    generator: torch.Generator
    learner: nn.Module | None = None

    def modules(self) -> dict[str, nn.Module]:
        """All networks by name, the judge included."""
        return {**self.networks.named(), "judge": self.judge}

    def autocast(self) -> torch.autocast:
        """bf16 on CUDA where the config says so; nothing elsewhere."""
        enabled = self.device.type == "cuda" and self.config.runtime.bfloat16
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)

    def uniform(self, *shape: int) -> torch.Tensor:
        """Uniform numbers in [0, 1)."""
        return torch.rand(shape, generator=self.generator, device=self.device)

    def normal(self, *shape: int) -> torch.Tensor:
        """Normal numbers, float32."""
        return torch.randn(shape, generator=self.generator, device=self.device)

    def integers(self, high: int, *shape: int) -> torch.Tensor:
        """Integers in [0, high)."""
        return torch.randint(high, shape, generator=self.generator, device=self.device)


@dataclass(frozen=True)
class Stage:
    """One row of the table.

    Attributes:
        trains: names of the networks that learn; the others are frozen.
        scatter: True for frames at random moments of a clip, False for consecutive ones.
        latents: whether the pool is encoded by the finished autoencoder.
        learner: builds the module that is trained from the run's networks.
        step: the stage's losses.
        motion: whether the motion modules learn; a stage without them leaves them as they are.
    """

    trains: tuple[str, ...]
    scatter: bool
    latents: bool
    learner: Callable[[Run], nn.Module]
    step: Callable[[Run, Pool, StageConfig], Losses]
    motion: bool = True


def autoencoder_step(run: Run, pool: Pool, stage: StageConfig) -> Losses:
    """Single frames, or crops of them, through the autoencoder."""
    clips, frames = run.integers(len(pool), stage.batch), run.integers(1 + pool.rendered, stage.batch)
    config = run.config.loss
    pictures, mask, head, hands = (
        pool_part[clips, frames] for pool_part in (pool.frames, pool.mask, pool.head, pool.hands)
    )
    weights = detail_weights(mask.float() / 255, head, hands, config=config)
    both = torch.cat([to_signed(pictures), weights], 1)
    if stage.crop:
        both = _random_crops(both, stage.crop, run)
    target, weights = both[:, :3].contiguous(), both[:, 3:]
    if run.config.runtime.channels_last:
        target = target.contiguous(memory_format=torch.channels_last)
    assert run.learner is not None
    unit = 2 ** (len(run.config.model.autoencoder.channels) - 1)
    channels = run.config.model.autoencoder.latent_channels
    shape = (len(target), channels, target.shape[-2] // unit, target.shape[-1] // unit)
    output, mean, log_variance = run.learner(
        target, run.normal(*shape), run.normal(*shape), config.latent_noise
    )
    rebuilt = reconstruction_loss(output.float(), target, weights, config=config)
    divergence = kl_loss(mean.float(), log_variance.float())
    error = (output.detach().float() - target).square().mean() / 4
    return {
        "loss": rebuilt + config.kl * divergence,
        "rebuilt": rebuilt,
        "kl": divergence,
        "psnr": -10 * error.log10(),
    }


def judge_step(run: Run, pool: Pool, stage: StageConfig) -> Losses:
    """Frames as they are, through the autoencoder, or noisy."""
    clips, frames = run.integers(len(pool), stage.batch), run.integers(1 + pool.rendered, stage.batch)
    pictures = to_signed(pool.frames[clips, frames])
    with torch.no_grad(), run.autocast():
        vae = run.networks.vae
        half = len(pictures) // 2
        if half:
            rebuilt = vae.decode(vae.encode(pictures[:half]).latent_dist.mean).sample.float().clamp(-1, 1)
            pictures = torch.cat([rebuilt, pictures[half:]])
        pictures = pictures + 0.05 * run.uniform(len(pictures), 1, 1, 1) * run.normal(*pictures.shape)
    head = pool.head[clips, frames]
    # The place of the head is known only roughly when generated pictures are judged.
    head = head + 0.05 * head[:, 2:] * run.normal(*head.shape)
    assert run.learner is not None
    return judge_loss(
        run.learner,
        pictures,
        mask=pool.mask[clips, frames].float() / 255,
        body=pool.body[clips, frames],
        head=head,
        expression=pool.expression[clips, frames],
        human=pool.human[clips],
    )


def image_step(run: Run, pool: Pool, stage: StageConfig) -> Losses:
    """Reference and scattered frames, motion modules bypassed."""
    picks = run.uniform(stage.batch, pool.rendered).argsort(1)[:, : stage.frames]
    return _denoising_losses(run, pool, stage, picks=picks, temporal=False)


def clips_step(run: Run, pool: Pool, stage: StageConfig) -> Losses:
    """Reference and consecutive frames, motion modules too."""
    starts = run.integers(1 + pool.rendered - stage.frames, stage.batch, 1)
    picks = starts + torch.arange(stage.frames, device=run.device)
    return _denoising_losses(run, pool, stage, picks=picks, temporal=True)


def denoiser_learner(run: Run) -> nn.Module:
    """The denoiser with both ControlNets."""
    networks = run.networks
    controls: dict[str, nn.Module] = {"pose": networks.pose_controlnet, "face": networks.face_controlnet}
    return DenoiserLearner(networks.unet, controls, channels_last=run.config.runtime.channels_last)


DENOISER = ("unet", "pose_controlnet", "face_controlnet")

STAGES: dict[str, Stage] = {
    "autoencoder": Stage(
        ("vae",), scatter=True, latents=False, learner=lambda run: AutoencoderLearner(run.networks.vae),
        step=autoencoder_step,
    ),
    "judge": Stage(
        ("judge",), scatter=True, latents=False, learner=lambda run: JudgeLearner(run.judge), step=judge_step
    ),
    "image": Stage(
        DENOISER, scatter=True, latents=True, learner=denoiser_learner, step=image_step, motion=False
    ),
    "clips": Stage(DENOISER, scatter=False, latents=True, learner=denoiser_learner, step=clips_step),
}  # fmt: skip


def stage_parameters(run: Run, stage: Stage) -> list[nn.Parameter]:
    """The parameters that learn in a stage."""
    return [
        parameter
        for network in stage.trains
        for name, parameter in run.modules()[network].named_parameters()
        if stage.motion or "motion_" not in name
    ]


def _denoising_losses(
    run: Run, pool: Pool, stage: StageConfig, *, picks: torch.Tensor, temporal: bool
) -> Losses:
    """Velocity loss on the frames `picks` (b f) of random clips; frame 0, the reference, is not judged."""
    config = run.config.loss
    clips = run.integers(len(pool), stage.batch)
    frames = 1 + picks
    reference = pool.latents[clips, 0].float()
    clean = pool.latents[clips[:, None], frames].float().transpose(1, 2)
    weights = pool.weights[clips[:, None], frames].float().transpose(1, 2)
    conditions = pool.conditions[clips[:, None], frames].float() / 255
    timesteps = run.integers(len(run.alphas_cumprod), stage.batch)
    alpha_bar = run.alphas_cumprod[timesteps].view(-1, 1, 1, 1, 1)
    batch, channels, count, *sides = clean.shape
    noise = mix_noise(run.normal(batch, channels, 1 + count, *sides), shared=config.shared_noise)[:, :, 1:]
    noisy = add_noise(clean, noise, alpha_bar)
    # Tensors, so that which condition is dropped does not change the graph.
    keep_reference = (run.uniform(batch) >= config.drop_reference).float()
    pose = conditions[:, :, :3] * (run.uniform(batch, 1, 1, 1, 1) >= config.drop_pose)
    face = conditions[:, :, 3:] * (run.uniform(batch, 1, 1, 1, 1) >= config.drop_face)
    motion = None
    if run.config.model.unet.motion_energy:
        told = (run.uniform(batch) >= config.drop_motion) if temporal else torch.zeros_like(clips).bool()
        motion = torch.where(told, pool.energy[clips], torch.nan)
    assert run.learner is not None
    output = run.learner(
        noisy, timesteps, reference, {"pose": pose, "face": face},
        reference_scale=keep_reference, motion=motion, temporal=temporal,
    )  # fmt: skip
    target = velocity_target(clean, noise, alpha_bar)
    loss = velocity_loss(output, target, weights, alpha_bar, min_snr=config.min_snr)
    with torch.no_grad():
        plain = (output.float() - target).square().mean()
    return {"loss": loss, "plain": plain}


def _random_crops(pictures: torch.Tensor, side: int, run: Run) -> torch.Tensor:
    """One random square of each picture; (n c h w) -> (n c side side)."""
    height, width = pictures.shape[-2:]
    if height <= side and width <= side:
        return pictures
    tops = run.integers(1 + max(0, height - side), len(pictures)).tolist()
    lefts = run.integers(1 + max(0, width - side), len(pictures)).tolist()
    return torch.stack(
        [
            p[:, top : top + side, left : left + side]
            for p, top, left in zip(pictures, tops, lefts, strict=True)
        ]
    )
