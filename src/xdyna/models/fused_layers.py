"""Convolutions and linear layers that use the fused kernels, and sums of what they give.

Where nobody wants gradients (`fused.defers`), a convolution adds no bias in a pass of its own: `unbiased` hands
map and bias on, to a norm that adds it as it reads (`norms.ClipGroupNorm`) or to `add_maps`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xdyna.models import fused


class FusedConv2d(nn.Conv2d):
    """A convolution whose bias is added, and its gradient summed, by a kernel that suits channels_last."""

    fusing = "never"

    def forward(self, input: Tensor) -> Tensor:
        """(n c h w) -> (n d h w)."""
        if self.bias is None or not wanted(self, input):
            return super().forward(input)
        return biased(self._conv_forward(input, self.weight, None), self.bias, fusing=self.fusing)


class FusedLinear(nn.Linear):
    """A linear layer whose bias's gradient is summed by a kernel of its own."""

    fusing = "never"

    def forward(self, input: Tensor) -> Tensor:
        """(... c) -> (... d)."""
        learns = torch.is_grad_enabled() and self.bias is not None and self.bias.requires_grad
        if not learns or not wanted(self, input):
            return super().forward(input)
        return fused.bias_gradient(F.linear(input, self.weight, self.bias.detach()), self.bias)


def unbiased(conv: nn.Module, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """A convolution without its bias, and the bias, where kernels that follow may add it; else with it, and None.

    Args:
        conv: any convolution; only a fused one leaves its bias to others.
        x: (n c h w).

    Returns:
        (n d h w), and the (d) that is still to be added or None.
    """
    if isinstance(conv, FusedConv2d) and conv.bias is not None and fused.defers(x, conv.fusing):
        made = conv._conv_forward(x, conv.weight, None)
        if fused.in_channels_last(made):
            return made, conv.bias
        return made + conv.bias[:, None, None], None
    return conv(x), None


def add_maps(one: tuple[Tensor, Tensor | None], other: tuple[Tensor, Tensor | None]) -> Tensor:
    """The sum of two maps (n c h w), each with the bias (c) that it lacks or None: in one pass where a kernel can."""
    (x, of_x), (y, of_y) = one, other
    biases = [bias for bias in (of_x, of_y) if bias is not None]
    if not biases:
        return x + y
    bias = biases[0] if len(biases) == 1 else biases[0] + biases[1]
    if fused.in_channels_last(x) and fused.in_channels_last(y) and x.dtype == y.dtype:
        return add_residual(y, bias, x)
    return x + (y + bias.to(y.dtype)[:, None, None])


def biased(x: Tensor, bias: Tensor, *, fusing: str, silu: bool = False) -> Tensor:
    """(n c h w) plus a bias (c), then SiLU if wanted, x's dtype: by the fused kernel where it fits.

    x is a convolution's fresh result: without gradients it may be changed in place.
    """
    if fused.fits(x, fusing) and fused.in_channels_last(x):
        if torch.is_grad_enabled():
            return fused.add_bias(x, bias, silu=silu)
        _add_bias_within(x, bias, silu)
        return x
    x = x + bias.to(x.dtype)[:, None, None]
    return F.silu(x) if silu else x


def wanted(module: nn.Module, x: Tensor) -> bool:
    """Whether a module is to do without PyTorch's own way on this device."""
    return module.fusing != "never" and fused.kernels_available(x.device.type)


@torch.library.custom_op("xdyna::add_bias_within", mutates_args=("x",))
def _add_bias_within(x: Tensor, bias: Tensor, silu: bool) -> None:
    fused.load_kernels().add_bias(x, bias, silu=silu, into=x)


@_add_bias_within.register_fake
def _(x: Tensor, bias: Tensor, silu: bool) -> None:
    return


@torch.library.custom_op("xdyna::add_residual", mutates_args=())
def _add_residual(x: Tensor, bias: Tensor, residual: Tensor) -> Tensor:
    return fused.load_kernels().add_bias(x, bias, residual=residual)


@_add_residual.register_fake
def _(x: Tensor, bias: Tensor, residual: Tensor) -> Tensor:
    return torch.empty_like(x)


def _keep_bias(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.dtype = inputs[1].dtype


def _add_residual_backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
    return dy, fused.sums_over_places(dy, axis=1).to(ctx.dtype), dy


_add_residual.register_autograd(_add_residual_backward, setup_context=_keep_bias)


def add_residual(x: Tensor, bias: Tensor, residual: Tensor) -> Tensor:
    """x + bias + residual, summed in float32: (n c h w) channels_last, (c), and x's like -> x's like."""
    return _add_residual(x, bias, residual)


@torch.library.custom_op("xdyna::add_places", mutates_args=("into",))
def _add_places(into: Tensor, tokens: Tensor, bias: Tensor | None) -> None:
    fused.load_kernels().add_places(into, tokens, bias)


@_add_places.register_fake
def _(into: Tensor, tokens: Tensor, bias: Tensor | None) -> None:
    return


def add_places(into: Tensor, tokens: Tensor, bias: Tensor | None, *, fusing: str) -> None:
    """Add tokens of places to the map they were taken from, in place.

    Args:
        into: (b f c h w).
        tokens: ((b h w) f c).
        bias: (c), added as well, or None.
        fusing: as in `fused.fits`; the kernel is for channels that lie side by side, without gradients.
    """
    if fused.defers(into, fusing) and into.stride(2) == 1 and tokens.is_contiguous():
        _add_places(into, tokens, bias)
        return
    tokens = tokens if bias is None else tokens + bias.to(tokens.dtype)
    into.add_(tokens.unflatten(0, (len(into), -1, into.shape[-1])).permute(0, 3, 4, 1, 2))
