"""A second person in some clips: beside or behind the first, moving as they like, driven by nothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xdyna.data.synthetic.draws import Draws, Params, take
from xdyna.data.synthetic.identity import sample_identity
from xdyna.data.synthetic.motion import sample_motion

COMPANY_SHARE = 0.06
"""Share of the clips with a person that show a second one, where nothing else is asked for."""


@dataclass
class CompanyParams:
    """Second people, b clips, on the CPU.

    Attributes:
        here: (b,) bool: whether there is one (clips without a first person have no second one either).
        identity, motion: as those of the first people; the framing is that of the first.
        place: `far`: their size as a share of the first one's, `aside`: how far to the right they stand, in widths of
            the first one's shoulders, `lower`: how much lower their shoulders are, in their own heights.
    """

    here: Tensor
    identity: Params
    motion: Params
    place: Params

    def take(self, index: Tensor) -> CompanyParams:
        """The company of the chosen clips."""
        return CompanyParams(
            self.here[index], take(self.identity, index), take(self.motion, index), take(self.place, index)
        )


def sample_company(draws: Draws, motion: Params, share: float = COMPANY_SHARE) -> CompanyParams:
    """Draw second people.

    Args:
        motion: of the first people.
        share: chance of a second one.
    """
    side = 2 * draws.chance(0.5) - 1
    far = draws.uniform(0.55, 0.97)
    place = {
        "far": far,
        # Whoever is further away may stand closer in the picture: the first person hides a part of them.
        "aside": side * draws.uniform(1.15, 1.9) * (0.55 + 0.45 * far),
        "lower": draws.uniform(-0.03, 0.05),
    }
    own = sample_motion(draws)
    for name in ("framing", "fill", "top", "place"):
        own[name] = motion[name]
    return CompanyParams(draws.chance(share) > 0, sample_identity(draws), own, place)


def place_company(placed: Params, company: CompanyParams, identity: Params, aspect: float) -> Params:
    """Size and place of the second people.

    Args:
        placed: of `skeleton.frame_person`, the first people.
        identity: of the first people.
        aspect: width / height of the frame.

    Returns:
        the same names for the second people.
    """
    far = company.place["far"]
    scale = placed["scale"] * far
    span = 2 * (identity["shoulder"] + 0.5 * identity["arm_radius"] + 0.05) * placed["scale"]
    aside = company.place["aside"] * span
    x = placed["x"] + aside
    # Whom the frame would cut off stands on the other side, and where neither has room, near the edge.
    x = torch.where((x < 0) | (x > aspect), placed["x"] - aside, x).clamp(0.03 * aspect, 0.97 * aspect)
    # Eyes are about at the camera's height, however far they are: the further, the lower the shoulders below them.
    eyes = identity["neck"] + 0.5 * identity["head_height"]
    y = placed["y"] - eyes * (placed["scale"] - scale) + company.place["lower"] * scale
    return {"scale": scale, "x": x, "y": y}
