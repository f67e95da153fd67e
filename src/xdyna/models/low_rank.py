"""Low-rank changes of a network's weight matrices (LoRA, Hu et al. 2021), kept apart from the network.

The network stays as it is: a forward pass under changed weights goes through `torch.func.functional_call`. So fused
kernels, channels_last and whatever reads a layer's weight need not know, and the unchanged network (a teacher, say) can
run beside the changed one from the same memory.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Factor(nn.Module):
    """One of the two matrices of a change.

    Args:
        shape: of its weight.
    """

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(shape))


class LowRankPair(nn.Module):
    """The change of one weight: `lora_B` times `lora_A`, which is nothing at first.

    Args:
        shape: of the weight, (o i) or (o i h w).
        rank: of the change, at most the matrix's own.
    """

    def __init__(self, shape: tuple[int, ...], rank: int) -> None:
        super().__init__()
        outputs, inputs = shape[0], torch.Size(shape[1:]).numel()
        rank = min(rank, outputs, inputs)
        self.lora_A = Factor(rank, *shape[1:])
        self.lora_B = Factor(outputs, rank, *[1] * (len(shape) - 2))
        nn.init.kaiming_uniform_(self.lora_A.weight, a=5**0.5)

    def change(self) -> Tensor:
        """What is to be added to the weight, of its shape."""
        return multiplied(self.lora_A.weight, self.lora_B.weight)


class LowRankDeltas(nn.Module):
    """Low-rank changes of the linear layers of a network, and of its convolutions where that is wanted.

    Its own parameter names are `NAME.lora_A.weight` and `NAME.lora_B.weight`, NAME being the network's layer: those of
    LoRA files in diffusers' layout, less their prefix. Every pair of factors acts as it is (alpha equals the rank).

    Args:
        network: what is to be changed; read for names and shapes only.
        rank: of every change.
        convolutions: whether convolutions are changed as well, 1x1 ones included.
    """

    def __init__(self, network: nn.Module, *, rank: int, convolutions: bool) -> None:
        super().__init__()
        kinds = (nn.Linear, nn.Conv2d) if convolutions else (nn.Linear,)
        self._pairs: dict[str, LowRankPair] = {}
        for name, layer in network.named_modules():
            if isinstance(layer, kinds):
                pair = LowRankPair(tuple(layer.weight.shape), rank)
                place, last = self._place(name)
                place.add_module(last, pair)
                self._pairs[f"{name}.weight"] = pair

    def _place(self, name: str) -> tuple[nn.Module, str]:
        """The module to hang a pair into, made where it is missing, and the name it gets there."""
        *path, last = name.split(".")
        place: nn.Module = self
        for part in path:
            if not hasattr(place, part):
                place.add_module(part, nn.Module())
            place = getattr(place, part)
        return place, last

    def forward(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The network's parameters by name -> those that are changed, changed; gradients flow into the changes."""
        return {name: weights[name] + pair.change() for name, pair in self._pairs.items()}


def multiplied(down: Tensor, up: Tensor) -> Tensor:
    """The change that two factors stand for.

    Args:
        down: (r i) or, of a convolution, (r i h w).
        up: (o r) or (o r 1 1).

    Returns:
        (o i), or (o i h w).
    """
    return (up.flatten(1) @ down.flatten(1)).unflatten(1, down.shape[1:])
