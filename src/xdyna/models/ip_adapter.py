"""Cross-attention to text tokens and, beside them, to image tokens (IP-Adapter-plus; spec.md 1.2).

::

    out = to_out(attend(q, to_k text, to_v text) + s * attend(q, to_k_ip image, to_v_ip image))

Where the reference enters another way, image tokens come beside it and s = 1, as published. Under
`reference="ip-adapter"` they are all that is known of the reference: then s is `reference_scale`, and `to_v_ip` starts
at zero, so that a new network is the one without.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xdyna.errors import InputError
from xdyna.models.attention import Attention, Context, attend
from xdyna.models.residual_stream import Sum, scaled


class TokenAttention(Attention):
    """Cross-attention of every frame of a clip to the clip's tokens (fixture iii).

    Args:
        channels: width of the map.
        heads: number of heads.
        source_channels: width of the tokens.
        image_tokens: how many of the last tokens come from the image encoder and have keys and values of
            their own; 0 for text only. A clip with no more tokens than that has no text.
        text_tokens: False builds no keys and values for text: all tokens are image tokens.
        is_reference: the image tokens are the reference: `reference_scale` acts on them, and their values start at
            zero.

    Raises:
        OptionError: heads do not divide channels.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        source_channels: int,
        image_tokens: int,
        text_tokens: bool = True,
        is_reference: bool = False,
    ) -> None:
        super().__init__(channels, heads, source_channels=source_channels)
        self.image_tokens, self.text_tokens, self.is_reference = image_tokens, text_tokens, is_reference
        if not text_tokens:
            del self.to_k, self.to_v
        if image_tokens:
            self.to_k_ip = nn.Linear(source_channels, channels, bias=False)
            self.to_v_ip = nn.Linear(source_channels, channels, bias=False)
            if is_reference:
                nn.init.zeros_(self.to_v_ip.weight)

    def add_to(self, total: Sum, tokens: Tensor, context: Context) -> None:
        """Of ((b f) n c), normalised.

        Raises:
            InputError: `context.tokens` is None or has too few tokens, or text for a network that reads none.
        """
        source = context.tokens
        got = 0 if source is None else source.shape[1]
        if (
            source is None
            or got < max(1, self.image_tokens)
            or (got > self.image_tokens and not self.text_tokens)
        ):
            wanted = "text tokens and then " if self.text_tokens else "no text and "
            raise InputError(
                "encoder_hidden_states",
                f"this network needs {wanted}{self.image_tokens} image tokens, got {got or 'none'} in all",
                "Give both encoders, or ready embeddings" if self.text_tokens else "Give image tokens only",
            )
        # one set of keys for all frames of a clip, so the frames' queries stand side by side
        query = self.to_q(tokens).unflatten(0, (-1, context.frames)).flatten(1, 2)
        words = source.shape[1] - self.image_tokens
        text, image = source[:, :words], source[:, words:]
        parts = []
        if words:
            parts.append(attend(query, self.to_k(text), self.to_v(text), heads=self.heads))
        if self.image_tokens:
            seen = attend(query, self.to_k_ip(image), self.to_v_ip(image), heads=self.heads)
            parts.append(scaled(seen, context.reference_scale) if self.is_reference else seen)
        del query
        mixed = parts.pop(0)
        for part in parts:
            mixed = mixed + part if torch.is_grad_enabled() else mixed.add_(part)
        total.add(self.to_out[0], mixed.view_as(tokens))
