"""The gated activation of feed-forwards: a fused operator (see `fused.py`)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from torch import Tensor, nn

from xdyna.models import fused


@torch.library.custom_op("xdyna::geglu", mutates_args=())
def _geglu(x: Tensor) -> Tensor:
    return fused.load_kernels().geglu(x)


@_geglu.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], x.shape[-1] // 2))


@torch.library.custom_op("xdyna::geglu_gradient", mutates_args=())
def _geglu_gradient(dy: Tensor, x: Tensor) -> Tensor:
    return fused.load_kernels().geglu_gradient(dy.to(x.dtype).contiguous(), x)


@_geglu_gradient.register_fake
def _(dy: Tensor, x: Tensor) -> Tensor:
    return torch.empty_like(x)


def _keep_geglu(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])


def _geglu_backward(ctx: Any, dy: Tensor) -> Tensor:
    return _geglu_gradient(dy, ctx.saved_tensors[0])


_geglu.register_autograd(_geglu_backward, setup_context=_keep_geglu)


def geglu(x: Tensor) -> Tensor:
    """(... 2c), contiguous, of a dtype and device that `fits` -> (... c): the first half times GELU of the second."""
    return _geglu(x)


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
        both = self.proj(hidden_states)
        if fused.fits(both, self.fusing) and both.is_contiguous():
            return geglu(both)
        value, gate = both.chunk(2, dim=-1)
        return value * F.gelu(gate)
