"""Attention over tokens, the transformer block and the spatial transformer of the denoiser.

Shapes: pictures are `((b f) c h w)`, frames folded into the batch; tokens are `((b f) n c)` with n = h w,
row by row. Nothing here repeats keys, values or text over frames: queries of all frames of a clip are laid
side by side and meet the one set of keys of their batch item. (`reference_attention` alone must repeat keys: there a
frame's own tokens and the reference's share one softmax.)
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers.models.attention import FeedForward
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from xdyna.errors import OptionError
from xdyna.models import fused
from xdyna.models.fused_layers import add_maps
from xdyna.models.norms import ClipGroupNorm, TokenNorm
from xdyna.models.residual_stream import ResidualStream, Sum, is_product

LARGEST_GRID = 65_535
"""Most (batch item, head) pairs in one attention call: CUDA's limit on a grid's second and third side.

The official code dies above it ("invalid configuration"; spec.md 12.16), so larger batches go in pieces.
"""


LONG = 1024
"""Queries from which cuDNN's attention is preferred on GPUs where it is the quickest."""
BACKENDS = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
"""PyTorch's kernels for attention in order of preference on such a GPU; the first that can do a call does it."""


def quickest_attention(x: Tensor) -> contextlib.AbstractContextManager[None]:
    """Inside, attention over long sequences takes cuDNN's kernel first where that is quickest.

    That is on GPUs from Hopper on, in half precision, without gradients: at 7,168 tokens and heads of 40 channels
    cuDNN's took 7.7 ms on an H200, PyTorch's own choice (flash) 13.3 (issue 5). Elsewhere nothing changes.

    Args:
        x: a tensor of the device and dtype that attention will see.
    """
    if x.is_cuda and x.dtype != torch.float32 and not torch.is_grad_enabled() and _is_hopper(x.device):
        return sdpa_kernel(BACKENDS, set_priority=True)
    return contextlib.nullcontext()


@functools.cache
def _is_hopper(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device)[0] >= 9


@dataclass(frozen=True)
class Context:
    """What every layer of one forward pass may read.

    Attributes:
        frames: frames of a clip, the reference's included.
        time: (b d) time embedding, before the layers' own SiLU and projection.
        tokens: (b n d) text and image tokens, or None in a network without cross-attention.
        reference_scale: strength of the reference: one number, or (b) one for each clip.
        temporal: False skips the motion modules (training on single pictures).
        reference_frames: how many frames at the front of a clip are the reference, 1 or 0.
        reference_features: what a `ReferenceNet` saw, a (b n c) for each self-attention, or None.
    """

    frames: int
    time: Tensor
    tokens: Tensor | None = None
    reference_scale: float | Tensor = 1.0
    temporal: bool = True
    reference_frames: int = 1
    reference_features: Sequence[Tensor] | None = None


def attend(
    query: Tensor, key: Tensor, value: Tensor, *, heads: int, key_bias: Tensor | None = None
) -> Tensor:
    """Multi-head attention without dropout, scaled by 1/sqrt(channels / heads).

    Args:
        query: (b n c) with c a multiple of `heads`.
        key: (b m c).
        value: (b m c).
        heads: number of heads; channels are laid out head by head.
        key_bias: (b m) added to the logits of each key, for all queries alike; None adds nothing.

    Returns:
        (b n c)
    """
    pieces = max(1, LARGEST_GRID // heads)
    if len(query) > pieces:
        return torch.cat(
            [
                attend(
                    query[part],
                    key[part],
                    value[part],
                    heads=heads,
                    key_bias=None if key_bias is None else key_bias[part],
                )
                for part in (slice(begin, begin + pieces) for begin in range(0, len(query), pieces))
            ]
        )
    q, k, v = (tokens.unflatten(-1, (heads, -1)).transpose(1, 2) for tokens in (query, key, value))
    if key_bias is None:
        with quickest_attention(query) if query.shape[1] >= LONG else contextlib.nullcontext():
            mixed = F.scaled_dot_product_attention(q, k, v)
    else:
        mask = key_bias.to(q.dtype)[:, None, None]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return mixed.transpose(1, 2).flatten(2)


def check_heads(channels: int, heads: int) -> None:
    """Raise OptionError unless `channels` can be split into `heads` equal heads."""
    if heads < 1 or channels % heads:
        raise OptionError(
            "heads",
            f"{channels} channels cannot be split into {heads} heads",
            "attention_head_dim and motion_heads count heads: choose divisors of every level's width",
        )


def position_code(height: int, width: int, channels: int, *, like: Tensor) -> Tensor:
    """Fixed two-dimensional sinusoidal code: the first half of the channels tells the row, the second the column.

    One step on the map is two radians at the highest frequency, so that neighbours differ clearly.

    Args:
        height: rows.
        width: columns.
        channels: length of the code.
        like: tensor whose device and dtype the result has.

    Returns:
        (height * width, channels), values in [-1, 1].
    """
    half = channels // 2

    def line(length: int, size: int) -> Tensor:
        number = (size + 1) // 2
        rate = torch.exp(-math.log(10_000.0) / number * torch.arange(number, device=like.device))
        angle = 2.0 * torch.arange(length, device=like.device)[:, None] * rate
        return torch.cat([angle.sin(), angle.cos()], dim=-1)[:, :size].to(like.dtype)

    rows = line(height, half)[:, None].expand(-1, width, -1)
    columns = line(width, channels - half)[None].expand(height, -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


def placed(tokens: Tensor, gain: Tensor | None, *, size: tuple[int, int]) -> Tensor:
    """(n h*w c) plus `gain` times the position code of a map of `size` = (h, w); as they are without a gain."""
    if gain is None:
        return tokens
    return tokens + (gain * position_code(*size, tokens.shape[-1], like=tokens)).to(tokens.dtype)


def make_gain(position_gain: float | None) -> nn.Parameter | None:
    """The learnable gain of a position code that starts at `position_gain`, or None for no code."""
    return None if position_gain is None else nn.Parameter(torch.tensor(float(position_gain)))


class Attention(nn.Module):
    """The projections that all attentions of the network share, under Stable Diffusion's names.

    What an attention adds to its block's tokens is a sum of projections: each says in `add_to` of which.

    Args:
        channels: width of the queries and of the result.
        heads: number of heads.
        source_channels: width of what keys and values are made of; by default `channels`.
    """

    def __init__(self, channels: int, heads: int, *, source_channels: int | None = None) -> None:
        super().__init__()
        check_heads(channels, heads)
        source_channels = source_channels or channels
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(source_channels, channels, bias=False)
        self.to_v = nn.Linear(source_channels, channels, bias=False)
        # index 1 is Stable Diffusion's dropout, whose rate is 0: the list keeps the name `to_out.0`
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, tokens: Tensor, *given: Any, **named: Any) -> Tensor:
        """What `add_to` adds, by itself: (n m c) -> (n m c)."""
        total = Sum()
        self.add_to(total, tokens, *given, **named)
        return total.total()

    def add_to(self, total: Sum, tokens: Tensor, *given: Any, **named: Any) -> None:
        """Add what comes of normalised tokens (n m c) to a sum of as many."""
        raise NotImplementedError


class SelfAttention(Attention):
    """Spatial self-attention of every frame with itself, as in Stable Diffusion; no reference.

    Args:
        channels: width of the tokens.
        heads: number of heads.
        position_gain: None as in Stable Diffusion; a number adds a position code times a learnable gain to
            queries and keys.
    """

    position_gain: nn.Parameter | None

    def __init__(self, channels: int, heads: int, *, position_gain: float | None = None) -> None:
        super().__init__(channels, heads)
        self.register_parameter("position_gain", make_gain(position_gain))

    def add_to(self, total: Sum, tokens: Tensor, context: Context, *, size: tuple[int, int]) -> None:
        """Of ((b f) n c), normalised, of a map of `size` = (h, w)."""
        where = placed(tokens, self.position_gain, size=size)
        mixed = attend(self.to_q(where), self.to_k(where), self.to_v(tokens), heads=self.heads)
        total.add(self.to_out[0], mixed)


@dataclass(frozen=True)
class AttentionOptions:
    """How the attentions of one level are built; see `XDynaUNet` for the meaning.

    Attributes:
        heads: number of heads.
        cross_attention_dim: width of text and image tokens; None builds no cross-attention.
        image_tokens: how many of the last tokens are image tokens; 0 builds plain cross-attention.
        reference: which way the reference enters, a key of `references.REFERENCES`, or None for a network
            without.
        position_gain: initial gain of the position code, or None for no code (official).
        adapter_query_init: "query" or "key": what the adapter's query projection starts as a copy of.
        text_tokens: False builds cross-attention to image tokens only.
    """

    heads: int
    cross_attention_dim: int | None
    image_tokens: int
    reference: str | None
    position_gain: float | None
    adapter_query_init: str
    text_tokens: bool = True


class TransformerBlock(nn.Module):
    """x += attn1(LN x); x += attn2(LN x); x += GEGLU-FF(LN x) (spec.md 1).

    Args:
        channels: width of the tokens.
        attn1: self-attention with the reference; called as `attn1(tokens, context, size=(h, w))`.
        attn2: cross-attention, called as `attn2(tokens, context)`; None leaves it and its norm out.

    `forward` and `after` leave what they are given as it is; `run` and `run_after` do the same in place.
    """

    def __init__(self, channels: int, *, attn1: nn.Module, attn2: nn.Module | None) -> None:
        super().__init__()
        self.norm1 = TokenNorm(channels)
        self.attn1 = attn1
        if attn2 is not None:
            self.norm2 = TokenNorm(channels)
        self.attn2 = attn2
        self.norm3 = TokenNorm(channels)
        self.ff = FeedForward(channels, activation_fn="geglu")

    def forward(self, tokens: Tensor, context: Context, *, size: tuple[int, int]) -> Tensor:
        """Tokens ((b f) n c) of a map of `size` = (h, w) -> the same shape."""
        return self.after(tokens + self.attn1(self.norm1(tokens), context, size=size), context)

    def after(self, tokens: Tensor, context: Context) -> Tensor:
        """What follows self-attention: cross-attention and the feed-forward."""
        if self.attn2 is not None:
            tokens = tokens + self.attn2(self.norm2(tokens), context)
        return fed_forward(tokens, self.norm3, self.ff)

    def run(self, stream: ResidualStream, context: Context, *, size: tuple[int, int]) -> None:
        """`forward` of the tokens of a stream, in place."""
        cast(Attention, self.attn1).add_to(stream, stream.normed(self.norm1), context, size=size)
        self.run_after(stream, context)

    def run_after(self, stream: ResidualStream, context: Context) -> None:
        """`after`, in place."""
        if self.attn2 is not None:
            cast(Attention, self.attn2).add_to(stream, stream.normed(self.norm2), context)
        feed_forward(stream, self.norm3, self.ff)


MOST_HIDDEN = 1 << 26
"""Numbers that a feed-forward holds inside at once where no gradients are wanted (128 MiB in half precision)."""


def fed_forward(tokens: Tensor, norm: nn.Module, layer: nn.Module) -> Tensor:
    """tokens + layer(norm(tokens)), (n m c) each; a piece of n at a time where the layer's inside would be large.

    Its gated activation is eight times as wide as the tokens: at full size more than all else together.
    """
    pieces = math.ceil(8 * tokens.numel() / MOST_HIDDEN)
    if pieces < 2 or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return tokens + layer(norm(tokens))
    output = torch.empty_like(tokens)
    for part, into in zip(tokens.chunk(pieces), output.chunk(pieces), strict=True):
        torch.add(part, layer(norm(part)), out=into)
    return output


def feed_forward(stream: ResidualStream, norm: nn.Module, layer: nn.Module) -> None:
    """`fed_forward` in place."""
    *inner, last = cast(FeedForward, layer).net
    parts = stream.parts(math.ceil(8 * stream.total().numel() / MOST_HIDDEN))
    for part in parts:
        hidden = part.normed(norm)
        for step in inner:
            hidden = step(hidden)
        part.add(last, hidden)
        del hidden
    stream.pending = parts[0].pending


class SpatialTransformer(nn.Module):
    """Norm, 1x1 convolution, one transformer block on every frame, 1x1 convolution, + input (fixture xii).

    The norm's statistics are those of single frames, unlike the resnets' (spec.md 1).

    Args:
        channels: width of the map.
        block: its transformer block.
        groups: groups of the norm.

    Attributes:
        fusing: as `norms.ClipGroupNorm`'s, for sums taken in place.
    """

    fusing = "never"

    def __init__(self, channels: int, *, block: TransformerBlock, groups: int) -> None:
        super().__init__()
        self.norm = ClipGroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([block])
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """((b f) c h w) -> the same shape; x stays as it is."""
        size = (x.shape[2], x.shape[3])
        if self._in_place(x):
            stream = ResidualStream.projected(map_to_tokens(self.norm(x)), self.proj_in)
            for block in self.transformer_blocks:
                cast(TransformerBlock, block).run(stream, context, size=size)
            return self._ended(x, stream)
        tokens = map_to_tokens(self.proj_in(self.norm(x)))
        for block in self.transformer_blocks:
            tokens = block(tokens, context, size=size)
        return x + self.proj_out(tokens.unflatten(1, size).permute(0, 3, 1, 2))

    def begin(self, x: Tensor, context: Context) -> Tensor:
        """What `forward` does before it reads tokens: ((b f) c h w) -> its tokens after self-attention ((b f) n c)."""
        block, size = cast(TransformerBlock, self.transformer_blocks[0]), (x.shape[2], x.shape[3])
        if self._in_place(x):
            stream = ResidualStream.projected(map_to_tokens(self.norm(x)), self.proj_in)
            cast(Attention, block.attn1).add_to(stream, stream.normed(block.norm1), context, size=size)
            tokens = stream.total()
            return tokens if stream.pending is None else tokens.add_(stream.pending)
        tokens = map_to_tokens(self.proj_in(self.norm(x)))
        return tokens + block.attn1(block.norm1(tokens), context, size=size)

    def finish(self, x: Tensor, tokens: Tensor, context: Context) -> Tensor:
        """The rest of it, of its input and what `begin` gave; neither is changed, since others may read them."""
        block = cast(TransformerBlock, self.transformer_blocks[0])
        if self._in_place(x):
            stream = ResidualStream(tokens.clone())
            block.run_after(stream, context)
            return self._ended(x, stream)
        tokens = block.after(tokens, context)
        return x + self.proj_out(tokens.unflatten(1, (x.shape[2], x.shape[3])).permute(0, 3, 1, 2))

    def _in_place(self, x: Tensor) -> bool:
        return fused.defers(x, self.fusing) and is_product(self.proj_in) and is_product(self.proj_out)

    def _ended(self, x: Tensor, stream: ResidualStream) -> Tensor:
        """The last projection added to the map, which stays as it is."""
        change, bias = stream.handed_over(self.proj_out)
        return add_maps((x, None), (change.unflatten(1, (x.shape[2], -1)).permute(0, 3, 1, 2), bias))


def map_to_tokens(x: Tensor) -> Tensor:
    """(n c h w) -> (n h*w c), row by row: a view where the map is channels_last, one copy where it is not."""
    return x.permute(0, 2, 3, 1).contiguous().flatten(1, 2)
