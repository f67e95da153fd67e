"""The Resampler: a picture's CLIP features to a few image tokens (IP-Adapter-plus; spec.md 2, fixture vi)."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from xdyna.models.attention import attend


class ResamplerAttention(nn.Module):
    """Queries attend to the features and to themselves; no projection has a bias."""

    def __init__(self, dim: int, *, dim_head: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, dim_head * heads, bias=False)
        self.to_kv = nn.Linear(dim, 2 * dim_head * heads, bias=False)
        self.to_out = nn.Linear(dim_head * heads, dim, bias=False)

    def forward(self, features: Tensor, queries: Tensor) -> Tensor:
        """(b n d), (b q d) -> (b q d)."""
        queries = self.norm2(queries)
        key, value = self.to_kv(torch.cat([self.norm1(features), queries], dim=1)).chunk(2, dim=-1)
        return self.to_out(attend(self.to_q(queries), key, value, heads=self.heads))


class Resampler(ModelMixin, ConfigMixin):
    """Perceiver resampler with the names of `ip-adapter-plus_sd15.bin`'s "image_proj".

    Args:
        dim: width inside.
        depth: number of layers.
        dim_head: width of a head.
        heads: number of heads.
        num_queries: image tokens that come out.
        embedding_dim: width of the image encoder's features.
        output_dim: width of the tokens, the UNet's `cross_attention_dim`.
        ff_mult: width of the feed-forward over `dim`.
    """

    @register_to_config
    def __init__(
        self,
        dim: int = 768,
        depth: int = 4,
        dim_head: int = 64,
        heads: int = 12,
        num_queries: int = 16,
        embedding_dim: int = 1280,
        output_dim: int = 768,
        ff_mult: int = 4,
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(1, num_queries, dim) / dim**0.5)
        self.proj_in = nn.Linear(embedding_dim, dim)
        self.proj_out = nn.Linear(dim, output_dim)
        self.norm_out = nn.LayerNorm(output_dim)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    ResamplerAttention(dim, dim_head=dim_head, heads=heads),
                    nn.Sequential(
                        nn.LayerNorm(dim),
                        nn.Linear(dim, dim * ff_mult, bias=False),
                        nn.GELU(),
                        nn.Linear(dim * ff_mult, dim, bias=False),
                    ),
                ]
            )
            for _ in range(depth)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Image tokens of a picture.

        Args:
            features: (b n embedding_dim), the image encoder's last hidden state but one.

        Returns:
            (b num_queries output_dim)
        """
        features = self.proj_in(features)
        queries = self.latents.to(features.dtype).expand(len(features), -1, -1)
        for layer in self.layers:
            attention, feed_forward = layer.children()
            queries = queries + attention(features, queries)
            queries = queries + feed_forward(queries)
        return self.norm_out(self.proj_out(queries))
