"""Group norm over clips, with SiLU if wanted."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from xdyna.models.kernels.tiles import PROGRAMS, gradient_before_silu, steps_of, tile_of


@triton.jit
def _moments(
    x, before, means, squares, rows, channels, chunks, between,
    BEFORE: tl.constexpr, STEPS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Of each chunk and channel: the mean, and the sum of squared distances from it."""
    program = tl.program_id(0)
    clip, part = program // chunks, program % chunks
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < channels
    begin = part * STEPS * ROWS
    end = tl.minimum(begin + STEPS * ROWS, rows)
    x += clip.to(tl.int64) * rows * channels
    # sums of distances from the chunk's first row: sums of the values themselves would cancel where the mean is large
    first = tl.load(x + begin * channels + columns, mask=inside, other=0.0).to(tl.float32)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    square = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in range(STEPS):
        lines = begin + step * ROWS + tl.arange(0, ROWS)
        mask = (lines < rows)[:, None] & inside[None, :]
        value = tl.load(x + lines[:, None] * channels + columns[None, :], mask=mask, other=0.0).to(tl.float32)
        value = tl.where(mask, value - first[None, :], 0.0)
        total += value
        square += value * value
    count = (end - begin).to(tl.float32)
    sums = tl.sum(total, 0)
    mean = sums / count
    place = program.to(tl.int64) * channels + columns
    if BEFORE:  # the same for all of a channel: it moves the mean and nothing else
        first += tl.load(before + clip * between + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(means + place, first + mean, mask=inside)
    tl.store(squares + place, tl.sum(square, 0) - sums * mean, mask=inside)


@triton.jit
def _combine_moments(
    means, squares, mean, rstd, rows, channels, groups, chunk, chunks, eps,
    CHUNKS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Mean and 1 / deviation of a clip's group, from those of its chunks and channels (Chan et al. 1979)."""
    program = tl.program_id(0)
    clip, group = program // groups, program % groups
    width = channels // groups
    parts, column = tl.arange(0, CHUNKS), tl.arange(0, WIDTH)
    mask = (parts < chunks)[:, None] & (column < width)[None, :]
    place = (clip.to(tl.int64) * chunks + parts[:, None]) * channels + group * width + column[None, :]
    count = tl.minimum(rows - parts * chunk, chunk).to(tl.float32)[:, None]
    part = tl.load(means + place, mask=mask, other=0.0)
    number = (rows * width).to(tl.float32)
    middle = tl.sum(tl.sum(tl.where(mask, count * part, 0.0), 1), 0) / number
    apart = part - middle
    spread = tl.load(squares + place, mask=mask, other=0.0) + count * apart * apart
    variance = tl.sum(tl.sum(tl.where(mask, spread, 0.0), 1), 0) / number
    tl.store(mean + program, middle)
    tl.store(rstd + program, 1.0 / tl.sqrt(tl.maximum(variance, 0.0) + eps))


@triton.jit
def _normalise(
    x, before, y, mean, rstd, weight, bias, rows, channels, groups, chunks, between,
    BEFORE: tl.constexpr, SILU: tl.constexpr, STEPS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    clip, part = program // chunks, program % chunks
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < channels
    of_group = clip * groups + columns // (channels // groups)
    middle = tl.load(mean + of_group, mask=inside, other=0.0)
    if BEFORE:
        middle -= tl.load(before + clip * between + columns, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(rstd + of_group, mask=inside, other=0.0)
    scale = scale * tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    offset = clip.to(tl.int64) * rows * channels
    for step in range(STEPS):
        lines = (part * STEPS + step) * ROWS + tl.arange(0, ROWS)
        mask = (lines < rows)[:, None] & inside[None, :]
        place = offset + lines[:, None] * channels + columns[None, :]
        value = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
        value = (value - middle[None, :]) * scale[None, :] + shift[None, :]
        if SILU:
            value = value * tl.sigmoid(value)
        tl.store(y + place, value.to(y.dtype.element_ty), mask=mask)


@triton.jit
def _gradient_sums(
    x, dy, mean, rstd, weight, bias, plain, times, rows, channels, groups, chunks,
    SILU: tl.constexpr, STEPS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Of each chunk and channel: the sum of the gradient, and of the gradient times the normed value."""
    program = tl.program_id(0)
    clip, part = program // chunks, program % chunks
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < channels
    of_group = clip * groups + columns // (channels // groups)
    middle = tl.load(mean + of_group, mask=inside, other=0.0)
    scale = tl.load(rstd + of_group, mask=inside, other=0.0)
    gain = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    offset = clip.to(tl.int64) * rows * channels
    first = tl.zeros((ROWS, COLUMNS), tl.float32)
    second = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in range(STEPS):
        lines = (part * STEPS + step) * ROWS + tl.arange(0, ROWS)
        mask = (lines < rows)[:, None] & inside[None, :]
        place = offset + lines[:, None] * channels + columns[None, :]
        normed = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
        normed = (normed - middle[None, :]) * scale[None, :]
        gradient = tl.load(dy + place, mask=mask, other=0.0).to(tl.float32)
        if SILU:
            gradient = gradient_before_silu(gradient, normed * gain[None, :] + shift[None, :])
        first += gradient
        second += gradient * normed
    place = program.to(tl.int64) * channels + columns
    tl.store(plain + place, tl.sum(first, 0), mask=inside)
    tl.store(times + place, tl.sum(second, 0), mask=inside)


@triton.jit
def _combine_gradient_sums(
    plain, times, weight, of_clip_plain, of_clip_times, of_group_plain, of_group_times,
    rows, channels, groups, chunks, CHUNKS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Sums over a clip's chunks; and of its groups, weighted by the channels' gains, the means."""
    program = tl.program_id(0)
    clip, group = program // groups, program % groups
    width = channels // groups
    parts, column = tl.arange(0, CHUNKS), tl.arange(0, WIDTH)
    inside = column < width
    mask = (parts < chunks)[:, None] & inside[None, :]
    place = (clip.to(tl.int64) * chunks + parts[:, None]) * channels + group * width + column[None, :]
    first = tl.sum(tl.load(plain + place, mask=mask, other=0.0), 0)
    second = tl.sum(tl.load(times + place, mask=mask, other=0.0), 0)
    channel = group * width + column
    tl.store(of_clip_plain + clip * channels + channel, first, mask=inside)
    tl.store(of_clip_times + clip * channels + channel, second, mask=inside)
    gain = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    number = (rows * width).to(tl.float32)
    tl.store(of_group_plain + program, tl.sum(first * gain, 0) / number)
    tl.store(of_group_times + program, tl.sum(second * gain, 0) / number)


@triton.jit
def _input_gradient(
    x, dy, dx, mean, rstd, weight, bias, of_group_plain, of_group_times, rows, channels, groups, chunks,
    SILU: tl.constexpr, STEPS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    clip, part = program // chunks, program % chunks
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < channels
    of_group = clip * groups + columns // (channels // groups)
    middle = tl.load(mean + of_group, mask=inside, other=0.0)
    scale = tl.load(rstd + of_group, mask=inside, other=0.0)
    first = tl.load(of_group_plain + of_group, mask=inside, other=0.0)
    second = tl.load(of_group_times + of_group, mask=inside, other=0.0)
    gain = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    offset = clip.to(tl.int64) * rows * channels
    for step in range(STEPS):
        lines = (part * STEPS + step) * ROWS + tl.arange(0, ROWS)
        mask = (lines < rows)[:, None] & inside[None, :]
        place = offset + lines[:, None] * channels + columns[None, :]
        normed = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
        normed = (normed - middle[None, :]) * scale[None, :]
        gradient = tl.load(dy + place, mask=mask, other=0.0).to(tl.float32)
        if SILU:
            gradient = gradient_before_silu(gradient, normed * gain[None, :] + shift[None, :])
        gradient = scale[None, :] * (gradient * gain[None, :] - first[None, :] - normed * second[None, :])
        tl.store(dx + place, gradient.to(dx.dtype.element_ty), mask=mask)


def clip_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    groups: int,
    eps: float,
    frames: int,
    silu: bool,
    before: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """((b f) c h w) channels_last -> the same, and (b, groups) float32 means and 1 / deviations.

    `before`, what is added to x first, is (b c) or (c), contiguous.
    """
    clips, rows, channels = _as_clips(x, frames)
    columns, lines, steps, chunks = _cut(clips, rows, channels, width=channels // groups)
    means, squares = x.new_empty((2, clips * chunks, channels), dtype=torch.float32)
    mean, rstd = (x.new_empty((clips, groups), dtype=torch.float32) for _ in range(2))
    y = torch.empty_like(x)
    grid = (clips * chunks, triton.cdiv(channels, columns))
    added, between = (weight, 0) if before is None else (before, channels * (before.ndim - 1))
    with torch.cuda.device_of(x):
        _moments[grid](
            x, added, means, squares, rows, channels, chunks, between,
            BEFORE=before is not None, STEPS=steps, ROWS=lines, COLUMNS=columns,
        )  # fmt: skip
        _combine_moments[(clips * groups,)](
            means, squares, mean, rstd, rows, channels, groups, steps * lines, chunks, eps,
            CHUNKS=triton.next_power_of_2(chunks), WIDTH=triton.next_power_of_2(channels // groups),
        )  # fmt: skip
        _normalise[grid](
            x, added, y, mean, rstd, weight, bias, rows, channels, groups, chunks, between,
            BEFORE=before is not None, SILU=silu, STEPS=steps, ROWS=lines, COLUMNS=columns,
        )  # fmt: skip
    return y, mean, rstd


def clip_norm_gradient(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    frames: int,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias, the last two float32; `dy` and `x` channels_last."""
    clips, rows, channels = _as_clips(x, frames)
    groups = mean.shape[1]
    columns, lines, steps, chunks = _cut(clips, rows, channels, width=channels // groups)
    plain, times = x.new_empty((2, clips * chunks, channels), dtype=torch.float32)
    of_clips = x.new_empty((2, clips, channels), dtype=torch.float32)
    of_groups = x.new_empty((2, clips, groups), dtype=torch.float32)
    dx = torch.empty_like(x)
    grid = (clips * chunks, triton.cdiv(channels, columns))
    with torch.cuda.device_of(x):
        _gradient_sums[grid](
            x, dy, mean, rstd, weight, bias, plain, times, rows, channels, groups, chunks,
            SILU=silu, STEPS=steps, ROWS=lines, COLUMNS=columns,
        )  # fmt: skip
        _combine_gradient_sums[(clips * groups,)](
            plain, times, weight, of_clips[0], of_clips[1], of_groups[0], of_groups[1],
            rows, channels, groups, chunks,
            CHUNKS=triton.next_power_of_2(chunks), WIDTH=triton.next_power_of_2(channels // groups),
        )  # fmt: skip
        _input_gradient[grid](
            x, dy, dx, mean, rstd, weight, bias, of_groups[0], of_groups[1],
            rows, channels, groups, chunks, SILU=silu, STEPS=steps, ROWS=lines, COLUMNS=columns,
        )  # fmt: skip
    return dx, of_clips[1].sum(0), of_clips[0].sum(0)


def _as_clips(x: Tensor, frames: int) -> tuple[int, int, int]:
    pictures, channels, height, width = x.shape
    return pictures // frames, frames * height * width, channels


def _cut(clips: int, rows: int, channels: int, *, width: int) -> tuple[int, int, int, int]:
    """Columns and lines of a tile, tiles of a chunk, and chunks of a clip, for groups of `width` channels."""
    columns, lines = tile_of(channels)
    most = max(16, 8192 // triton.next_power_of_2(width))
    steps = steps_of(rows, lines, min(most, PROGRAMS // (clips * triton.cdiv(channels, columns))))
    return columns, lines, steps, triton.cdiv(rows, steps * lines)
