"""A scene's own clock and wind: how fast it moves, frozen at times, and what pulls at hair and cloth."""

from __future__ import annotations

import torch
from torch import Tensor

from xdyna.data.synthetic.draws import TAU, Draws, Params

FROZEN_SHARE = 0.04
"""Share of clips whose scene is frozen."""

SPEEDS = (0.35, 2.2)
"""Slowest and fastest speed of a scene that is not frozen; half of them lie between 0.72 and 1.38."""

_GUST = 0.35


def sample_tempo(draws: Draws, frozen_share: float = FROZEN_SHARE) -> Params:
    """Draw clocks and winds.

    Returns:
        `speed` (b,): seconds of the scene a second, 1 the usual pace, 0 frozen; `start` (b,): the scene's time
        when the clip's is 0; `wind` (b,): strength in [0.35, 1], negative to the left; `gust_rate` (b 2) in
        1/s and `gust_phase` (b 2).
    """
    speed = torch.exp(0.48 * draws.normal()).clamp(*SPEEDS)
    side = 2 * draws.chance(0.5) - 1
    return {
        "speed": speed * (1 - draws.chance(frozen_share)),
        "start": draws.uniform(0, 20),
        "wind": side * draws.uniform(0.35, 1.0),
        "gust_rate": torch.stack([draws.uniform(0.12, 0.35), draws.uniform(0.5, 1.1)], -1),
        "gust_phase": draws.uniform(0, TAU, 2),
    }


def scene_time(tempo: Params, times: Tensor) -> Tensor:
    """The scenes' own time (b n) at some moments (b n) of the clips, in seconds."""
    return tempo["start"][:, None] + tempo["speed"][:, None] * times


def wind_at(tempo: Params, moments: Tensor) -> Tensor:
    """The wind (b n) in [-1, 1], positive to the right, at some of the scenes' moments (b n); it comes in gusts."""
    angle = TAU * tempo["gust_rate"][:, None] * moments[..., None] + tempo["gust_phase"][:, None]
    waves = angle.sin()
    return tempo["wind"][:, None] * (1 + _GUST * (0.65 * waves[..., 0] + 0.35 * waves[..., 1])) / (1 + _GUST)
