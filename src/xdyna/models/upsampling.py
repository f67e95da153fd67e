"""Maps made twice as large and convolved, without the enlarged copy.

Of nearest neighbours and a 3x3 convolution, a pixel of the result reads four pixels of the small map at most: several
taps fall on the same one, and may be summed beforehand. Which ones depends on whether the pixel's row and column are
even or odd (its phase), so the whole is four 2x2 convolutions of the small map: 4/9 of the products.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xdyna.models.blocks import Upsample

TAPS = ((slice(0, 1), slice(1, 3)), (slice(0, 2), slice(2, 3)))
"""Along an axis, by phase: the taps on the first and those on the second of the two pixels that are read, which are
the one before and the pixel itself for phase 0, the pixel itself and the one after for phase 1."""


class PhasedUpsample(Upsample):
    """Our `Upsample` under its names, in phases where it doubles a map and nobody wants gradients.

    The summed kernels are made anew in each call: kept, they would take 16/9 of the convolution's memory, and miss
    what is done to its weight (LoRA, 8 bits).

    Args:
        layer: whose convolution is taken over.
    """

    fusing = "never"

    def __init__(self, layer: Upsample) -> None:
        nn.Module.__init__(self)
        self.conv = layer.conv
        self.train(layer.training)

    def forward(self, x: Tensor, *, size: tuple[int, int]) -> Tensor:
        """(n c h w) -> (n c *size)."""
        if in_phases(self.conv, x, size, fusing=self.fusing):
            return doubled(x, self.conv.weight, self.conv.bias)
        return super().forward(x, size=size)


def in_phases(conv: nn.Module, x: Tensor, size: tuple[int, int], *, fusing: str) -> bool:
    """Whether `doubled` is to stand for nearest neighbours and a convolution.

    Args:
        conv: the convolution; anything put around it (an adapter, say) makes it no `nn.Conv2d`.
        x: (n c h w), the small map.
        size: of the result.
        fusing: one of `fused.FUSING`; no kernels of ours are needed, hence "always" means on a CPU too.
    """
    half = x.is_cuda and x.dtype in (torch.float16, torch.bfloat16)
    return (
        (fusing == "always" or (fusing == "half" and half))
        and isinstance(conv, nn.Conv2d)
        and (conv.kernel_size, conv.stride, conv.padding) == ((3, 3), (1, 1), (1, 1))
        and (conv.dilation, conv.groups, conv.padding_mode) == ((1, 1), 1, "zeros")
        and tuple(size) == (2 * x.shape[2], 2 * x.shape[3])
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled(x.device.type)
    )


def doubled(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Nearest neighbours to twice the size, then a 3x3 convolution with padding 1; without gradients.

    Even rows come first, then odd ones: what is held between is half as large as the result, while an enlarged copy
    would be as large as it, and only half of the summed kernels is there at a time.

    Args:
        x: (n c h w).
        weight: (d c 3 3).
        bias: (d) or None.

    Returns:
        (n d 2h 2w), channels_last.
    """
    (height, width), channels = x.shape[2:], len(weight)
    made = x.new_empty((len(x), 2 * height, 2 * width, channels)).permute(0, 3, 1, 2)
    for row in range(2):
        phases = F.conv2d(x, phase_kernel(weight, row), padding=1)  # (n 2d h+1 w+1)
        for column, phase in enumerate(phases.split(channels, dim=1)):
            part = phase[:, :, row : row + height, column : column + width]
            place = made[:, :, row::2, column::2]
            if bias is None:
                place.copy_(part)
            else:
                torch.add(part, bias[:, None, None], out=place)  # in the same pass
        del phases, phase, part  # before the next ones
    return made


def phase_kernel(weight: Tensor, row: int) -> Tensor:
    """The 2x2 kernels of the even (row 0) or odd (row 1) rows: (d c 3 3) -> (2d c 2 2), channels_last.

    Those of even columns come first. Each number is a sum of one, two or four taps, which PyTorch takes in float32 for
    half precision too: it is rounded once.
    """
    outputs, inputs = weight.shape[:2]
    kernel = weight.new_empty((2, outputs, 2, 2, inputs))
    for column in range(2):
        for i, rows in enumerate(TAPS[row]):
            for j, columns in enumerate(TAPS[column]):
                torch.sum(weight[:, :, rows, columns], (2, 3), out=kernel[column, :, i, j])
    return kernel.flatten(0, 1).permute(0, 3, 1, 2)
