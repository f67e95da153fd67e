"""Decoding a clip's latents a few frames at a time, while the caller still uses the frames before."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from xdyna.errors import ResourceError

logger = logging.getLogger(__name__)


def decode_latents(vae: Any, latents: Tensor) -> np.ndarray:
    """Pictures of a few frames' latents.

    Args:
        vae: an `AutoencoderKL`.
        latents: (f c h w).

    Returns:
        (f 8h 8w 3) uint8; values are truncated to integers as the official code does.

    Raises:
        ResourceError: numbers that are not finite, in float32 too.
    """
    return _start(vae, latents).finish()


def decode_stream(vae: Any, parts: Iterable[Tensor]) -> Iterator[np.ndarray]:
    """The same for one part after another: on a GPU the next part is decoded while the caller uses the one before.

    Args:
        vae: an `AutoencoderKL`.
        parts: (f c h w) each.
    """
    waiting: _Decoding | None = None
    for part in parts:
        started = _start(vae, part)
        if waiting is not None:
            yield waiting.finish()
        waiting = started
        if not part.is_cuda:
            yield waiting.finish()
            waiting = None
    if waiting is not None:
        yield waiting.finish()


@dataclass
class _Decoding:
    """Pictures on their way from the device to main memory."""

    vae: Any
    latents: Tensor
    pictures: Tensor
    finite: Tensor
    event: Any

    def finish(self) -> np.ndarray:
        if self.event is not None:
            self.event.synchronize()
        if bool(self.finite):
            return self.pictures.numpy()
        return _decode_exactly(self.vae, self.latents)


@torch.inference_mode()
def _start(vae: Any, latents: Tensor) -> _Decoding:
    """Decode, without waiting for it on a GPU."""
    pixels = _decode(vae, latents, next(vae.parameters()).dtype)
    made = [_to_bytes(pixels), pixels.isfinite().all()]
    event = None
    if pixels.is_cuda:
        # asynchronous copies want memory that stays where it is
        here = [torch.empty(value.shape, dtype=value.dtype, pin_memory=True) for value in made]
        made = [there.copy_(value, non_blocking=True) for there, value in zip(here, made, strict=True)]
        event = torch.cuda.Event()
        event.record()
    else:
        made = [value.cpu() for value in made]
    return _Decoding(vae, latents, made[0], made[1], event)


@torch.inference_mode()
def _decode_exactly(vae: Any, latents: Tensor) -> np.ndarray:
    """Once more in float32, where half precision ran out of range."""
    dtype = next(vae.parameters()).dtype
    if dtype != torch.float32 and bool(latents.isfinite().all()):
        logger.warning("the autoencoder left the range of %s: these frames are decoded in float32", dtype)
        vae.to(torch.float32)
        try:
            pixels = _decode(vae, latents, torch.float32)
        finally:
            vae.to(dtype)
        if bool(pixels.isfinite().all()):
            return _to_bytes(pixels).cpu().numpy()
    raise ResourceError(
        "decoding",
        "the networks gave numbers that are not finite",
        "Use --dtype float32 or bfloat16, and see that the model's files are whole",
    )


def _decode(vae: Any, latents: Tensor, dtype: torch.dtype) -> Tensor:
    """(f c h w) -> (f 3 H W), about [-1, 1]."""
    return vae.decode((latents / vae.config.scaling_factor + shift_of(vae)).to(dtype)).sample


def _to_bytes(pixels: Tensor) -> Tensor:
    """(f 3 H W) in [-1, 1] -> (f H W 3) uint8."""
    pixels = (pixels.float() / 2 + 0.5).clamp(0, 1) * 255
    return rearrange(pixels, "f c h w -> f h w c").to(torch.uint8).contiguous()


def shift_of(vae: Any) -> float:
    """What an autoencoder's latents are shifted by."""
    return float(getattr(vae.config, "shift_factor", None) or 0.0)
