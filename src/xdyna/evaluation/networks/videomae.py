"""VideoMAE-v2, ViT-g, fine-tuned on Something-Something v2: the features of cd-FVD (evaluation.md 2.3)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xdyna.errors import InputError

DEPTH, WIDTH, HEADS, HIDDEN, CLASSES = 40, 1408, 16, 6144, 174
FRAMES, SIZE, TUBELET, PATCH = 16, 224, 2, 14
TOKENS = (FRAMES // TUBELET) * (SIZE // PATCH) ** 2

_EPS = 1e-6
_BLOCK = re.compile(r"(?:^|\.)blocks\.(\d+)\.")


class VideoMAE(nn.Module):
    """A plain transformer on tubes of 2 x 14 x 14 pixels.

    Args:
        depth: number of blocks; 40 in the published file.
        width: of a token; heads, hidden: of the attention and the feed-forward layer; classes: of the head,
            which is held because the file has it.
    """

    def __init__(
        self,
        depth: int = DEPTH,
        *,
        width: int = WIDTH,
        heads: int = HEADS,
        hidden: int = HIDDEN,
        classes: int = CLASSES,
    ) -> None:
        super().__init__()
        self.width = width
        self.patch_embed = Tubes(width)
        self.blocks = nn.ModuleList(Block(width, heads, hidden) for _ in range(depth))
        self.fc_norm = nn.LayerNorm(width, eps=_EPS)
        self.head = nn.Linear(width, classes)

    def forward(self, clips: Tensor) -> Tensor:
        """Features: the norm of the mean token.

        Args:
            clips: (b 3 16 224 224), RGB in [0, 1] (no mean, no deviation).

        Returns:
            (b width): 1408 for the published file.

        Raises:
            InputError: another number or size of frames; the position table is for these.
        """
        if clips.shape[1:] != (3, FRAMES, SIZE, SIZE):
            raise InputError(
                "clip",
                f"{clips.shape[2]} frames of {clips.shape[3]}x{clips.shape[4]}",
                f"VideoMAE takes {FRAMES} frames of {SIZE}x{SIZE}",
            )
        tokens = self.patch_embed(clips)
        tokens = tokens + positions(TOKENS, self.width).to(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        return self.fc_norm(tokens.mean(dim=1))


class Tubes(nn.Module):
    """Cuts a clip into tubes and projects each to a token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        size = (TUBELET, PATCH, PATCH)
        self.proj = nn.Conv3d(3, width, size, stride=size)

    def forward(self, clips: Tensor) -> Tensor:
        """(b 3 t h w) -> (b n width), tokens ordered by time, then row, then column."""
        return self.proj(clips).flatten(2).transpose(1, 2)


class Block(nn.Module):
    """Attention and feed-forward, each behind its norm and around a shortcut."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=_EPS)
        self.mlp = FeedForward(width, hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        """(b n width) -> (b n width)."""
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class Attention(nn.Module):
    """Attention whose queries and values have a bias and whose keys have none."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(b n width) -> (b n width)."""
        batch, number, width = tokens.shape
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(tokens, self.qkv.weight, bias)
        # (b n 3*width) -> three of (b heads n width/heads)
        query, key, value = qkv.view(batch, number, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, number, width))


class FeedForward(nn.Module):
    """Two linear layers around an exact GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(b n width) -> (b n width)."""
        return self.fc2(F.gelu(self.fc1(tokens)))


@lru_cache(maxsize=2)
def positions(tokens: int, width: int) -> Tensor:
    """The fixed sinusoid added to the tokens; no file holds it.

    Returns:
        (tokens width) float32: sines in even, cosines in odd columns, of place / 10000^(2 floor(j/2) / width).
    """
    column = np.arange(width)
    angle = np.arange(tokens)[:, None] / np.power(10000.0, 2 * (column // 2) / width)
    table = np.where(column % 2 == 0, np.sin(angle), np.cos(angle))
    return torch.from_numpy(table.astype(np.float32))


def depth_of(names: Iterable[str]) -> int:
    """How many blocks a file's parameter names tell of; 0 for none."""
    return max((int(found[1]) + 1 for name in names if (found := _BLOCK.search(name))), default=0)
