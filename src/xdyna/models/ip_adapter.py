"""Cross-attention to text tokens and, beside them, to image tokens (IP-Adapter-plus; spec.md 1.2).

::

    out = to_out(attend(q, to_k text, to_v text) + attend(q, to_k_ip image, to_v_ip image))
"""

from __future__ import annotations

from torch import Tensor, nn

from xdyna.errors import InputError
from xdyna.models.attention import Attention, Context, attend


class TokenAttention(Attention):
    """Cross-attention of every frame of a clip to the clip's tokens (fixture iii).

    Args:
        channels: width of the map.
        heads: number of heads.
        source_channels: width of the tokens.
        image_tokens: how many of the last tokens come from the image encoder and have keys and values of
            their own; 0 for text only. A clip with no more tokens than that has no text.

    Raises:
        OptionError: heads do not divide channels.
    """

    def __init__(self, channels: int, heads: int, *, source_channels: int, image_tokens: int) -> None:
        super().__init__(channels, heads, source_channels=source_channels)
        self.image_tokens = image_tokens
        if image_tokens:
            self.to_k_ip = nn.Linear(source_channels, channels, bias=False)
            self.to_v_ip = nn.Linear(source_channels, channels, bias=False)

    def forward(self, tokens: Tensor, context: Context) -> Tensor:
        """((b f) n c), normalised -> ((b f) n c).

        Raises:
            InputError: `context.tokens` is None or has too few tokens.
        """
        source = context.tokens
        if source is None or source.shape[1] < max(1, self.image_tokens):
            raise InputError(
                "encoder_hidden_states",
                f"this network needs text tokens and then {self.image_tokens} image tokens, "
                f"got {'none' if source is None else source.shape[1]} in all",
                "Give both encoders, or ready embeddings",
            )
        # one set of keys for all frames of a clip, so the frames' queries stand side by side
        query = self.to_q(tokens).unflatten(0, (-1, context.frames)).flatten(1, 2)
        words = source.shape[1] - self.image_tokens
        text, image = source[:, :words], source[:, words:]
        parts = []
        if words:
            parts.append(attend(query, self.to_k(text), self.to_v(text), heads=self.heads))
        if self.image_tokens:
            parts.append(attend(query, self.to_k_ip(image), self.to_v_ip(image), heads=self.heads))
        return self.to_out[0](sum(parts[1:], parts[0])).view_as(tokens)
