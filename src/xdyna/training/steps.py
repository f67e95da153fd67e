"""What one step of each stage does: `draw_*` takes a batch out of the pool, `*_losses` computes on it.

All chance is in the drawing, and the drawing alone looks at the pool. The losses are a function of the batch and of
the weights: fixed shapes, no random numbers, nothing that waits for the device, so that they can be recorded once and
replayed (`updates.py`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from xdyna.evaluation.judge import judge_loss
from xdyna.models.warping import moved_reference
from xdyna.sampling import mix_noise
from xdyna.training.config import StageConfig
from xdyna.training.losses import (
    add_noise,
    detail_weights,
    kl_loss,
    prediction_loss,
    prediction_target,
    reconstruction_loss,
)
from xdyna.training.pool import Pool, to_signed
from xdyna.training.run import Run

Batch = dict[str, torch.Tensor]
Losses = dict[str, torch.Tensor]

OFF_EVERYWHERE, OFF_EACH_FRAME = 0.006, 0.003
"""How far detected points are off in a clip's every frame, and beside that in each: spreads, in widths of a picture."""


def draw_pictures(run: Run, pool: Pool, stage: StageConfig) -> Batch:
    """Single frames, or crops of them, for the autoencoder."""
    clips, frames = run.integers(len(pool), stage.batch), run.integers(1 + pool.rendered, stage.batch)
    pictures, mask, head, hands = (
        pool_part[clips, frames] for pool_part in (pool.frames, pool.mask, pool.head, pool.hands)
    )
    weights = detail_weights(mask.float() / 255, head, hands, config=run.config.loss)
    both = torch.cat([to_signed(pictures), weights], 1)
    if stage.crop:
        both = _random_crops(both, stage.crop, run)
    target, weights = both[:, :3].contiguous(), both[:, 3:].contiguous()
    if run.config.runtime.channels_last:
        target = target.contiguous(memory_format=torch.channels_last)
    model = run.config.model
    shape = (
        len(target),
        model.latent_channels,
        target.shape[-2] // model.unit,
        target.shape[-1] // model.unit,
    )
    return {"target": target, "weights": weights, "sample": run.normal(*shape), "noise": run.normal(*shape)}


def autoencoder_losses(run: Run, learner: nn.Module, batch: Batch) -> Losses:
    """Reconstruction and divergence."""
    config = run.config.loss
    target = batch["target"]
    output, mean, log_variance = learner(target, batch["sample"], batch["noise"], config.latent_noise)
    rebuilt = reconstruction_loss(output.float(), target, batch["weights"], config=config)
    divergence = kl_loss(mean.float(), log_variance.float())
    error = (output.detach().float() - target).square().mean() / 4
    return {
        "loss": rebuilt + config.kl * divergence,
        "rebuilt": rebuilt,
        "kl": divergence,
        "psnr": -10 * error.log10(),
    }


def draw_judged(run: Run, pool: Pool, stage: StageConfig) -> Batch:
    """Frames as they are, or through the autoencoder, or noisy, with the truth about them."""
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
    return {
        "pictures": pictures.contiguous(),
        "mask": pool.mask[clips, frames].float() / 255,
        "body": pool.body[clips, frames],
        "head": head,
        "expression": pool.expression[clips, frames],
        "human": pool.human[clips],
    }


def judge_losses(run: Run, learner: nn.Module, batch: Batch) -> Losses:
    """Mask, joints and expression."""
    truth = {name: value for name, value in batch.items() if name != "pictures"}
    return judge_loss(learner, batch["pictures"], **truth)


def draw_scattered(run: Run, pool: Pool, stage: StageConfig) -> Batch:
    """Reference and frames at any moments, in any order; nothing is told about motion."""
    picks = run.uniform(stage.batch, pool.rendered).argsort(1)[:, : stage.frames]
    return _draw_clips(run, pool, run.integers(len(pool), stage.batch), picks, told=False)


def draw_consecutive(run: Run, pool: Pool, stage: StageConfig) -> Batch:
    """Reference and consecutive frames."""
    starts = run.integers(1 + pool.rendered - stage.frames, stage.batch, 1)
    picks = starts + torch.arange(stage.frames, device=run.device)
    return _draw_clips(run, pool, run.integers(len(pool), stage.batch), picks, told=True)


def image_losses(run: Run, learner: nn.Module, batch: Batch) -> Losses:
    """The denoising loss, motion modules bypassed."""
    return _denoising_losses(run, learner, batch, temporal=False)


def clip_losses(run: Run, learner: nn.Module, batch: Batch) -> Losses:
    """The denoising loss."""
    return _denoising_losses(run, learner, batch, temporal=True)


def _draw_clips(run: Run, pool: Pool, clips: torch.Tensor, picks: torch.Tensor, *, told: bool) -> Batch:
    """Latents, conditions, noise and what is dropped, of the frames `picks` (b f) of the clips (b,)."""
    config, noise = run.config.loss, run.config.noise
    frames, count = 1 + picks, len(clips)
    clean = pool.latents[clips[:, None], frames].float().transpose(1, 2)
    batch, channels, length, *sides = clean.shape
    random = mix_noise(run.normal(batch, channels, 1 + length, *sides), shared=noise.shared)[:, :, 1:]
    if noise.offset:
        random = random + noise.offset * run.normal(batch, channels, 1, 1, 1)

    def keep(chance: float) -> torch.Tensor:
        return (run.uniform(count) >= chance).float()

    conditions = pool.conditions[clips[:, None], frames].float() / 255
    pose_scale, face_scale = keep(config.drop_pose), keep(config.drop_face)
    human = pool.human[clips].float()
    own = {}
    if run.config.model.reference_pose:
        told_pose = pool.conditions[clips, 0, :3].float() / 255
        own = {"reference_pose": told_pose * pose_scale.view(-1, 1, 1, 1)}
    if run.config.model.unet.moved_reference:
        # nobody moves whose pose is dropped, or who is not in the picture
        points = pool.body[clips[:, None], torch.cat([torch.zeros_like(frames[:, :1]), frames], 1)]
        points = _blurred(run, points, there=human * pose_scale)
        own["moved"] = moved_reference(
            pool.latents[clips, 0], points[:, 0], points[:, 1:], size=run.config.data.size
        )
    scales = {}
    if config.blank == "skip":
        scales = {"pose_scale": human, "face_scale": human}
    drawn = {
        "reference": pool.latents[clips, 0].float(),
        "clean": clean.contiguous(),
        "noise": random.contiguous(),
        "weights": pool.weights[clips[:, None], frames].float().transpose(1, 2).contiguous(),
        "timesteps": _draw_timesteps(run, count),
        # What is dropped is blank, as it is for a scene.
        "pose": conditions[:, :, :3] * pose_scale.view(-1, 1, 1, 1, 1),
        "face": conditions[:, :, 3:] * face_scale.view(-1, 1, 1, 1, 1),
        "reference_scale": keep(config.drop_reference),
        **own,
        **scales,
    }
    if run.config.model.unet.motion_energy and run.config.model.kind == "embedded":
        tell = keep(config.drop_motion) > 0 if told else torch.zeros_like(human).bool()
        drawn["motion"] = torch.where(tell, pool.energy[clips], torch.nan)
    if pool.image_features is not None:
        features = pool.image_features[clips].float()
        if config.drop_tokens and run.empty_features is not None:
            features = torch.where(keep(config.drop_tokens).view(-1, 1, 1) > 0, features, run.empty_features)
        drawn["image_features"] = features
    return drawn


def _blurred(run: Run, points: torch.Tensor, *, there: torch.Tensor) -> torch.Tensor:
    """Exact points (b f 18 3) as a detector might give them; `there` is (b), 0 for nobody."""
    batch, frames, joints, _ = points.shape
    width = run.config.data.size[1]
    off = OFF_EVERYWHERE * run.normal(batch, 1, joints, 2) + OFF_EACH_FRAME * run.normal(
        batch, frames, joints, 2
    )
    return torch.cat([points[..., :2] + width * off, points[..., 2:] * there.view(-1, 1, 1, 1)], -1)


def _draw_timesteps(run: Run, count: int) -> torch.Tensor:
    """Timesteps (count,), evenly, or towards noise as `noise.timestep_shift` says."""
    total, shift = len(run.alphas_cumprod), run.config.noise.timestep_shift
    if shift == 1:
        return run.integers(total, count)
    even = run.uniform(count)
    return (total * shift * even / (1 + (shift - 1) * even)).long().clamp(max=total - 1)


def given_conditions(run: Run, batch: Batch) -> dict[str, Any]:
    """What a denoiser is given besides the noisy clip and its timestep, by the names of `Denoiser.forward`."""
    given: dict[str, Any] = {
        name: batch[name]
        for name in ("reference_pose", "moved", "pose_scale", "face_scale", "motion", "image_features")
        if name in batch
    }
    if run.text is not None:
        given["text"] = run.text.expand(len(batch["clean"]), -1, -1)
    return {
        "reference": batch["reference"],
        "pose": batch["pose"],
        "face": batch["face"] if run.networks.face_controlnet is not None else None,
        # A number where nothing is ever dropped: it leaves attention its fast kernels.
        "reference_scale": batch["reference_scale"] if run.config.loss.drop_reference else 1.0,
        **given,
    }


def _denoising_losses(run: Run, learner: nn.Module, batch: Batch, *, temporal: bool) -> Losses:
    """Weighted squared error of the prediction; the reference's frame is not judged."""
    alpha_bar = run.alphas_cumprod[batch["timesteps"]].view(-1, 1, 1, 1, 1)
    clean, noise = batch["clean"], batch["noise"]
    output = learner(
        add_noise(clean, noise, alpha_bar),
        batch["timesteps"],
        temporal=temporal,
        **given_conditions(run, batch),
    )
    prediction = run.config.noise.prediction
    target = prediction_target(clean, noise, alpha_bar, prediction=prediction)
    loss = prediction_loss(
        output,
        target,
        batch["weights"],
        alpha_bar,
        min_snr=run.config.loss.min_snr,
        prediction=prediction,
        temporal=run.config.loss.temporal if temporal else 0.0,
    )
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
