"""The stages of training, as rows of a table: what trains, on which frames, with which step.

A step is a plain function from a `Run`, a pool and the stage's settings to named losses, of which "loss" is the one
that is minimised. The loop in `loop.py` knows nothing else of a stage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from xdyna.training.config import StageConfig, TrainConfig
from xdyna.training.judge import Judge, judge_loss
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
        compiled: faster callables for some networks, by name; empty without torch.compile.
    """

    config: TrainConfig
    device: torch.device
    networks: Networks
    judge: Judge
    alphas_cumprod: torch.Tensor
    generator: torch.Generator
    compiled: dict[str, Callable[..., object]]

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

    def normal(self, like: torch.Tensor) -> torch.Tensor:
        """Normal numbers in the shape of `like`, float32."""
        return torch.randn(like.shape, generator=self.generator, device=self.device)

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
        step: the stage's losses.
        motion: whether the motion modules learn; a stage without them leaves them as they are.
    """

    trains: tuple[str, ...]
    scatter: bool
    latents: bool
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
    vae = run.networks.vae
    with run.autocast():
        posterior = vae.encode(target).latent_dist
        spread = posterior.mean.detach().float().std()
        latents = posterior.mean + posterior.std * run.normal(posterior.mean)
        latents = latents + config.latent_noise * spread * run.normal(latents)
        output = vae.decode(latents).sample
    rebuilt = reconstruction_loss(output.float(), target, weights, config=config)
    divergence = kl_loss(posterior.mean.float(), posterior.logvar.float())
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
        pictures = pictures + 0.05 * run.uniform(len(pictures), 1, 1, 1) * run.normal(pictures)
    head = pool.head[clips, frames]
    # The place of the head is known only roughly when generated pictures are judged.
    head = head + 0.05 * head[:, 2:] * run.normal(head)
    with run.autocast():
        return judge_loss(
            run.judge,
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


STAGES: dict[str, Stage] = {
    "autoencoder": Stage(("vae",), scatter=True, latents=False, step=autoencoder_step),
    "judge": Stage(("judge",), scatter=True, latents=False, step=judge_step),
    "image": Stage(
        ("unet", "pose_controlnet", "face_controlnet"),
        scatter=True,
        latents=True,
        step=image_step,
        motion=False,
    ),
    "clips": Stage(
        ("unet", "pose_controlnet", "face_controlnet"), scatter=False, latents=True, step=clips_step
    ),
}


def stage_parameters(run: Run, stage: Stage) -> list[nn.Parameter]:
    """The parameters that learn in a stage."""
    return [
        parameter
        for network in stage.trains
        for name, parameter in run.modules()[network].named_parameters()
        if stage.motion or "motion_modules" not in name
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
    noise = run.normal(clean)
    noisy = add_noise(clean, noise, alpha_bar)
    # Tensors, so that which condition is dropped does not change the graph.
    keep_reference = (run.uniform(1) >= config.drop_reference).float()
    pose = conditions[:, :, :3] * (run.uniform(stage.batch, 1, 1, 1, 1) >= config.drop_pose)
    face = conditions[:, :, 3:] * (run.uniform(stage.batch, 1, 1, 1, 1) >= config.drop_face)
    with run.autocast():
        down, mid = control_residuals(run, noisy, timesteps, pose=pose, face=face)
        unet = run.compiled.get("unet", run.networks.unet)
        output = unet(
            torch.cat([reference[:, :, None], noisy], 2),
            timesteps,
            down_residuals=down,
            mid_residual=mid,
            reference_scale=keep_reference,
            temporal=temporal,
        )
    assert isinstance(output, torch.Tensor)
    target = velocity_target(clean, noise, alpha_bar)
    loss = velocity_loss(output[:, :, 1:], target, weights, alpha_bar, min_snr=config.min_snr)
    with torch.no_grad():
        plain = (output[:, :, 1:].float() - target).square().mean()
    return {"loss": loss, "plain": plain}


def control_residuals(
    run: Run, noisy: torch.Tensor, timesteps: torch.Tensor, *, pose: torch.Tensor, face: torch.Tensor
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Residuals of both ControlNets, summed, with zeros for the reference.

    Args:
        run: the run.
        noisy: (b c f h w).
        timesteps: (b,).
        pose: (b f 3 H W) in [0, 1].
        face: (b f 6 H W), local then global.

    Returns:
        the skips' residuals and the mid block's, each (b c 1+f h w).
    """
    batch, frames = noisy.shape[0], noisy.shape[2]
    sample = noisy.transpose(1, 2).flatten(0, 1)
    if run.config.runtime.channels_last:
        sample = sample.contiguous(memory_format=torch.channels_last)
    times = timesteps.repeat_interleave(frames)
    total: list[torch.Tensor] = []
    down: tuple[torch.Tensor, ...]
    mid: torch.Tensor
    for name, condition in (("pose_controlnet", pose), ("face_controlnet", face)):
        network = run.compiled.get(name, run.modules()[name])
        pictures = condition.flatten(0, 1)
        if run.config.runtime.channels_last:
            pictures = pictures.contiguous(memory_format=torch.channels_last)
        down, mid = network(sample, times, None, pictures, return_dict=False)  # type: ignore[misc]
        residuals = [*down, mid]
        total = [a + b for a, b in zip(total, residuals, strict=True)] if total else residuals
    unfolded = [
        functional.pad(r.unflatten(0, (batch, frames)).transpose(1, 2), (0, 0, 0, 0, 1, 0)) for r in total
    ]
    return tuple(unfolded[:-1]), unfolded[-1]


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
