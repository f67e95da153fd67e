"""The gated activation of feed-forwards: one half of the channels times GELU of the other."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from xdyna.models.kernels.tiles import tile_of


@triton.jit
def _share_below(value):
    """How much of a normal distribution lies below a value, which is what GELU multiplies it by."""
    return 0.5 * (1.0 + tl.erf(value * 0.7071067811865476))


@triton.jit
def _geglu(
    x, y, bias, rows, channels, BIAS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    lines = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    mask = (lines < rows)[:, None] & (columns < channels)[None, :]
    place = lines.to(tl.int64)[:, None] * channels + columns[None, :]
    both = lines.to(tl.int64)[:, None] * (2 * channels) + columns[None, :]
    value = tl.load(x + both, mask=mask, other=0.0).to(tl.float32)
    gate = tl.load(x + both + channels, mask=mask, other=0.0).to(tl.float32)
    if BIAS:
        inside = columns < channels
        value += tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)[None, :]
        gate += tl.load(bias + channels + columns, mask=inside, other=0.0).to(tl.float32)[None, :]
    tl.store(y + place, (value * gate * _share_below(gate)).to(y.dtype.element_ty), mask=mask)


@triton.jit
def _geglu_gradient(x, dy, dx, rows, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    lines = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    mask = (lines < rows)[:, None] & (columns < channels)[None, :]
    place = lines.to(tl.int64)[:, None] * channels + columns[None, :]
    both = lines.to(tl.int64)[:, None] * (2 * channels) + columns[None, :]
    value = tl.load(x + both, mask=mask, other=0.0).to(tl.float32)
    gate = tl.load(x + both + channels, mask=mask, other=0.0).to(tl.float32)
    gradient = tl.load(dy + place, mask=mask, other=0.0).to(tl.float32)
    share = _share_below(gate)
    density = 0.3989422804014327 * tl.exp(-0.5 * gate * gate)
    tl.store(dx + both, (gradient * gate * share).to(dx.dtype.element_ty), mask=mask)
    of_gate = gradient * value * (share + gate * density)
    tl.store(dx + both + channels, of_gate.to(dx.dtype.element_ty), mask=mask)


def geglu(x: Tensor, bias: Tensor | None) -> Tensor:
    """(... 2c) contiguous, and a bias (2c) to be added first or None -> (... c)."""
    channels = x.shape[-1] // 2
    rows, y = x.numel() // (2 * channels), x.new_empty((*x.shape[:-1], channels))
    columns, lines = tile_of(channels)
    with torch.cuda.device_of(x):
        _geglu[(triton.cdiv(rows, lines), triton.cdiv(channels, columns))](
            x, y, x if bias is None else bias, rows, channels,
            BIAS=bias is not None, ROWS=lines, COLUMNS=columns,
        )  # fmt: skip
    return y


def geglu_gradient(dy: Tensor, x: Tensor) -> Tensor:
    """The gradient of x; `dy` (... c) contiguous."""
    channels, dx = dy.shape[-1], torch.empty_like(x)
    rows = dy.numel() // channels
    columns, lines = tile_of(channels)
    with torch.cuda.device_of(x):
        _geglu_gradient[(triton.cdiv(rows, lines), triton.cdiv(channels, columns))](
            x, dy, dx, rows, channels, ROWS=lines, COLUMNS=columns
        )
    return dx
