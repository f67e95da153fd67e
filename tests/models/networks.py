"""Tiny real networks for the tests of models."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xdyna.models import XDynaUNet


def tiny_unet(**changes: Any) -> XDynaUNet:
    """Two levels of width 8 and 16, 4 latent channels, tokens of width 12 of which 4 are image tokens."""
    options: dict[str, Any] = {
        "block_out_channels": (8, 16),
        "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
        "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
        "layers_per_block": 1,
        "attention_head_dim": 2,
        "cross_attention_dim": 12,
        "norm_num_groups": 4,
        "motion_heads": 2,
        "motion_norm_groups": 4,
        "image_tokens": 4,
    }
    torch.manual_seed(0)
    return XDynaUNet(**(options | changes)).eval()


def fill(network: torch.nn.Module, *, seed: int = 1) -> None:
    """Give every parameter a random value, those that start at zero too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def clip(*shape: int, seed: int = 2) -> Tensor:
    """A normal draw."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
