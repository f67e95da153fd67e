"""How kernels cut a matrix into tiles, and what several of them compute."""

from __future__ import annotations

import triton
import triton.language as tl

TILE = 2048
"""Elements of a tile: 16 for each thread of four warps."""
PROGRAMS = 2048
"""Programs that a pass over a map should have, about: several for each of a large GPU's 132 processors."""


@triton.jit
def gradient_before_silu(gradient, value):
    """The gradient of what SiLU was given, which is `value`."""
    share = tl.sigmoid(value)
    return gradient * share * (1.0 + value * (1.0 - share))


def tile_of(channels: int) -> tuple[int, int]:
    """Columns and lines of a tile: the widest of the tiles that waste little on columns beyond the last."""
    if channels <= 32:
        columns = triton.next_power_of_2(channels)
    else:
        waste = {size: triton.cdiv(channels, size) * size for size in (128, 64, 32)}
        columns = next(size for size, padded in waste.items() if padded <= 1.1 * min(waste.values()))
    return columns, TILE // columns


def steps_of(rows: int, lines: int, chunks: int) -> int:
    """Tiles of a chunk, for about so many chunks; a power of two, since each number is compiled by itself."""
    return triton.next_power_of_2(triton.cdiv(rows, lines * max(1, chunks)))
