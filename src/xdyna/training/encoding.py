"""What frozen encoders make of pictures and of the prompt, once, before training reads it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from xdyna.sampling import encode_text
from xdyna.training.pool import to_signed
from xdyna.weights import load_components, read_index, resolve

logger = logging.getLogger(__name__)

CLIP_PARTS = ("text_encoder", "tokenizer", "image_encoder", "image_processor")
TEXT_TOKENS = (77, 768)
IMAGE_FEATURES = (257, 1280)
"""Shapes of Stable Diffusion 1.5's text tokens and of ViT-H's features."""


def encode_frames(vae: Any, frames: Tensor) -> Tensor:
    """Scaled latents, (n c h/8 w/8), of uint8 pictures (n 3 h w): the mean of the posterior, less its shift, scaled."""
    config = vae.config
    with torch.autocast(frames.device.type, dtype=torch.bfloat16, enabled=frames.device.type == "cuda"):
        mean = vae.encode(to_signed(frames)).latent_dist.mean
    return (mean.float() - (config.shift_factor or 0.0)) * config.scaling_factor


def clip_encoders(model: str, device: torch.device) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """The empty prompt's tokens, and an encoder of pictures, with the CLIP of a model folder.

    Args:
        model: a folder with the published model's parts. What it lacks, or "" for none at all, is stood in for by
            zeros: enough to measure speed and memory, not to train.
        device: where to compute.

    Returns:
        (1 77 768) tokens; (1 257 1280) features of an empty picture, zeros after normalisation as in the official
        code; a function from uint8 pictures (n 3 h w) to features (n 257 1280).
    """
    folder = resolve(model) if model else None
    parts: dict[str, Any] = {}
    if folder is not None:
        there = [name for name in CLIP_PARTS if name in read_index(folder).parts]
        parts = load_components(folder, dtype=torch.float16, device=device, names=there) if there else {}
    if len(parts) < len(CLIP_PARTS):
        missing = ", ".join(name for name in CLIP_PARTS if name not in parts)
        logger.warning("no %s: zeros stand in for what they would say", missing)
    text = torch.zeros(1, *TEXT_TOKENS, device=device)
    if "text_encoder" in parts and "tokenizer" in parts:
        with torch.no_grad():
            text = encode_text(parts["tokenizer"], parts["text_encoder"], "")
    encoder, processor = parts.get("image_encoder"), parts.get("image_processor")

    def hidden_states(pixels: Tensor) -> Tensor:
        assert encoder is not None
        hidden: Tensor = encoder(pixels, output_hidden_states=True).hidden_states[-2]
        return hidden

    def features(pictures: Tensor) -> Tensor:
        if encoder is None or processor is None:
            return torch.zeros(len(pictures), *IMAGE_FEATURES, device=pictures.device)
        from PIL import Image

        images = [Image.fromarray(p.permute(1, 2, 0).cpu().numpy()) for p in pictures]
        pixels = processor(images=images, return_tensors="pt").pixel_values
        pixels = pixels.to(device, next(encoder.parameters()).dtype)
        return hidden_states(pixels)

    empty = torch.zeros(1, *IMAGE_FEATURES, device=device)
    if encoder is not None:
        side = encoder.config.image_size
        with torch.no_grad():
            empty = hidden_states(torch.zeros(1, 3, side, side, device=device, dtype=encoder.dtype)).float()
    return text, empty, features


@torch.no_grad()
def measure_latents(vae: Any, frames: Tensor) -> dict[str, float]:
    """Mean and spread of the latents of some frames, as "shift" and "scale" for the autoencoder's config.

    Args:
        vae: the finished autoencoder.
        frames: (p f 3 h w) uint8; 256 of them at most are read.
    """
    pictures = frames.flatten(0, 1)
    picks = torch.linspace(0, len(pictures) - 1, min(len(pictures), 256)).long().unique()
    parts = [
        vae.encode(to_signed(pictures[part.to(pictures.device)])).latent_dist.mean.float()
        for part in picks.split(32)
    ]
    latents = torch.cat(parts)
    logger.info("latents: mean %.3f, spread %.3f", latents.mean(), latents.std())
    return {"scale": 1 / max(latents.std().item(), 1e-6), "shift": latents.mean().item()}
