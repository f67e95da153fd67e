"""Schedulers by name, and their timesteps."""

from __future__ import annotations

from typing import Any

import torch

from xdyna.errors import OptionError

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "dpmsolver++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "lcm": "LCMScheduler",
    "pndm": "PNDMScheduler",
    "unipc": "UniPCMultistepScheduler",
}
"""Short names of common diffusers schedulers; any other goes by its class name."""


def make_scheduler(name: str | None, base: Any) -> Any:
    """A fresh scheduler: the model's own class, or another one with the model's noise schedule.

    Raises:
        OptionError: not the name of a diffusers scheduler.
    """
    import diffusers

    wanted = SCHEDULERS.get((name or "").lower(), name) or type(base).__name__
    kind = getattr(diffusers, wanted, None) if wanted.endswith("Scheduler") else None
    if kind is None or not hasattr(kind, "from_config") or wanted.startswith("Flax"):
        raise OptionError(
            "--scheduler",
            f"got {name!r}",
            f"Use {', '.join(SCHEDULERS)}, or a diffusers scheduler's class name",
        )
    return kind.from_config(base.config)


def set_timesteps(scheduler: Any, steps: int, device: torch.device) -> None:
    """Lay out the timesteps.

    Raises:
        OptionError: more steps than the schedule has, or a scheduler that cannot take this number.
    """
    try:
        scheduler.set_timesteps(steps, device=device)
    except (ValueError, IndexError, NotImplementedError) as error:
        raise OptionError(
            "--steps", f"{type(scheduler).__name__} cannot take {steps} steps ({error})"
        ) from error
