"""Attention within many short sequences: as many whole ones to a tile as fit, masked from each other."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS_OF_TILE = 64
"""Rows of a tile: the longest sequence there may be."""


@triton.jit
def _attention_tile(
    q, k, v, total, tokens, channels, width, scale,
    SEQUENCES: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What both passes need of a tile of whole sequences and one head: places, mask, q, k, v, weights."""
    number = tl.arange(0, ROWS)
    # by int32: a tile begins at program x (sequences in a tile) x tokens
    first = tl.program_id(0) * (SEQUENCES * tokens)
    valid = (number < SEQUENCES * tokens) & (first + number < total)
    column = tl.arange(0, WIDTH)
    mask = valid[:, None] & (column < width)[None, :]
    place = (first + number).to(tl.int64)[:, None] * channels + tl.program_id(1) * width + column[None, :]
    query = tl.load(q + place, mask=mask, other=0.0)
    key = tl.load(k + place, mask=mask, other=0.0)
    value = tl.load(v + place, mask=mask, other=0.0)
    logits = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale
    sequence = number // tokens
    together = (sequence[:, None] == sequence[None, :]) & valid[None, :]
    logits = tl.where(together, logits, -1e30)
    weights = tl.exp(logits - tl.max(logits, 1)[:, None])
    weights = tl.where(together, weights, 0.0)
    # rows beyond the last sequence see nothing: they divide by one, and are not stored
    weights = weights / tl.where(valid, tl.sum(weights, 1), 1.0)[:, None]
    return place, mask, query, key, value, weights


@triton.jit
def _attention(
    q, k, v, out, total, tokens, channels, width, scale,
    SEQUENCES: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    place, mask, _query, _key, value, weights = _attention_tile(
        q, k, v, total, tokens, channels, width, scale, SEQUENCES, ROWS, WIDTH, PRECISION
    )
    mixed = tl.dot(weights.to(value.dtype), value, input_precision=PRECISION)
    tl.store(out + place, mixed.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _attention_gradient(
    q, k, v, do, dq, dk, dv, total, tokens, channels, width, scale,
    SEQUENCES: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    place, mask, query, key, value, weights = _attention_tile(
        q, k, v, total, tokens, channels, width, scale, SEQUENCES, ROWS, WIDTH, PRECISION
    )
    gradient = tl.load(do + place, mask=mask, other=0.0)
    of_value = tl.dot(tl.trans(weights.to(value.dtype)), gradient, input_precision=PRECISION)
    tl.store(dv + place, of_value.to(dv.dtype.element_ty), mask=mask)
    of_weights = tl.dot(gradient, tl.trans(value), input_precision=PRECISION)
    of_logits = weights * (of_weights - tl.sum(weights * of_weights, 1)[:, None]) * scale
    of_logits = of_logits.to(query.dtype)
    of_query = tl.dot(of_logits, key, input_precision=PRECISION)
    tl.store(dq + place, of_query.to(dq.dtype.element_ty), mask=mask)
    of_key = tl.dot(tl.trans(of_logits), query, input_precision=PRECISION)
    tl.store(dk + place, of_key.to(dk.dtype.element_ty), mask=mask)


def attention(q: Tensor, k: Tensor, v: Tensor, *, heads: int) -> Tensor:
    """(n f c), contiguous, f at most `ROWS_OF_TILE` -> (n f c)."""
    grid, sizes, scale, options = _attention_call(q, heads)
    out = torch.empty_like(q)
    with torch.cuda.device_of(q):
        _attention[grid](q, k, v, out, *sizes, scale, **options)
    return out


def attention_gradient(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, *, heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    grid, sizes, scale, options = _attention_call(q, heads)
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    with torch.cuda.device_of(q):
        _attention_gradient[grid](q, k, v, do, dq, dk, dv, *sizes, scale, **options)
    return dq, dk, dv


def _attention_call(
    q: Tensor, heads: int
) -> tuple[tuple[int, int], tuple[int, int, int, int], float, dict[str, int | str]]:
    number, tokens, channels = q.shape
    width, sequences = channels // heads, max(1, ROWS_OF_TILE // tokens)
    options: dict[str, int | str] = {
        "SEQUENCES": sequences,
        "ROWS": ROWS_OF_TILE,
        "WIDTH": max(16, triton.next_power_of_2(width)),
        "PRECISION": "ieee" if q.dtype == torch.float32 else "tf32",
    }
    grid = (triton.cdiv(number, sequences), heads)
    return grid, (number * tokens, tokens, channels, width), width**-0.5, options
