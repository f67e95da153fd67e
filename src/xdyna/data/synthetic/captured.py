"""Filmed people's motion (made by tools/export_motion.py) in place of sines, for trunk, limbs and head.

A take is played forth and back at a pace of the clip's own, so that it, too, is a function of time alone.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from xdyna.data.synthetic.draws import Draws, Params
from xdyna.errors import InputError

MOTION_FILE = Path(__file__).parents[2] / "assets" / "motion" / "captured.safetensors"
RATE = 15
"""Samples a second."""

CHANNELS = (
    "x", "lean", "turn", "tilt", "bob", "roll", "yaw", "pitch",
    "right_raise", "left_raise", "right_elbow", "left_elbow", "right_forward", "left_forward",
    "right_swing", "left_swing", "right_step", "left_step",
)  # fmt: skip
"""What a take tells: channels of the motion's state with their meaning and signs; all the rest stays as it was."""

_TURNED = ("x", "lean", "turn", "tilt", "roll", "yaw")
_SEED = 0xCA
_EASE = 15.0


def load_captured(path: Path = MOTION_FILE) -> tuple[Tensor, Tensor]:
    """All takes one after another (n c) and their lengths (k,).

    Raises:
        InputError: the file is missing or holds something else.
    """
    if not path.is_file():
        raise InputError(path, "no such file", "It ships with the package: install it again.")
    try:
        with safe_open(path, "pt") as file:
            values, lengths = file.get_tensor("values").float(), file.get_tensor("lengths").long()
            names = (file.metadata() or {})["channels"]
    except (SafetensorError, KeyError, OSError) as error:
        raise InputError(
            path, f"no captured motion ({error})", "Make it again with tools/export_motion.py."
        ) from error
    if names != ",".join(CHANNELS):
        raise InputError(path, "its channels are others", "Make it again with tools/export_motion.py.")
    return values, lengths


@cache
def _takes() -> tuple[Tensor, Tensor]:
    return load_captured()


def sample_captured(seed: int, motion: Params, share: float) -> Params:
    """The motion with captured takes for a share of its clips; with share 0 it is the same motion.

    The draws are a sequence of their own, so that everything else of a batch stays.
    """
    if share <= 0:
        return motion
    draws = Draws((seed << 8) + _SEED, len(motion["rest"]))
    here = draws.chance(share)
    _, lengths = _takes()
    return motion | {
        "captured": here,
        "take": draws.choice(lengths.tolist()).float(),
        "take_start": draws.uniform(0, 1),
        "take_pace": draws.uniform(0.55, 1.05),
        "take_mirror": draws.chance(0.5),
        "sit": motion["sit"] * (1 - here),
    }


def _eased(distance: Tensor) -> Tensor:
    """Distance from a take's end in samples, approached ever more slowly over the last `_EASE`."""
    return torch.where(distance < _EASE, (distance**2 + _EASE**2) / (2 * _EASE), distance)


def play(motion: Params, times: Tensor, state: Params) -> None:
    """Put the captured channels into a state, in place, for the clips that have them.

    Args:
        motion: of `sample_captured`, b clips; times: (b n) seconds.
        state: (b n) each.
    """
    values, lengths = _takes()
    take = motion["take"].long()
    length = lengths[take][:, None].float() - 1
    first = (lengths.cumsum(0) - lengths)[take][:, None]
    place = motion["take_start"][:, None] * length + times * motion["take_pace"][:, None] * RATE
    place = place % (2 * length)
    place = torch.minimum(place, 2 * length - place)
    # It slows down before it turns back, or the turn would be a jerk.
    place = _eased(place)
    place = length - _eased(length - place)
    low = place.floor()
    share = (place - low)[..., None]
    last = length.long()

    def at(step: int) -> Tensor:
        return values[first + torch.minimum((low.long() + step).clamp(min=0), last)]

    # A cubic through the samples (Catmull and Rom), so that speed does not jump either.
    a, b, c, d = (at(step) for step in (-1, 0, 1, 2))
    found = b + 0.5 * share * (
        c - a + share * (2 * a - 5 * b + 4 * c - d + share * (3 * (b - c) + d - a))
    )  # fmt: skip
    mirrored = motion["take_mirror"][:, None] > 0
    here = motion["captured"][:, None] > 0
    for i, name in enumerate(CHANNELS):
        side, _, rest = name.partition("_")
        other = {"right": f"left_{rest}", "left": f"right_{rest}"}.get(side, name)
        swapped = found[..., CHANNELS.index(other)] * (-1.0 if name in _TURNED else 1.0)
        value = torch.where(mirrored, swapped, found[..., i])
        if name == "bob":
            # Whom only a close picture shows does not leave it.
            value = value * torch.where(motion["framing"][:, None] == 0, 0.2, 1.0)
        state[name] = torch.where(here, value, state[name])
    state["sway"] = torch.where(here, 0.0, state["sway"])
