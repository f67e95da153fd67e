"""Random parameters, always drawn on the CPU so that a seed means one world on every device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Params = dict[str, Tensor]
"""Named parameters; every tensor has the clip (or the frame) as its first axis."""


class Draws:
    """One seeded generator and the few distributions that the world needs.

    Args:
        seed: any non-negative int.
        count: how many clips every draw is for.
    """

    def __init__(self, seed: int, count: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.count = count

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """(count, *shape) in [low, high)."""
        return torch.rand(self.count, *shape, generator=self.generator) * (high - low) + low

    def normal(self, *shape: int) -> Tensor:
        """(count, *shape), standard normal."""
        return torch.randn(self.count, *shape, generator=self.generator)

    def chance(self, probability: float) -> Tensor:
        """(count,) float: 1 with that probability, else 0."""
        return (self.uniform(0, 1) < probability).float()

    def choice(self, weights: Sequence[float]) -> Tensor:
        """(count,) int64 indices drawn in proportion to the weights."""
        table = torch.tensor(weights, dtype=torch.float32).expand(self.count, -1)
        return torch.multinomial(table, 1, generator=self.generator)[:, 0]

    def colour(
        self,
        hue: tuple[float, float] = (0, 1),
        saturation: tuple[float, float] = (0, 1),
        value: tuple[float, float] = (0, 1),
    ) -> Tensor:
        """(count, 3) RGB colours in [0, 1]; hue may run past 1 (it wraps)."""
        return hsv(self.uniform(*hue), self.uniform(*saturation), self.uniform(*value))

    def texture(self, channels: int, slopes: Tensor, *, size: int = 128) -> Tensor:
        """(count, channels, size, size) periodic noise whose amplitude falls as frequency ** -slope.

        Natural pictures have slopes near 1 (power 1/f^2; Field 1987). Mean 0, standard deviation 1.

        Args:
            slopes: (count,) the exponent for each clip.
        """
        white = self.normal(channels, size, size)
        rows = torch.fft.fftfreq(size, d=1 / size)
        columns = torch.fft.rfftfreq(size, d=1 / size)
        radius = (rows[:, None] ** 2 + columns[None] ** 2).sqrt()
        amplitude = radius.clamp(min=1)[None, None] ** -slopes[:, None, None, None]
        amplitude[:, :, 0, 0] = 0
        noise = torch.fft.irfft2(torch.fft.rfft2(white) * amplitude, s=(size, size))
        return noise / noise.std((-1, -2), keepdim=True).clamp(min=1e-6)


def hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """RGB (..., 3) of hue (wraps at 1), saturation and value in [0, 1]."""
    steps = torch.stack([(offset + hue * 6) % 6 for offset in (5, 3, 1)], -1)
    dip = torch.minimum(steps, 4 - steps).clamp(0, 1)
    return value[..., None] * (1 - saturation[..., None] * dip)


def take(params: Params, index: Tensor) -> Params:
    """The same parameters for the chosen clips (repeats allowed)."""
    return {name: value[index] for name, value in params.items()}


def onto(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU's on a device, without waiting for the device to finish what it is doing.

    Ordinary memory is staged before the copy returns, so its owner may change or drop it at once.
    """
    return tensor.to(device, non_blocking=True)


def to_device(params: Params, device: torch.device) -> Params:
    """Move many small float tensors in one copy (a copy each would cost more than the work itself)."""
    if device.type == "cpu":
        return params
    flat = {name: value.float().reshape(len(value), -1) for name, value in params.items()}
    moved = onto(torch.cat(list(flat.values()), 1), device)
    parts = moved.split([part.shape[1] for part in flat.values()], 1)
    return {name: part.reshape(params[name].shape) for name, part in zip(flat, parts, strict=True)}


TAU = math.tau
