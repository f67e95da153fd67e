"""What a stage trains, as one module with one forward: the unit that several processes keep in step.

A learner only holds networks of the run; it owns no weights. Wrapped for many processes (DDP, FSDP) or for mixed
precision, it is the wrapper that a stage calls, so that every gradient passes through it. The denoiser's learner is
`models.Denoiser`.
"""

from __future__ import annotations

from diffusers import AutoencoderKL
from torch import Tensor, nn

from xdyna.evaluation.judge import Judge


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


class JudgeLearner(nn.Module):
    """The judging networks, as they are."""

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self.judge = judge

    def forward(self, pictures: Tensor, head: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Judge.forward`."""
        output: tuple[Tensor, Tensor, Tensor] = self.judge(pictures, head)
        return output
