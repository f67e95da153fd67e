"""Cross-attention tokens from text and picture (spec.md 2 and 5)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def encode_text(tokenizer: Any, encoder: Any, prompt: str) -> Tensor:
    """CLIP's last hidden state of a prompt padded to the tokenizer's length, no attention mask.

    Returns:
        (1 77 d) float32.
    """
    ids = tokenizer(
        prompt,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    return encoder(ids.to(next(encoder.parameters()).device))[0].float()


def encode_image(processor: Any, encoder: Any, projector: Any, picture: np.ndarray) -> tuple[Tensor, Tensor]:
    """Image tokens of the whole reference picture, and those of the unconditional half.

    The unconditional half sees zeros in place of the *normalised* pixels, a mean-coloured picture, as the
    official code does; not zero tokens.

    Args:
        processor: CLIP's image processor.
        encoder: CLIP's vision tower; its second last hidden state is read.
        projector: the IP-Adapter-plus `Resampler`.
        picture: (h w 3) uint8, uncropped.

    Returns:
        Two (1 16 d) float32 tensors: conditional, unconditional.
    """
    from PIL import Image

    weight = next(encoder.parameters())
    pixels = processor(images=Image.fromarray(picture), return_tensors="pt").pixel_values
    pixels = pixels.to(weight.device, weight.dtype)

    def project(values: Tensor) -> Tensor:
        features = encoder(values, output_hidden_states=True).hidden_states[-2]
        return projector(features).float()

    return project(pixels), project(torch.zeros_like(pixels))
