"""The gated activation of feed-forwards: a fused operator (see `fused.py`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xdyna.models.fused import load_kernels


@torch.library.custom_op("xdyna::geglu", mutates_args=())
def _geglu(x: Tensor) -> Tensor:
    return load_kernels().geglu(x)


@_geglu.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], x.shape[-1] // 2))


@torch.library.custom_op("xdyna::geglu_gradient", mutates_args=())
def _geglu_gradient(dy: Tensor, x: Tensor) -> Tensor:
    return load_kernels().geglu_gradient(dy.to(x.dtype).contiguous(), x)


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
