"""Layer norm over tokens."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from xdyna.models.kernels.tiles import TILE, steps_of

PROGRAMS = 512
"""Programs of the pass that sums over tokens."""


@triton.jit
def _token_norm(
    x, y, weight, bias, before, code, rows, channels, period, eps,
    BEFORE: tl.constexpr, CODE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    lines = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    inside = columns < channels
    mask = (lines < rows)[:, None] & inside[None, :]
    place = lines.to(tl.int64)[:, None] * channels + columns[None, :]
    value = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
    if BEFORE:
        value += tl.load(before + columns, mask=inside, other=0.0).to(tl.float32)[None, :]
    apart = tl.where(mask, value - (tl.sum(value, 1) / channels)[:, None], 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(apart * apart, 1) / channels + eps)
    gain = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    value = apart * scale[:, None] * gain[None, :] + shift[None, :]
    if CODE:
        coded = (lines % period)[:, None] * channels + columns[None, :]
        value += tl.load(code + coded, mask=mask, other=0.0).to(tl.float32)
    tl.store(y + place, value.to(y.dtype.element_ty), mask=mask)


@triton.jit
def _token_norm_gradient(
    x, dy, dx, weight, plain, times, rows, channels, eps,
    STEPS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The input's gradient, and of each chunk and channel the two sums of `_gradient_sums`."""
    program = tl.program_id(0)
    columns = tl.arange(0, COLUMNS)
    inside = columns < channels
    gain = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    first = tl.zeros((ROWS, COLUMNS), tl.float32)
    second = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in range(STEPS):
        lines = (program * STEPS + step) * ROWS + tl.arange(0, ROWS)
        mask = (lines < rows)[:, None] & inside[None, :]
        place = lines.to(tl.int64)[:, None] * channels + columns[None, :]
        value = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
        apart = tl.where(mask, value - (tl.sum(value, 1) / channels)[:, None], 0.0)
        scale = 1.0 / tl.sqrt(tl.sum(apart * apart, 1) / channels + eps)
        normed = apart * scale[:, None]
        gradient = tl.load(dy + place, mask=mask, other=0.0).to(tl.float32)
        first += gradient
        second += gradient * normed
        gradient = gradient * gain[None, :]
        along = tl.sum(gradient, 1) / channels
        turning = tl.sum(gradient * normed, 1) / channels
        gradient = (gradient - along[:, None] - normed * turning[:, None]) * scale[:, None]
        tl.store(dx + place, gradient.to(dx.dtype.element_ty), mask=mask)
    tl.store(plain + program * channels + columns, tl.sum(first, 0), mask=inside)
    tl.store(times + program * channels + columns, tl.sum(second, 0), mask=inside)


def token_norm(
    x: Tensor, weight: Tensor, bias: Tensor, *, eps: float, before: Tensor | None, code: Tensor | None
) -> Tensor:
    """(... c) contiguous -> the same; `before` (c) and `code` (f c) contiguous."""
    channels = x.shape[-1]
    rows, y = x.numel() // channels, torch.empty_like(x)
    columns = triton.next_power_of_2(channels)
    lines = max(1, TILE // columns)
    with torch.cuda.device_of(x):
        _token_norm[(triton.cdiv(rows, lines),)](
            x, y, weight, bias, weight if before is None else before, weight if code is None else code,
            rows, channels, 1 if code is None else len(code), eps,
            BEFORE=before is not None, CODE=code is not None, ROWS=lines, COLUMNS=columns,
        )  # fmt: skip
    return y


def token_norm_gradient(
    dy: Tensor, x: Tensor, weight: Tensor, *, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias, the last two float32."""
    channels = x.shape[-1]
    rows, dx = x.numel() // channels, torch.empty_like(x)
    columns = triton.next_power_of_2(channels)
    lines = max(1, TILE // columns)
    steps = steps_of(rows, lines, PROGRAMS)
    programs = triton.cdiv(rows, steps * lines)
    sums = x.new_empty((2, programs, channels), dtype=torch.float32)
    with torch.cuda.device_of(x):
        _token_norm_gradient[(programs,)](
            x, dy, dx, weight, sums[0], sums[1], rows, channels, eps, STEPS=steps, ROWS=lines, COLUMNS=columns
        )
    return dx, sums[1].sum(0), sums[0].sum(0)
