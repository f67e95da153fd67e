"""Moving averages of the weights that learn."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Averages:
    """Exponential moving averages by name, quicker at first.

    Args:
        parameters: what learns; copied now.
        decay: of the average, once it has run in; 0 keeps no copies, and the weights count as they are.
    """

    def __init__(self, parameters: Mapping[str, Tensor], *, decay: float) -> None:
        self.decay = decay
        self._live = list(parameters.values())
        self.values = {name: value.detach().clone() for name, value in parameters.items()} if decay else {}
        device = self._live[0].device if self._live else torch.device("cpu")
        self._share = torch.zeros((), device=device)

    def pace(self, steps: int) -> None:
        """How much of the weights the next `update` takes in, after `steps` steps; apart so that it can be recorded."""
        self._share.fill_(1 - min(self.decay, (1 + steps) / (10 + steps)))

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the weights."""
        if not self.decay:
            return
        averages = list(self.values.values())
        change = torch._foreach_sub([p.detach() for p in self._live], averages)
        torch._foreach_mul_(change, self._share)
        torch._foreach_add_(averages, change)

    @torch.no_grad()
    def load(self, values: Mapping[str, Tensor]) -> None:
        """Take up averages saved earlier."""
        for name, value in values.items():
            self.values[name].copy_(value)

    @torch.no_grad()
    def settle(self) -> None:
        """Give the weights their averages, at the end of a stage."""
        for live, value in zip(self._live, self.values.values(), strict=False):
            live.copy_(value)
