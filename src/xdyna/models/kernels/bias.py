"""Biases of channels, with SiLU or another map added after if wanted, and the sums that are their gradients."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from xdyna.models.kernels.tiles import PROGRAMS, gradient_before_silu, steps_of, tile_of


@triton.jit
def _add_bias(
    x, residual, y, bias, rows,
    CHANNELS: tl.constexpr, SILU: tl.constexpr, RESIDUAL: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    lines = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < CHANNELS
    mask = (lines < rows)[:, None] & inside[None, :]
    place = lines.to(tl.int64)[:, None] * CHANNELS + columns[None, :]
    value = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
    value += tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)[None, :]
    if SILU:
        value = value * tl.sigmoid(value)
    if RESIDUAL:
        value += tl.load(residual + place, mask=mask, other=0.0).to(tl.float32)
    tl.store(y + place, value.to(y.dtype.element_ty), mask=mask)


@triton.jit
def _bias_gradient(
    x, dy, dx, bias, sums, rows,
    CHANNELS: tl.constexpr, SILU: tl.constexpr, STEPS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Sums of the gradient over each chunk; with SiLU, of the gradient before it, which is written too."""
    program = tl.program_id(0)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < CHANNELS
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in range(STEPS):
        lines = (program * STEPS + step) * ROWS + tl.arange(0, ROWS)
        mask = (lines < rows)[:, None] & inside[None, :]
        place = lines.to(tl.int64)[:, None] * CHANNELS + columns[None, :]
        gradient = tl.load(dy + place, mask=mask, other=0.0).to(tl.float32)
        if SILU:
            value = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
            value += tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)[None, :]
            gradient = gradient_before_silu(gradient, value)
            tl.store(dx + place, gradient.to(dx.dtype.element_ty), mask=mask)
        total += gradient
    tl.store(sums + program * CHANNELS + columns, tl.sum(total, 0), mask=inside)


def add_bias(
    x: Tensor, bias: Tensor, *, silu: bool = False, residual: Tensor | None = None, into: Tensor | None = None
) -> Tensor:
    """(n c h w) channels_last, and as `residual` another such map or none -> the same, in `into` (maybe x) if given."""
    channels, y = x.shape[1], torch.empty_like(x) if into is None else into
    rows = x.numel() // channels
    columns, lines = tile_of(channels)
    with torch.cuda.device_of(x):
        _add_bias[(triton.cdiv(rows, lines), triton.cdiv(channels, columns))](
            x, x if residual is None else residual, y, bias, rows,
            CHANNELS=channels, SILU=silu, RESIDUAL=residual is not None, ROWS=lines, COLUMNS=columns,
        )  # fmt: skip
    return y


def column_sums(matrix: Tensor) -> Tensor:
    """(n c) contiguous -> (c) float32."""
    return _bias_sums(matrix, matrix, matrix, matrix, silu=False)


def bias_silu_gradient(dy: Tensor, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x and, in float32, of the bias; `dy` and `x` (n c h w) channels_last."""
    dx = torch.empty_like(x)
    return dx, _bias_sums(x, dy, dx, bias, silu=True)


def _bias_sums(x: Tensor, dy: Tensor, dx: Tensor, bias: Tensor, *, silu: bool) -> Tensor:
    channels = dy.shape[1]
    rows = dy.numel() // channels
    columns, lines = tile_of(channels)
    steps = steps_of(rows, lines, PROGRAMS // triton.cdiv(channels, columns))
    programs = triton.cdiv(rows, steps * lines)
    sums = dy.new_empty((programs, channels), dtype=torch.float32)
    with torch.cuda.device_of(dy):
        _bias_gradient[(programs, triton.cdiv(channels, columns))](
            x, dy, dx, bias, sums, rows,
            CHANNELS=channels, SILU=silu, STEPS=steps, ROWS=lines, COLUMNS=columns,
        )  # fmt: skip
    return sums.sum(0)
