"""Tokens of places, frame by frame, added to the map of the frames."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from xdyna.models.kernels.tiles import tile_of


@triton.jit
def _add_places(
    x, y, bias, rows, frames, height, width, of_clip, of_frame, of_line, of_place,
    CHANNELS: tl.constexpr, BIAS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    lines = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < CHANNELS
    mask = (lines < rows)[:, None] & inside[None, :]
    value = tl.load(x + lines.to(tl.int64)[:, None] * CHANNELS + columns[None, :], mask=mask, other=0.0)
    value = value.to(tl.float32)
    if BIAS:
        value += tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)[None, :]
    frame, place = lines % frames, lines // frames
    line, place = place // width, place % width
    clip, line = line // height, line % height
    target = clip.to(tl.int64) * of_clip + frame.to(tl.int64) * of_frame + line * of_line + place * of_place
    target = target[:, None] + columns[None, :]
    value += tl.load(y + target, mask=mask, other=0.0).to(tl.float32)
    tl.store(y + target, value.to(y.dtype.element_ty), mask=mask)


def add_places(into: Tensor, tokens: Tensor, bias: Tensor | None) -> None:
    """Tokens ((b h w) f c), contiguous, and a bias (c) added to `into` (b f c h w), whose channels are side by side."""
    _, frames, channels, height, width = into.shape
    of_clip, of_frame, _, of_line, of_place = into.stride()
    rows = tokens.numel() // channels
    columns, lines = tile_of(channels)
    with torch.cuda.device_of(tokens):
        _add_places[(triton.cdiv(rows, lines), triton.cdiv(channels, columns))](
            tokens, into, tokens if bias is None else bias,
            rows, frames, height, width, of_clip, of_frame, of_line, of_place,
            CHANNELS=channels, BIAS=bias is not None, ROWS=lines, COLUMNS=columns,
        )  # fmt: skip
