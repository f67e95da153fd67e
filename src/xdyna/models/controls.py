"""Running a ControlNet over the frames of a clip."""

from __future__ import annotations

from typing import Any

from einops import rearrange, repeat
from torch import Tensor

from xdyna.models.attention import quickest_attention


def run_controlnet(
    network: Any,
    latents: Tensor,
    timestep: Tensor,
    condition: Tensor,
    *,
    text: Tensor | None = None,
    scale: float | Tensor = 1.0,
) -> list[Tensor]:
    """A ControlNet's residuals for every frame by itself, without the reference's.

    Args:
        network: diffusers' `ControlNetModel`, any float dtype.
        latents: (b c f h w) noisy latents.
        timestep: one for all, or (b) one for each clip.
        condition: (b f k H W) condition pictures in [0, 1].
        text: (b n d) text tokens, for a ControlNet that reads text.
        scale: strength: one number, or (b) one for each clip.

    Returns:
        residuals of the skips, then that of the mid block, each (b c f h w).
    """
    dtype = next(network.parameters()).dtype
    frames = latents.shape[2]
    each = isinstance(scale, Tensor)
    sample = rearrange(latents, "b c f h w -> (b f) c h w").to(dtype)
    with quickest_attention(sample):
        down, mid = network(
            sample,
            timestep.repeat_interleave(frames) if timestep.ndim else timestep,
            encoder_hidden_states=None
            if text is None
            else repeat(text.to(dtype), "b n d -> (b f) n d", f=frames),
            controlnet_cond=rearrange(condition, "b f c h w -> (b f) c h w").to(dtype),
            conditioning_scale=1.0 if each else scale,
            return_dict=False,
        )
    residuals = [rearrange(value, "(b f) c h w -> b c f h w", f=frames) for value in (*down, mid)]
    if isinstance(scale, Tensor):
        residuals = [value * scale.to(value.dtype)[:, None, None, None, None] for value in residuals]
    return residuals
