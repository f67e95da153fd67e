"""Norms that suit mixed precision on a GPU: half precision in and out, statistics in float32 inside.

Under autocast, PyTorch's norms turn half precision into float32 and hand that on, so that what follows moves twice the
bytes. These take and give what they are given.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from xdyna.models.fusing import take_over
from xdyna.models.norms import ClipGroupNorm, TokenNorm


class HalfGroupNorm(ClipGroupNorm):
    """A group norm over `frames` pictures at a time that keeps its input's dtype under autocast."""

    def plain(self, input: Tensor, *, frames: int) -> Tensor:
        """((b f) c h w) -> the same shape and dtype."""
        clip = input if frames == 1 else input.unflatten(0, (-1, frames)).transpose(1, 2)
        with torch.autocast(input.device.type, enabled=False):
            weight, bias = self.weight.to(input.dtype), self.bias.to(input.dtype)
            normed = functional.group_norm(clip, self.num_groups, weight, bias, self.eps)
        return normed if frames == 1 else normed.transpose(1, 2).flatten(0, 1)


class HalfLayerNorm(TokenNorm):
    """A layer norm that keeps its input's dtype under autocast."""

    def plain(self, input: Tensor) -> Tensor:
        """(... c) -> the same shape and dtype."""
        with torch.autocast(input.device.type, enabled=False):
            weight = None if self.weight is None else self.weight.to(input.dtype)
            bias = None if self.bias is None else self.bias.to(input.dtype)
            return functional.layer_norm(input, self.normalized_shape, weight, bias, self.eps)


def halve_norms(network: nn.Module) -> None:
    """Put these norms in the places of a network's own, with the same parameters."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            made: nn.Module
            if type(child) in (nn.GroupNorm, ClipGroupNorm):
                assert isinstance(child, nn.GroupNorm)
                made = HalfGroupNorm(child.num_groups, child.num_channels, child.eps, device="meta")
            elif type(child) in (nn.LayerNorm, TokenNorm):
                assert isinstance(child, nn.LayerNorm)
                made = HalfLayerNorm(
                    child.normalized_shape,
                    child.eps,
                    child.elementwise_affine,
                    child.bias is not None,
                    device="meta",
                )
            else:
                continue
            setattr(parent, name, take_over(made, child))
