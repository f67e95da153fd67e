"""What a stage trains, as one module with one forward: the unit that several processes keep in step.

A learner only holds networks of the run; it owns no weights. Wrapped for many processes (DDP, FSDP) or for mixed
precision, it is the wrapper that a stage's step calls, so that every gradient passes through it.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional

from xdyna.models import XDynaUNet
from xdyna.training.judge import Judge


class AutoencoderLearner(nn.Module):
    """Pictures to latents, noise on the latents, and back."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(
        self, pictures: Tensor, sample: Tensor, noise: Tensor, noise_share: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """
        Args:
            pictures: (n 3 h w) in [-1, 1].
            sample: (n c h/8 w/8) normal draw for the posterior.
            noise: (n c h/8 w/8) normal draw, added on top.
            noise_share: how strong, as a share of the latents' spread.

        Returns:
            rebuilt pictures (n 3 h w); mean and log variance of the posterior, (n c h/8 w/8).
        """
        posterior = self.vae.encode(pictures).latent_dist
        spread = posterior.mean.detach().float().std()
        latents = posterior.mean + posterior.std * sample + noise_share * spread * noise
        return self.vae.decode(latents.to(posterior.mean.dtype)).sample, posterior.mean, posterior.logvar


class DenoiserLearner(nn.Module):
    """The denoiser with its ControlNets: noisy frames and conditions to the prediction for these frames.

    Args:
        unet: the denoiser.
        controls: the ControlNets by condition, "pose" and "face"; what is absent has no say.
        channels_last: give the ControlNets their pictures in that memory format.
    """

    def __init__(self, unet: XDynaUNet, controls: dict[str, nn.Module], *, channels_last: bool) -> None:
        super().__init__()
        self.unet = unet
        self.controls = nn.ModuleDict(controls)
        self.channels_last = channels_last

    def forward(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        reference: Tensor,
        conditions: dict[str, Tensor],
        *,
        reference_scale: Tensor | float = 1.0,
        motion: Tensor | None = None,
        temporal: bool = True,
    ) -> Tensor:
        """
        Args:
            noisy: (b c f h w).
            timesteps: (b,).
            reference: (b c h w) clean latent.
            conditions: "pose" (b f 3 H W) and "face" (b f 6 H W, local then global), in [0, 1].
            reference_scale: strength of the reference, one for all or (b).
            motion: (b,) motion energies, NaN where not told, for a denoiser that can be told.
            temporal: False bypasses the motion modules.

        Returns:
            (b c f h w)
        """
        down, mid = self.control_residuals(noisy, timesteps, conditions)
        output = self.unet(
            torch.cat([reference[:, :, None], noisy], 2),
            timesteps,
            down_residuals=down,
            mid_residual=mid,
            reference_scale=reference_scale,
            temporal=temporal,
            motion=motion,
        )
        return output[:, :, 1:]

    def control_residuals(
        self, noisy: Tensor, timesteps: Tensor, conditions: dict[str, Tensor]
    ) -> tuple[tuple[Tensor, ...] | None, Tensor | None]:
        """Residuals of all ControlNets, summed, zero for the reference: each (b c 1+f h w)."""
        batch, frames = noisy.shape[0], noisy.shape[2]
        sample = self._laid_out(noisy.transpose(1, 2).flatten(0, 1))
        times = timesteps.repeat_interleave(frames)
        total: list[Tensor] = []
        for name, network in self.controls.items():
            pictures = self._laid_out(conditions[name].flatten(0, 1))
            output: Any = network(sample, times, None, pictures, return_dict=False)
            residuals = [*output[0], output[1]]
            total = [a + b for a, b in zip(total, residuals, strict=True)] if total else residuals
        if not total:
            return None, None
        unfolded = [
            functional.pad(r.unflatten(0, (batch, frames)).transpose(1, 2), (0, 0, 0, 0, 1, 0)) for r in total
        ]
        return tuple(unfolded[:-1]), unfolded[-1]

    def _laid_out(self, pictures: Tensor) -> Tensor:
        if not self.channels_last:
            return pictures
        return pictures.contiguous(memory_format=torch.channels_last)


class JudgeLearner(nn.Module):
    """The judging networks, as they are."""

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self.judge = judge

    def forward(self, pictures: Tensor, head: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Judge.forward`."""
        output: tuple[Tensor, Tensor, Tensor] = self.judge(pictures, head)
        return output
