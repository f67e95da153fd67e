"""Who a modelled person is: the shape of body and face, from the same parameters as a drawn person's and a few more."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xdyna.data.synthetic.draws import Draws, Params, onto
from xdyna.data.synthetic.modelled.asset import Body, body_on

_SEED = 0x3D


def sample_modelled(seed: int, batch: int, share: float) -> Params:
    """Draw which people are modelled, and their bodies and faces.

    The draws are a sequence of their own, so that everything else of a batch is the same with and without them.

    Args:
        share: of the people who are modelled.

    Returns:
        `here` (b,) float 1 or 0; `body` (b 12) and `face` (b 24) scores; `weight`, `muscle` (b,).
    """
    draws = Draws((seed << 8) + _SEED, batch)
    return {
        "here": draws.chance(share),
        "body": draws.normal(12).clamp(-1.5, 1.5),
        "face": draws.normal(24).clamp(-1.8, 1.8),
        "weight": draws.uniform(0, 1),
        "muscle": draws.uniform(0.35, 0.7),
        "gloss": draws.uniform(0.03, 0.14),
        "seed": draws.uniform(0, 1, 4),
    }


@dataclass(frozen=True)
class Rest:
    """Bodies at rest, b people, in their standing heights with the feet on y = 0.

    Attributes:
        skin: (b v 3); bones: (b j 3) their heads; eyes: (b 2 3) their middles.
        scores: (b m) of the components of body and face.
        low, tall: (b,) where the soles were and how tall the body was, in the asset's unit.
    """

    skin: Tensor
    bones: Tensor
    eyes: Tensor
    scores: Tensor
    low: Tensor
    tall: Tensor

    def to(self, device: torch.device) -> Rest:
        """The same on a device."""
        return Rest(*(onto(value, device) for value in vars(self).values()))

    def fit(self, parts: Tensor) -> Tensor:
        """Other points of the same bodies (b k 3), from their mean and components (1+m k 3)."""
        points = parts[0] + (self.scores @ parts[1:].flatten(1)).unflatten(1, parts.shape[1:])
        return _standing(points, self.low, self.tall)


def _standing(points: Tensor, low: Tensor, tall: Tensor) -> Tensor:
    ground = torch.stack([0 * low, low, 0 * low], -1)
    return (points - ground[:, None]) / tall[:, None, None]


def rest_bodies(body: Body, identity: Params, modelled: Params) -> Rest:
    """Bodies at rest.

    Args:
        identity: of `sample_identity`, b people; modelled: of `sample_modelled`; both where `body` is.
    """
    feminine = identity["feminine"]
    gender = (feminine + 0.75 * (feminine.round() - feminine)).clamp(0, 1)
    build = ((identity["arm_radius"] - 0.021 + 0.004 * feminine) / 0.010).clamp(0, 1)
    weight = 0.25 + 0.3 * build + 0.12 * modelled["weight"]
    table = torch.stack([gender, 0.64 + 0.28 * identity["age"], weight, modelled["muscle"]], 1)
    ones = torch.ones_like(table[:, :1])
    terms = torch.cat([ones, table, table**2, table[:, :1] * table[:, 1:]], 1)
    shape = terms @ body.terms + 0.15 * modelled["body"]
    face = 0.85 * modelled["face"]
    count, bones = len(body.mean), len(body.bone_names)
    every = torch.cat([body.mean, body.bone_places, body.eye_places])
    points = every + torch.einsum("bk,kvd->bvd", shape, body.shapes)
    own = body.face_mean + torch.einsum("bk,kvd->bvd", face, body.faces)
    points = points.index_add(1, body.head_vertices, own)
    low = points[:, :count, 1].amax(1)
    tall = low - points[:, :count, 1].amin(1)
    points = _standing(points, low, tall)
    skin, joints, eyes = points.split([count, bones, 2], 1)
    return Rest(skin, joints, eyes, torch.cat([shape, face], 1), low, tall)


def measured(identity: Params, modelled: Params) -> Params:
    """The identity (b) with the lengths of its modelled body in place of the drawn one's."""
    body = body_on(torch.device("cpu"))
    rest = rest_bodies(body, identity, modelled)
    points, bones = rest.skin, rest.bones

    def at(name: str) -> Tensor:
        return bones[:, body.bone(name)]

    def apart(first: str, second: str) -> Tensor:
        return (at(first) - at(second)).norm(dim=1)

    shoulders, hips = (
        (at("upperarm01.R") + at("upperarm01.L")) / 2,
        (at("upperleg01.R") + at("upperleg01.L")) / 2,
    )
    mark = (points[:, body.marks] * body.mark_shares[..., None]).sum(2)
    chin, top = mark[:, 8, 1], points[:, :, 1].amin(1)
    head = chin - top
    return identity | {
        "head_height": head, "neck": (shoulders[:, 1] - chin - 0.08 * head).clamp(min=0.005),
        "torso": hips[:, 1] - shoulders[:, 1], "thigh": apart("upperleg01.R", "lowerleg01.R"),
        "calf": apart("lowerleg01.R", "foot.R"), "shoulder": apart("upperarm01.R", "upperarm01.L") / 2,
        "hip": apart("upperleg01.R", "upperleg01.L") / 2, "upper_arm": apart("upperarm01.R", "lowerarm01.R"),
        "forearm": apart("lowerarm01.R", "wrist.R"),
        "hand": apart("wrist.R", "finger3-3.R") * 1.18,
    }  # fmt: skip


def with_measures(identity: Params, modelled: Params, chosen: Tensor) -> Params:
    """The identity with the lengths of their modelled bodies for the chosen (b,) bool people."""
    own = measured(identity, modelled)
    return {
        name: torch.where(chosen.view(-1, *[1] * (value.dim() - 1)), own[name], value)
        for name, value in identity.items()
    }
