"""Attention within many short sequences, such as the frames at each place of a map: a fused operator (see `fused.py`).

PyTorch's attention kernels are made for long sequences: with 16 tokens, most of a tile is empty. Here a tile holds as
many whole sequences as fit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xdyna.models.fused import fits, load_kernels

LONGEST_SEQUENCE = 64
"""Tokens above which attention is left to PyTorch."""
WIDEST_HEAD = {torch.float16: 128, torch.bfloat16: 128, torch.float32: 32}
"""Channels of a head above which it is left to PyTorch: the tile would not fit."""


@torch.library.custom_op("xdyna::short_attention", mutates_args=())
def _short_attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    return load_kernels().attention(query, key, value, heads=heads)


@_short_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    return torch.empty_like(query)


@torch.library.custom_op("xdyna::short_attention_gradient", mutates_args=())
def _short_attention_gradient(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    gradient = gradient.to(query.dtype).contiguous()
    return load_kernels().attention_gradient(gradient, query, key, value, heads=heads)


@_short_attention_gradient.register_fake
def _(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _keep_attention(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    query, key, value, ctx.heads = inputs
    ctx.save_for_backward(query, key, value)


def _short_attention_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return *_short_attention_gradient(gradient, *ctx.saved_tensors, ctx.heads), None


_short_attention.register_autograd(_short_attention_backward, setup_context=_keep_attention)


def short_attention(query: Tensor, key: Tensor, value: Tensor, *, heads: int) -> Tensor:
    """Attention of every sequence with itself, as `attention.attend` computes it.

    Args:
        query, key, value: (n f c), of one dtype, that `fits`; f at most `LONGEST_SEQUENCE`, c / heads at most
            its dtype's `WIDEST_HEAD`.
        heads: number of heads.

    Returns:
        (n f c)
    """
    return _short_attention(query.contiguous(), key.contiguous(), value.contiguous(), heads)


def fits_short_attention(query: Tensor, key: Tensor, heads: int, fusing: str) -> bool:
    """Whether `short_attention` can take these (n f c) and (m g c)."""
    return (
        query.shape == key.shape
        and query.dtype == key.dtype
        and query.shape[1] <= LONGEST_SEQUENCE
        and fits(query, fusing)
        and query.shape[2] // heads <= WIDEST_HEAD[query.dtype]
    )
