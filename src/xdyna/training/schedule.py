"""How far a stage is, and the learning rate there."""

from __future__ import annotations

import math

from xdyna.training.config import StageConfig


def share_done(settings: StageConfig, steps: int, seconds: float) -> float:
    """How much of a stage's budget is used up, 0 to 1 and above."""
    by_time = seconds / (60 * settings.minutes) if settings.minutes else 0.0
    by_steps = steps / settings.steps if settings.steps else 0.0
    return max(by_time, by_steps)


def learning_rate(settings: StageConfig, steps: int, share: float) -> float:
    """Linear warm-up, a plateau, then half a cosine down to the final share."""
    rate = settings.learning_rate * min(1.0, (steps + 1) / max(1, settings.warmup))
    if share > settings.decay_from:
        way = min(1.0, (share - settings.decay_from) / max(1e-6, 1 - settings.decay_from))
        low = settings.final_learning_rate
        rate *= low + (1 - low) * 0.5 * (1 + math.cos(math.pi * way))
    return rate
