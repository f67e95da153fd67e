"""What a run's inputs are to the networks: the reference's latent, tokens of texts and pictures, features."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from xdyna.runs import Encoded, Prepared
from xdyna.sampling import Tokens, encode_image, encode_reference, encode_text

logger = logging.getLogger(__name__)


def encode_inputs(
    parts: Any,
    prepared: Prepared,
    generator: torch.Generator,
    *,
    tokens: Tokens | None = None,
    negative: Tokens | None = None,
) -> Encoded:
    """The reference as the networks read it: latent, tokens of both guidance halves, features.

    Args:
        parts: the `XDynaPipeline` whose encoders run.
        prepared: the inputs.
        generator: of the posterior's noise.
        tokens, negative: ready tokens in place of the encoders'.
    """
    with parts.loaded("vae"):
        reference = encode_reference(parts.vae, prepared.reference, generator=generator)
    if tokens is None and (parts.text_encoder is not None or parts.image_encoder is not None):
        texts: tuple[Tensor | None, ...] = (None, None)
        images: tuple[Tensor | None, ...] = (None, None)
        if parts.text_encoder is not None:
            with parts.loaded("text_encoder"):
                prompts = (prepared.options.prompt, prepared.options.negative_prompt)
                texts = tuple(encode_text(parts.tokenizer, parts.text_encoder, text) for text in prompts)
        if parts.image_encoder is not None:
            with parts.loaded("image_encoder", "image_projector"):
                images = encode_image(
                    parts.image_processor, parts.image_encoder, parts.image_projector, prepared.picture
                )
        tokens, negative = Tokens(texts[0], images[0]), Tokens(texts[1], images[1])
    elif prepared.options.prompt or prepared.options.negative_prompt:
        logger.warning("%s reads no text: the prompts are not used", parts.name)
    tokens = tokens or Tokens()
    if parts.reference_encoder is not None and tokens.image is None:
        with parts.loaded("reference_encoder"):
            image = parts.reference_encoder(reference.to(parts.reference_encoder.dtype)).float()
        tokens = replace(tokens, image=image)
        negative = None if negative is None else replace(negative, image=image)
    features = None
    if parts.reference_net is not None:
        text = None if tokens.text is None else tokens.text.to(parts.device, parts.reference_net.dtype)
        with parts.loaded("reference_net"):
            features = parts.reference_net(reference.to(parts.reference_net.dtype), text)
    return Encoded(reference, tokens, negative, features)
