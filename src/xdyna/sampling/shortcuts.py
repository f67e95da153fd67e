"""Approximate savings of the denoising loop, off by default: deep features reused, guidance in an interval only.

**Deep features** (DeepCache, Ma et al. 2023, "Accelerating Diffusion Models for Free"): what the denoiser's lower
levels say changes slowly from step to step. So only every Nth step runs the whole network; the others run the outermost
level on the new latents and take the rest from the last whole step. ControlNets do not run in these steps: what they
said to the outermost level is reused as well, and what they said to the others is part of what the lower levels said.

Kept for each *window*, and windows keep their places until the next whole step. A frame's features depend on the other
frames of its window (norms over the clip, attention over time, places in the window) and the reference's own features
exist once a window, so features averaged over differently cut windows would be those of no clip at all. The price: of
the random window offsets, only every Nth is used.

**Guidance interval** (Kynkäänniemi et al. 2024, "Applying Guidance in a Limited Interval Improves Sample and
Distribution Quality"): outside an interval of noise levels the unconditional half does not run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ON_DEVICE = 1 << 30
"""Bytes of kept features above which further ones lie in main memory. (Published model, 896x512, float16, both guidance
halves: 0.3 to 0.5 GiB a window.)"""


@dataclass(frozen=True)
class Shortcuts:
    """What a run saves; the defaults save nothing.

    Attributes:
        cache: the whole denoiser runs in one of so many steps; 1 = in all.
        guidance_interval: from where to where guidance acts, as shares of the noise schedule (0 = clean, 1 = pure
            noise); None = everywhere.
    """

    cache: int = 1
    guidance_interval: tuple[float, float] | None = None

    def guided(self, scheduler: Any) -> list[bool]:
        """Whether guidance acts, for each of the scheduler's timesteps."""
        if self.guidance_interval is None:
            return [True] * len(scheduler.timesteps)
        low, high = self.guidance_interval
        levels = scheduler.config.num_train_timesteps
        return [low <= (step + 1) / levels <= high for step in scheduler.timesteps.tolist()]


@dataclass(frozen=True)
class Recalled:
    """What a window takes from the last whole step: residuals of the outermost skips, and the deep features."""

    down: tuple[Tensor, ...] | None
    deep: Tensor


class DeepCache:
    """Deep features of a step's windows, kept until the next whole step.

    Args:
        every: as `Shortcuts.cache`.
        skips: of the denoiser's outermost level.
        batch: clips denoised together.
        copies: residuals are copied to be kept, since the next window's will lie in their place.
    """

    def __init__(self, every: int, *, skips: int, batch: int, copies: bool = False) -> None:
        self.every, self.skips, self.batch, self.copies = every, skips, batch, copies
        self.reuses = False
        self._kept: dict[int, Recalled] = {}
        self._offset, self._halves, self._now, self._bytes = 0, 0, 0, 0

    def begin(self, index: int, *, offset: int, halves: int) -> int:
        """Begin a step.

        Args:
            index: which step.
            offset: the window offset that was drawn for it.
            halves: guidance halves that run in it.

        Returns:
            the window offset to use: the drawn one, or the last whole step's.
        """
        # A half that the last whole step did not run has nothing kept.
        self.reuses = index % self.every != 0 and halves <= self._halves
        self._now = halves
        if not self.reuses:
            self._kept, self._bytes = {}, 0
            self._offset, self._halves = offset, halves
        return self._offset

    def recall(self, number: int, device: torch.device) -> Recalled | None:
        """What window `number` reuses in this step; None in a whole one."""
        if not self.reuses:
            return None
        kept, share = self._kept[number], self._now / self._halves

        def mine(value: Tensor) -> Tensor:
            # the conditional half is the last one; one residual may serve all halves
            rows = len(value) if len(value) == self.batch else round(len(value) * share)
            return value[len(value) - rows :].to(device)

        down = None if kept.down is None else tuple(mine(value) for value in kept.down)
        return Recalled(down, mine(kept.deep))

    def keeper(self, number: int, down: Sequence[Tensor] | None) -> Callable[[Tensor], None] | None:
        """What is to be told window `number`'s deep features, beside its residuals `down`; None where none are kept."""
        if self.every == 1 or self.reuses:
            return None

        def keep(deep: Tensor) -> None:
            outer = None if down is None else tuple(down[: self.skips])
            if outer is not None and self.copies:
                outer = tuple(value.clone() for value in outer)
            parts = [deep, *(outer or ())]
            self._bytes += sum(value.numel() * value.element_size() for value in parts)
            if deep.device.type != "cpu" and self._bytes > ON_DEVICE:
                deep = deep.to("cpu")
                outer = None if outer is None else tuple(value.to("cpu") for value in outer)
            self._kept[number] = Recalled(outer, deep)

        return keep


def of_halves(value: Any, halves: int, *, batch: int) -> Any:
    """What belongs to the last `halves` guidance halves of one number, or of one for each clip and half."""
    if isinstance(value, Tensor) and value.ndim and len(value) > halves * batch:
        return value[-halves * batch :]
    return value
