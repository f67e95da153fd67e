"""Networks whose large weights lie in memory as 8-bit numbers with a scale for each output channel.

Each weight is made whole again for the moment in which its layer runs, so that a network needs half the memory of
float16 and computes as before; what changes is the rounding of its weights, once. Two kinds:

- "int8": round(w / s), s = max|w| / 127 of the channel, as files of `storage` keep them;
- "fp8": float8 with 4 bits of exponent and 3 of mantissa (e4m3), s = max|w| / 448.

First and last convolutions and the time embedding stay whole: they are small, and rounding shows there most.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from xdyna.errors import OptionError
from xdyna.weights.storage import dequantise, quantise

KINDS = ("full", "int8", "fp8")
"""How weights are held: as they are, or in 8 bits."""
LARGEST_FP8 = 448.0
SMALLEST = 1 << 10
"""Numbers below which a weight stays as it is."""
WHOLE = (
    "conv_in",
    "moved_in",
    "conv_out",
    "time_embedding",
    "controlnet_cond_embedding",
    "motion_strength",
    "proj_in_time",
)
"""Parts of our networks and of ControlNets whose weights stay as they are."""


class _EightBits(nn.Module):
    """From a weight to its 8-bit form and back: what `torch.nn.utils.parametrize` calls a parametrization."""

    def __init__(self, kind: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.kind, self.dtype = kind, dtype

    def forward(self, values: Tensor, scale: Tensor) -> Tensor:
        """The weight, of the network's dtype."""
        scale = scale.view(torch.float32)
        if self.kind == "int8":
            return dequantise(values, scale, self.dtype)
        codes = values.view(torch.float8_e4m3fn)
        return (codes.to(torch.float32) * scale.reshape(-1, *[1] * (codes.ndim - 1))).to(self.dtype)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Values of the weight's shape and scales, both as integers, which no cast of the network touches."""
        if self.kind == "int8":
            values, scale = quantise(weight)
        else:
            flat = weight.detach().float().flatten(1)
            peak = flat.abs().amax(dim=1)
            scale = torch.where(peak > 0, peak / LARGEST_FP8, torch.ones_like(peak))
            codes = (flat / scale[:, None]).to(torch.float8_e4m3fn)
            values = codes.view(torch.uint8).reshape(weight.shape)
        if weight.is_contiguous(memory_format=torch.channels_last) and weight.ndim == 4:
            values = values.contiguous(memory_format=torch.channels_last)
        return values, scale.view(torch.int32)


def hold(network: nn.Module, kind: str) -> None:
    """Hold a network's large weights in 8 bits from now on, in place. It can then not be trained or saved.

    Args:
        network: of linear and convolution layers, of one float dtype.
        kind: one of `KINDS`.

    Raises:
        OptionError: no such kind.
        WeightsError: weights that are not finite.
    """
    if kind not in KINDS:
        raise OptionError("--weights", f"got {kind!r}, allowed are {', '.join(KINDS)}")
    if kind == "full":
        return
    network.requires_grad_(False)
    for name, module in list(network.named_modules()):
        if not isinstance(module, (nn.Linear, nn.Conv2d)) or name.split(".")[0] in WHOLE:
            continue
        if module.weight.numel() >= SMALLEST:
            made = _EightBits(kind, module.weight.dtype)
            parametrize.register_parametrization(module, "weight", made, unsafe=True)


def bytes_of(network: nn.Module) -> int:
    """Memory of all weights and buffers."""
    return sum(t.numel() * t.element_size() for t in (*network.parameters(), *network.buffers()))
