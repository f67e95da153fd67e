"""Pictures to latents and back, and the latents a run starts from (spec.md 6, fixtures viii and xiii)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from xdyna.sampling.decoding import shift_of

BLUR_SIZE, BLUR_SIGMA = 9, 18.0
"""Gaussian blur of the start latents: kernel size and standard deviation in latent pixels (spec.md 6)."""


def encode_reference(
    vae: Any, image: np.ndarray, *, generator: torch.Generator | None = None, eps: Tensor | None = None
) -> Tensor:
    """Latent of the reference picture, **sampled** from the posterior as the official code does.

    Args:
        vae: an `AutoencoderKL`.
        image: (h w 3) uint8, sides multiples of the autoencoder's factor.
        generator: source of the posterior's noise; without it and `eps`, the mode is taken.
        eps: (1 c h/8 w/8) noise to use in its place.

    Returns:
        (1 c h/8 w/8) float32, scaled as the UNet expects.
    """
    weight = next(vae.parameters())
    pixels = torch.from_numpy(np.ascontiguousarray(image)).to(weight.device)
    pixels = rearrange(pixels.to(weight.dtype) / 127.5 - 1.0, "h w c -> 1 c h w")
    posterior = vae.encode(pixels).latent_dist
    latent = posterior.mean.float()
    if eps is None and generator is not None:
        eps = torch.randn(latent.shape, generator=generator)
    if eps is not None:
        latent = latent + posterior.std.float() * eps.to(latent)
    return (latent - shift_of(vae)) * vae.config.scaling_factor


def degrade_reference(reference: Tensor, frames: int, *, mask: Tensor) -> Tensor:
    """The reference repeated over the clip, each latent value blurred or not by chance (spec.md 6).

    Args:
        reference: (b c h w); h and w at least 5, as the blur reflects at the border.
        frames: driven frames; the result has one more, the clean reference at index 0.
        mask: (b c 1+f h w) uniform in [0, 1); 0.5 and above keeps the sharp value.

    Returns:
        (b c 1+f h w)
    """
    sharp = repeat(reference, "b c h w -> b c f h w", f=frames + 1)
    blurred = _blur(reference).unsqueeze(2)
    keep = (mask >= 0.5).to(reference.dtype)
    mixed = keep * sharp + (1 - keep) * blurred
    mixed[:, :, 0] = reference
    return mixed


def start_latents(
    reference: Tensor,
    frames: int,
    scheduler: Any,
    *,
    generator: torch.Generator | None = None,
    mask: Tensor | None = None,
    noise: Tensor | None = None,
    shared_noise: float = 0.0,
) -> Tensor:
    """Latents at the scheduler's first timestep: the degraded reference, noised (spec.md 6, fixture viii).

    Args:
        reference: (b c h w) float32.
        frames: driven frames.
        scheduler: a diffusers scheduler whose timesteps are set.
        generator: CPU generator for mask and noise where these are not given.
        mask: (b c 1+f h w) uniform draw in place of the generator's.
        noise: (b c 1+f h w) normal draw in place of the generator's.
        shared_noise: share of the noise's variance that all frames have in common; 0 as the official code.
            What a model was trained with is in its preset.

    Returns:
        (b c f h w) float32. Where the schedule ends in pure noise, the reference leaves no trace in it.
    """
    batch, channels, height, width = reference.shape
    shape = (batch, channels, frames + 1, height, width)
    mask = torch.rand(shape, generator=generator) if mask is None else mask
    if noise is None:
        noise = mix_noise(torch.randn(shape, generator=generator), shared=shared_noise)
    degraded = degrade_reference(reference, frames, mask=mask.to(reference.device))
    noise = noise.to(reference.device)
    return scheduler.add_noise(degraded, noise, scheduler.timesteps[:1])[:, :, 1:]


def mix_noise(noise: Tensor, *, shared: float) -> Tensor:
    """Give the frames of independent noise a common part, its variance kept ("mixed noise" of Ge et al. 2023,
    "Preserve Your Own Correlation"): what stands still in a clip then starts out still.

    Args:
        noise: (b c 1+f h w) independent normal noise; that of frame 0, which the reference does not need, is
            the common part.
        shared: share of the variance in common, 0 to 1; 0 returns `noise` as it is.
    """
    if not shared:
        return noise
    common, own = noise[:, :, :1], noise[:, :, 1:]
    return torch.cat([common, math.sqrt(shared) * common + math.sqrt(1 - shared) * own], 2)


def _blur(latent: Tensor) -> Tensor:
    """Gaussian blur of (b c h w) with reflected borders, as torchvision's GaussianBlur(9, 18)."""
    reach = BLUR_SIZE // 2
    place = torch.arange(-reach, reach + 1, dtype=torch.float32, device=latent.device)
    line = torch.exp(-0.5 * (place / BLUR_SIGMA) ** 2)
    line = line / line.sum()
    kernel = torch.outer(line, line).to(latent.dtype)
    channels = latent.shape[1]
    padded = F.pad(latent, (reach,) * 4, mode="reflect")
    return F.conv2d(padded, repeat(kernel, "h w -> c 1 h w", c=channels), groups=channels)
