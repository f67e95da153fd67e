"""Norms that suit mixed precision training on a GPU: half precision in and out, statistics in float32.

Under autocast, PyTorch's own norms turn half precision into float32 and hand that on; its group norm copies
channels-last maps into another layout first, and a norm over a clip copies them twice more. Here torch.compile makes
one kernel for the statistics and one for the rest, for any size, in seconds. What is computed is the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class FusedGroupNorm(nn.GroupNorm):
    """A group norm over `frames` pictures at a time; stands for `nn.GroupNorm` and the denoiser's `ClipGroupNorm`."""

    def forward(self, input: Tensor, *, frames: int = 1) -> Tensor:
        """((b f) c h w) -> the same shape and dtype, laid out channels-last."""
        count, channels, height, width = input.shape
        # One layout and three plain axes, so that few compilations serve all sizes.
        places = input.permute(0, 2, 3, 1).contiguous().view(count // frames, -1, channels)
        with torch.autocast(input.device.type, enabled=False):
            # views, because a parameter's size is never dynamic
            weight, bias = self.weight.view(1, 1, -1), self.bias.view(1, 1, -1)
            output = _kernel(input.device.type)(places, weight, bias, self.num_groups, self.eps)
        return output.view(count, height, width, channels).permute(0, 3, 1, 2)


class HalfLayerNorm(nn.LayerNorm):
    """A layer norm that keeps its input's dtype under autocast."""

    def forward(self, input: Tensor) -> Tensor:
        """(... c) -> the same shape and dtype."""
        with torch.autocast(input.device.type, enabled=False):
            weight = None if self.weight is None else self.weight.to(input.dtype)
            bias = None if self.bias is None else self.bias.to(input.dtype)
            return functional.layer_norm(input, self.normalized_shape, weight, bias, self.eps)


def group_norm(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
    """Norm of (b p c) over the places p and the channels of each group, scaled and shifted by (1 1 c).

    Sums go over the places first, channel by channel, which reads memory in order; groups are made of the sums.
    """
    wide = x.float()
    mean = wide.mean(1, keepdim=True).unflatten(2, (groups, -1)).mean(3, keepdim=True)
    square = wide.square().mean(1, keepdim=True).unflatten(2, (groups, -1)).mean(3, keepdim=True)
    scale = torch.rsqrt((square - mean.square()).clamp(min=0) + eps) * weight.unflatten(2, (groups, -1))
    shift = bias.unflatten(2, (groups, -1)) - mean * scale
    return (wide * scale.flatten(2) + shift.flatten(2)).to(x.dtype)


@functools.cache
def _kernel(device: str) -> Callable[[Tensor, Tensor, Tensor, int, float], Tensor]:
    """`group_norm`, compiled where that pays."""
    if device != "cuda":
        return group_norm
    # The compiler makes a few variants (layouts of what a tensor is a view of) and would give up after eight.
    torch._dynamo.config.cache_size_limit = max(torch._dynamo.config.cache_size_limit, 64)
    return torch.compile(group_norm, dynamic=True)


def fuse_norms(network: nn.Module) -> None:
    """Put these norms in the places of a network's own, with the same parameters."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            made: nn.Module
            if isinstance(child, nn.GroupNorm) and not isinstance(child, FusedGroupNorm):
                made = FusedGroupNorm(child.num_groups, child.num_channels, child.eps, device="meta")
            elif isinstance(child, nn.LayerNorm) and not isinstance(child, HalfLayerNorm):
                made = HalfLayerNorm(child.normalized_shape, child.eps, device="meta")
            else:
                continue
            for key, parameter in child.named_parameters():
                setattr(made, key, parameter)
            setattr(parent, name, made.train(child.training))
