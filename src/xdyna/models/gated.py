"""The gated activation of feed-forwards: a fused operator (see `fused.py`)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from torch import Tensor, nn

from xdyna.models import fused
from xdyna.models.fused_layers import FusedLinear


@torch.library.custom_op("xdyna::geglu", mutates_args=())
def _geglu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    return fused.load_kernels().geglu(x, bias)


@_geglu.register_fake
def _(x: Tensor, bias: Tensor | None = None) -> Tensor:
    return x.new_empty((*x.shape[:-1], x.shape[-1] // 2))


@torch.library.custom_op("xdyna::geglu_gradient", mutates_args=())
def _geglu_gradient(dy: Tensor, x: Tensor) -> Tensor:
    return fused.load_kernels().geglu_gradient(dy.to(x.dtype).contiguous(), x)


@_geglu_gradient.register_fake
def _(dy: Tensor, x: Tensor) -> Tensor:
    return torch.empty_like(x)


def _keep_geglu(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, bias = inputs
    fused.refuse_gradients(bias)
    ctx.save_for_backward(x)


def _geglu_backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
    return _geglu_gradient(dy, ctx.saved_tensors[0]), None


_geglu.register_autograd(_geglu_backward, setup_context=_keep_geglu)


def geglu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """The first half of the channels times GELU of the second.

    Args:
        x: (... 2c), contiguous, of a dtype and device that `fits`.
        bias: (2c), any float dtype, added to x first; without gradients only.

    Returns:
        (... c)

    Raises:
        RuntimeError: a bias where gradients are wanted.
    """
    return _geglu(x, bias)


class FusedGEGLU(nn.Module):
    """diffusers' `GEGLU`, under its names: projection, gate and product without slices.

    Args:
        layer: whose projection is taken over.
    """

    fusing = "never"

    def __init__(self, layer: GEGLU) -> None:
        super().__init__()
        self.proj = layer.proj
        self.train(layer.training)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(... c) -> (... d)."""
        proj = self.proj
        if isinstance(proj, FusedLinear) and fused.defers(hidden_states, self.fusing):
            return geglu(F.linear(hidden_states, proj.weight), proj.bias)
        both = proj(hidden_states)
        if fused.fits(both, self.fusing) and both.is_contiguous():
            return geglu(both)
        value, gate = both.chunk(2, dim=-1)
        return value * F.gelu(gate)
