"""Fused operations: what a GPU does in one pass over memory instead of several, each beside its plain twin.

The kernels (Triton, `kernels`) are operators of their own in PyTorch: they know their gradients, can be recorded in
CUDA graphs, checkpointed and compiled, need no lasting state, and give the same bits every time. They take and give
half precision, or float32, and compute in float32 inside. Whoever calls them asks `fits` first and otherwise does the
plain thing, so that nothing here is needed on a CPU or without Triton.

=================== ================================================================== ==============================
operator            of                                                                 instead of
=================== ================================================================== ==============================
`clip_norm`         group norm over a clip's frames, then SiLU if wanted; a shift of   copies to another layout and
                    channels before it if wanted                                       back, a norm, an activation
`token_norm`        layer norm; a shift before and a code of time after if wanted      a kernel made for long rows
`add_bias`          a bias for each channel, then SiLU if wanted; its gradient's sums  slow sums over n, h and w
`bias_gradient`     nothing forward; the sums alone                                    the same, after a product
`add_residual`      (in `fused_layers.py`) a map, a bias and another map              two additions
`add_places`        (in `fused_layers.py`) tokens of places added to their map         an addition out of order
`geglu`             (in `gated.py`) a feed-forward's gated activation                  slices, GELU, product, pieces
                                                                                       put together again
`short_attention`   (in `short_attention.py`) attention within many short sequences    kernels made for long ones
=================== ================================================================== ==============================
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

logger = logging.getLogger(__name__)

FUSING = ("never", "half", "always")
"""Where the kernels are used on a GPU: nowhere, on half precision, on float32 too."""
AUTO_FUSING = "half"
"""What "auto" stands for: on an H200 1.4 times as fast as without, in the same error (docs/benchmarks.md)."""
WIDEST_TOKEN = 4096
"""Channels above which a layer norm is left to PyTorch, whose kernel suits long rows."""
FEWEST_SUMMED = 1 << 16
"""Numbers below which PyTorch's own sum does as well."""


@functools.cache
def kernels_available(device_type: str) -> bool:
    """Whether Triton can run on a kind of device: "cuda", or "cpu" under Triton's interpreter (for tests).

    Found out by trying, once: besides Triton it takes a C compiler and a driver that fits. Where it cannot, that is
    logged, and everything goes its plain way.
    """
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if device_type != "cuda" and not (device_type == "cpu" and interpreted):
        return False
    if importlib.util.find_spec("triton") is None:
        logger.warning("fused kernels need Triton, which is not installed: pip install triton")
        return False
    try:
        found = load_kernels().column_sums(torch.ones(2, 16, device=device_type))
        works = found.tolist() == [2.0] * 16
    except Exception as error:  # Triton, its compiler and CUDA each have exceptions of their own
        logger.warning("fused kernels cannot run here, plain ones are used: %s", error)
        return False
    if not works:
        logger.warning("fused kernels compute wrongly here, plain ones are used")
    return works


def fits(x: Tensor, fusing: str) -> bool:
    """Whether the kernels may take a tensor of this dtype on this device.

    Args:
        x: what they would read.
        fusing: one of `FUSING`.
    """
    half = x.dtype in (torch.float16, torch.bfloat16)
    wanted = fusing == "always" or (fusing == "half" and half)
    return (
        wanted and (half or x.dtype == torch.float32) and x.numel() > 0 and kernels_available(x.device.type)
    )


def defers(x: Tensor, fusing: str) -> bool:
    """Whether what is to be added to x may be left to kernels that read it next, or be added in place.

    The one switch of everything that saves passes over memory at the price of gradients: on where the kernels fit and
    nobody wants gradients. Neither `torch.compile`, which fuses additions itself, nor autocast gets there.

    Args:
        x: what would be added to.
        fusing: one of `FUSING`.
    """
    wanted = torch.is_grad_enabled() or torch.compiler.is_compiling()
    # last of all: devices without kernels may not know autocast
    return not wanted and fits(x, fusing) and not torch.is_autocast_enabled(x.device.type)


def in_channels_last(x: Tensor) -> bool:
    """Whether a map (n c h w) has its channels side by side in memory."""
    return x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)


def load_kernels() -> Any:
    """The package that is made of Triton, imported when a kernel is to run and not before."""
    from xdyna.models import kernels

    return kernels


# -- group norm ---------------------------------------------------------------------------------------------------


@torch.library.custom_op("xdyna::clip_norm", mutates_args=())
def _clip_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    frames: int,
    silu: bool,
    before: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    return load_kernels().clip_norm(
        x, weight, bias, groups=groups, eps=eps, frames=frames, silu=silu, before=before
    )


@_clip_norm.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    frames: int,
    silu: bool,
    before: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    mean = x.new_empty((x.shape[0] // frames, groups), dtype=torch.float32)
    return torch.empty_like(x), mean, torch.empty_like(mean)


@torch.library.custom_op("xdyna::clip_norm_gradient", mutates_args=())
def _clip_norm_gradient(
    dy: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor, frames: int, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    dy = dy.to(x.dtype).contiguous(memory_format=torch.channels_last)
    dx, of_weight, of_bias = load_kernels().clip_norm_gradient(
        dy, x, mean, rstd, weight, bias, frames=frames, silu=silu
    )
    return dx, _like(of_weight, weight), _like(of_bias, bias)


@_clip_norm_gradient.register_fake
def _(
    dy: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor, frames: int, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias)


def _keep_clip_norm(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, _groups, _eps, ctx.frames, ctx.silu, before = inputs
    refuse_gradients(before)
    ctx.save_for_backward(x, output[1], output[2], weight, bias)
    ctx.mark_non_differentiable(output[1], output[2])
    ctx.set_materialize_grads(False)


def _clip_norm_backward(ctx: Any, dy: Tensor, _mean: Any, _rstd: Any) -> tuple[Tensor | None, ...]:
    gradients = _clip_norm_gradient(dy, *ctx.saved_tensors, ctx.frames, ctx.silu)
    return *gradients, None, None, None, None, None


_clip_norm.register_autograd(_clip_norm_backward, setup_context=_keep_clip_norm)


def clip_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    groups: int,
    eps: float,
    frames: int = 1,
    silu: bool = False,
    before: Tensor | None = None,
) -> Tensor:
    """Group norm with statistics over all frames of a clip, then SiLU if wanted.

    Args:
        x: ((b f) c h w), channels_last, of a dtype and device that `fits`.
        weight, bias: (c), any float dtype.
        groups: groups of channels.
        eps: added to the variance.
        frames: f.
        silu: whether SiLU follows.
        before: (b c) or (c), any float dtype, added to x's channels first; without gradients only.

    Returns:
        ((b f) c h w), channels_last, x's dtype.

    Raises:
        RuntimeError: `before` where gradients are wanted.
    """
    before = None if before is None else before.contiguous()
    return _clip_norm(x, weight, bias, groups, eps, frames, silu, before)[0]


def refuse_gradients(before: Tensor | None) -> None:
    """Raise RuntimeError if something is added before an operator, all of which is for where nobody wants gradients."""
    if before is not None:
        raise RuntimeError("what a fused operator adds first has no gradient: add it by itself in training")


# -- layer norm ---------------------------------------------------------------------------------------------------


@torch.library.custom_op("xdyna::token_norm", mutates_args=())
def _token_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    before: Tensor | None = None,
    code: Tensor | None = None,
) -> Tensor:
    return load_kernels().token_norm(x, weight, bias, eps=eps, before=before, code=code)


@_token_norm.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    before: Tensor | None = None,
    code: Tensor | None = None,
) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("xdyna::token_norm_gradient", mutates_args=())
def _token_norm_gradient(dy: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    dx, of_weight, of_bias = load_kernels().token_norm_gradient(
        dy.to(x.dtype).contiguous(), x, weight, eps=eps
    )
    return dx, _like(of_weight, weight), _like(of_bias, weight)


@_token_norm_gradient.register_fake
def _(dy: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)


def _keep_token_norm(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _bias, ctx.eps, before, _code = inputs
    refuse_gradients(before)
    ctx.save_for_backward(x, weight)


def _token_norm_backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    return *_token_norm_gradient(dy, x, weight, ctx.eps), None, None, None


_token_norm.register_autograd(_token_norm_backward, setup_context=_keep_token_norm)


def token_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    eps: float,
    before: Tensor | None = None,
    code: Tensor | None = None,
) -> Tensor:
    """Layer norm over the last axis, with what stands around it.

    Args:
        x: (... c), contiguous, c at most `WIDEST_TOKEN`, of a dtype and device that `fits`; (... f c) with a code.
        weight, bias: (c), any float dtype.
        eps: added to the variance.
        before: (c), any float dtype, added to x first; without gradients only.
        code: (f c), any float dtype, added to what is normalised; it gets no gradient.

    Returns:
        x's shape and dtype.

    Raises:
        RuntimeError: `before` where gradients are wanted.
    """
    return _token_norm(x, weight, bias, eps, before, None if code is None else code.contiguous())


# -- biases -------------------------------------------------------------------------------------------------------


@torch.library.custom_op("xdyna::add_bias", mutates_args=())
def _add_bias(x: Tensor, bias: Tensor, silu: bool) -> Tensor:
    return load_kernels().add_bias(x, bias, silu=silu)


@_add_bias.register_fake
def _(x: Tensor, bias: Tensor, silu: bool) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("xdyna::bias_silu_gradient", mutates_args=())
def _bias_silu_gradient(dy: Tensor, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    dy = dy.to(x.dtype).contiguous(memory_format=torch.channels_last)
    dx, of_bias = load_kernels().bias_silu_gradient(dy, x, bias)
    return dx, _like(of_bias, bias)


@_bias_silu_gradient.register_fake
def _(dy: Tensor, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(bias)


@torch.library.custom_op("xdyna::column_sums", mutates_args=())
def _column_sums(matrix: Tensor) -> Tensor:
    return load_kernels().column_sums(matrix)


@_column_sums.register_fake
def _(matrix: Tensor) -> Tensor:
    return matrix.new_empty(matrix.shape[1], dtype=torch.float32)


def _keep_bias(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, bias, ctx.silu = inputs
    # without SiLU the gradient passes through as it is: what was added to need not be kept
    ctx.save_for_backward(*((x, bias) if ctx.silu else (bias,)))


def _add_bias_backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    if not ctx.silu:
        (bias,) = ctx.saved_tensors
        return dy, sums_over_places(dy, axis=1).to(bias.dtype), None
    return *_bias_silu_gradient(dy, *ctx.saved_tensors), None


_add_bias.register_autograd(_add_bias_backward, setup_context=_keep_bias)


def add_bias(x: Tensor, bias: Tensor, *, silu: bool = False) -> Tensor:
    """(n c h w), channels_last, plus a bias (c), then SiLU if wanted -> (n c h w), channels_last, x's dtype."""
    return _add_bias(x, bias, silu)


def sums_over_places(gradient: Tensor, *, axis: int) -> Tensor:
    """Sums over all axes but the channels' -> (c), float32.

    Args:
        gradient: any number of axes.
        axis: the channels'.
    """
    matrix = gradient.movedim(axis, -1)
    if matrix.numel() >= FEWEST_SUMMED and matrix.is_contiguous() and fits(matrix, "always"):
        return _column_sums(matrix.view(-1, matrix.shape[-1]))
    return matrix.sum(tuple(range(matrix.ndim - 1)), dtype=torch.float32)


class _BiasGradient(torch.autograd.Function):
    """What comes in goes out; what comes back is summed up for the bias."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, bias: Tensor) -> Tensor:
        ctx.dtype = bias.dtype
        return value.view_as(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradient, sums_over_places(gradient, axis=-1).to(ctx.dtype)


def bias_gradient(value: Tensor, bias: Tensor) -> Tensor:
    """What a product with the bias already in it gives, made to give the bias its gradient.

    Args:
        value: (... c), computed with `bias.detach()`.
        bias: (c).

    Returns:
        `value`, not to be changed in place.
    """
    return _BiasGradient.apply(value, bias)


def _like(sums: Tensor, parameter: Tensor) -> Tensor:
    """Float32 sums in a parameter's dtype."""
    return sums.to(parameter.dtype)
