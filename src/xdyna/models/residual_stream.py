"""The residual stream of a transformer block: tokens to which one layer after another adds.

Written as it is read, `tokens = tokens + layer(mixed)` is a product that writes, and an addition that reads twice and
writes once; and a bias makes the product itself slower. Where nobody wants gradients and the tokens are the block's own
(`fused.defers`), a `ResidualStream` lets the product add to the tokens where they lie (BLAS's beta = 1), and the
bias, which is the same for all tokens, waits: the norms, which are all that read the tokens in between, add it as they
read, and the last projection W (x + v) + b takes it into its own bias, W v + b.

Everywhere else a `Sum` gathers what a layer adds, each term computed by itself.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from xdyna.models.fused_layers import FusedConv2d, FusedLinear


def scaled(tokens: Tensor, scale: float | Tensor) -> Tensor:
    """(b n c) times one number, or times (b) one for each batch item; the number 1 leaves them untouched."""
    if isinstance(scale, Tensor):
        return tokens * scale.to(tokens.dtype)[:, None, None]
    return tokens if scale == 1 else tokens * scale


class Sum:
    """A sum of projections.

    Attributes:
        value: what it is so far, (n m c), or None at the start.
    """

    def __init__(self) -> None:
        self.value: Tensor | None = None

    def add(self, layer: nn.Module, mixed: Tensor, scale: float | Tensor = 1.0) -> None:
        """Add a projection.

        Args:
            layer: the linear layer.
            mixed: (b k d), what it projects; as many tokens as the sum has, in the same order.
            scale: of this term: one number, or (b) one for each batch item of `mixed`.
        """
        change = scaled(layer(mixed), scale)
        self.value = change if self.value is None else self.value + change.view_as(self.value)

    def total(self) -> Tensor:
        """(n m c)."""
        assert self.value is not None, "nothing was added"
        return self.value


class ResidualStream(Sum):
    """Tokens that layers add to in place.

    Args:
        tokens: (n m c), contiguous, of a dtype and device that `fused.defers`. They belong to the stream: whoever else
            wants them as they are gives it a copy.
        pending: (c) that is still to be added to every token, or None for nothing.
    """

    def __init__(self, tokens: Tensor, pending: Tensor | None = None) -> None:
        super().__init__()
        self.value, self.pending = tokens, pending

    @classmethod
    def projected(cls, x: Tensor, layer: nn.Module) -> ResidualStream:
        """What a layer that `is_product` makes of (n m d), its bias pending."""
        return cls(F.linear(x, as_matrix(layer)), bias_of(layer))

    def parts(self, number: int) -> list[ResidualStream]:
        """The same tokens, cut into about so many pieces of n; each has its own pending biases from here on."""
        return [ResidualStream(part, self.pending) for part in self.total().chunk(number)]

    def normed(self, norm: nn.Module, *, code: Tensor | None = None) -> Tensor:
        """The tokens through a `TokenNorm`, then plus a code (m c); (n m c)."""
        return norm(self.total(), before=self.pending, code=code)

    def add(self, layer: nn.Module, mixed: Tensor, scale: float | Tensor = 1.0) -> None:
        """As `Sum.add`, in place."""
        tokens = self.total()
        if isinstance(scale, Tensor) or not is_product(layer):
            tokens.add_(scaled(layer(mixed), scale).view_as(tokens))
            return
        tokens.flatten(0, 1).addmm_(mixed.flatten(0, 1), as_matrix(layer).t(), alpha=scale)
        bias = bias_of(layer)
        if bias is not None:
            bias = bias if scale == 1 else scale * bias
            self.pending = bias if self.pending is None else self.pending + bias

    def handed_over(self, layer: nn.Module) -> tuple[Tensor, Tensor | None]:
        """The last projection, and the stream's end.

        Args:
            layer: one that `is_product`.

        Returns:
            (n m d) without its bias, and the bias (d), in which is what was pending.
        """
        tokens, self.value = self.total(), None
        matrix, bias = as_matrix(layer), bias_of(layer)
        if self.pending is not None:
            bias = F.linear(self.pending, matrix, bias)
        return F.linear(tokens, matrix), bias


def is_product(layer: nn.Module) -> bool:
    """Whether a layer is a product with one matrix and a bias: a fused linear layer or 1x1 convolution."""
    if isinstance(layer, FusedConv2d):
        return layer.kernel_size == layer.stride == (1, 1) and layer.groups == 1 and not any(layer.padding)
    return isinstance(layer, FusedLinear)


def as_matrix(layer: nn.Module) -> Tensor:
    """Its (d c); read anew each time, since weights may change, or be held in 8 bits and unpacked here."""
    return cast(Tensor, layer.weight).flatten(1)


def bias_of(layer: nn.Module) -> Tensor | None:
    """Its (d), or None."""
    return cast(Tensor | None, layer.bias)
