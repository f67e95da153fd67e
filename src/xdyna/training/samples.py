"""Sheets of sampled clips, to look at while a model learns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from xdyna.data.synthetic import HELD_OUT_SEED, make_batch
from xdyna.models.warping import moved_reference
from xdyna.sampling import ConditionSource, Controls, Tokens, WindowPlan, denoise, start_latents
from xdyna.sampling import Networks as SampledNetworks
from xdyna.training.config import TrainConfig
from xdyna.training.networks import Networks, build_scheduler

FRAMES, STEPS = 8, 8


@torch.no_grad()
def sample_sheet(config: TrainConfig, networks: Networks, device: torch.device) -> np.ndarray:
    """Reference, pose, face, truth and generated frames of a few held-out synthetic clips.

    Args:
        config: of the run; `runtime.samples` says how many clips.
        networks: an embedded model's, in evaluation mode; moved to `device`.
        device: where to sample.

    Returns:
        (h w 3) uint8
    """
    count = config.runtime.samples
    batch = make_batch(
        HELD_OUT_SEED, count, frames=FRAMES, size=config.data.size, device=device, human_share=1.0,
        landmarks=config.model.face == "landmarks",
    )  # fmt: skip
    for network in networks.named().values():
        network.to(device)
    vae, scheduler = networks.vae, build_scheduler(config.noise)
    scheduler.set_timesteps(STEPS, device=device)
    face = torch.cat([batch.face_local, batch.face_global], 2)[:, 1:].float()
    pose = batch.pose[:, 1:].float()
    rows = []
    for clip in range(count):
        mean = vae.encode(batch.frames[clip, :1].float() * 2 - 1).latent_dist.mean
        reference = (mean - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor
        encoder, reference_net = networks.reference_encoder, networks.reference_net
        moved = None
        if networks.unet.moves_reference:
            body = batch.body[clip : clip + 1].float()
            moved = moved_reference(reference, body[:, 0], body[:, 1:], size=config.data.size)
        latents = denoise(
            SampledNetworks(networks.unet, networks.pose_controlnet, networks.face_controlnet),
            scheduler,
            reference=reference,
            latents=start_latents(
                reference, FRAMES, scheduler, generator=torch.Generator().manual_seed(clip),
                shared_noise=config.noise.shared,
            ),
            tokens=None if encoder is None else Tokens(image=encoder(reference)),
            reference_features=None if reference_net is None else reference_net(reference),
            controls=Controls(
                pose=_source(pose[clip]), face=_source(face[clip]),
                reference_pose=batch.pose[clip, :1].float() if config.model.reference_pose else None,
                moved=moved,
            ),
            plan=WindowPlan(size=FRAMES, overlap=0, loop="open"),
        )  # fmt: skip
        scaled = latents[0].transpose(0, 1) / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
        made = (vae.decode(scaled).sample / 2 + 0.5).clamp(0, 1)
        frames = batch.frames[clip].float()
        rows += [frames[:1], pose[clip], face[clip][:, 3:], frames[1:], made]
    return sheet([row.cpu() for row in rows])


def sheet(rows: Sequence[torch.Tensor], *, columns: int = 8) -> np.ndarray:
    """A contact sheet.

    Args:
        rows: clips (f 3 h w) in [0, 1]; a clip of one frame is shown in the first column only.
        columns: at most so many frames of each, evenly spread.

    Returns:
        (h w 3) uint8
    """
    height, width = rows[0].shape[-2], rows[0].shape[-1]
    picture = np.full((len(rows) * (height + 2), columns * (width + 2), 3), 255, np.uint8)
    for number, clip in enumerate(rows):
        picks = torch.linspace(0, len(clip) - 1, min(columns, len(clip))).round().long().tolist()
        for column, pick in enumerate(picks):
            frame = (clip[pick].detach().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            top, left = number * (height + 2), column * (width + 2)
            picture[top : top + height, left : left + width] = frame
    return picture


def _source(pictures: torch.Tensor) -> ConditionSource:
    """Pictures (f c h w) by frame index, (1 f c h w)."""

    def chosen(picks: Sequence[int]) -> torch.Tensor:
        return pictures[list(picks)][None]

    return chosen
