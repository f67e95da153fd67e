"""Vertices of every frame: expressions, skinning and normals."""

from __future__ import annotations

import torch
from torch import Tensor

from xdyna.data.synthetic.draws import Params
from xdyna.data.synthetic.modelled.asset import Body


def expression_weights(body: Body, state: Params) -> Tensor:
    """How much of every expression of the body a state shows (n e)."""
    smile, brow, tilt = state["smile"], state["brow"], state["brow_tilt"]
    opened, pucker = state["mouth_open"], state["pucker"]
    glad, sad = smile.clamp(min=0), (-smile / 0.6).clamp(min=0)
    squint = state["squint"]
    shown = {
        "jaw_open": 0.80 * opened, "smile": 0.95 * glad, "dimple": 0.25 * glad, "cheek_squint": 0.55 * glad,
        "frown": 0.85 * sad, "pucker": 0.85 * pucker * (1 - 0.4 * opened), "funnel": 0.45 * pucker * opened,
        "blink": 1 - state["lid"], "brow_inner_up": 0.75 * brow.clamp(min=0) + 0.45 * tilt.clamp(min=0),
        "brow_outer_up": 0.75 * brow.clamp(min=0) + 0.35 * (-tilt).clamp(min=0),
        "brow_down": 0.75 * (-brow / 0.8).clamp(min=0) + 0.25 * (-tilt).clamp(min=0),
        "wide": 0.45 * brow.clamp(min=0) * state["lid"], "squint": 0.3 * squint,
        "sneer": 0.35 * (-brow / 0.8).clamp(min=0), "upper_up": 0.35 * glad * opened, "stretch": 0.25 * sad * opened,
        "lower_down": 0.25 * opened * (1 - pucker),
    }  # fmt: skip
    nothing = torch.zeros_like(smile)
    return torch.stack([shown.get(name, nothing) for name in body.expression_names], 1)


def neighbour_faces(triangles: Tensor, count: int) -> Tensor:
    """For every vertex the triangles round it (v k), padded with the place behind the last triangle."""
    owner = triangles.flatten().cpu()
    order = torch.argsort(owner, stable=True)
    number = torch.bincount(owner, minlength=count)
    table = torch.full((count, int(number.max())), len(triangles))
    first = number.cumsum(0) - number
    place = torch.arange(len(owner)) - first[owner[order]]
    table[owner[order], place] = order // 3
    return table.to(triangles.device)


def normals(points: Tensor, triangles: Tensor, around: Tensor) -> Tensor:
    """Unit normals (n v 3) that point outwards.

    Args:
        around: of `neighbour_faces`.
    """
    a, b, c = points[:, triangles].unbind(2)
    flat = torch.cross(b - a, c - a, dim=-1)
    flat = torch.cat([flat, torch.zeros_like(flat[:, :1])], 1)
    summed = flat[:, around[:, 0]]
    for k in range(1, around.shape[1]):
        summed = summed + flat[:, around[:, k]]
    return summed / summed.norm(dim=-1, keepdim=True).clamp(min=1e-9)


def skinned(
    points: Tensor, weights: Tensor, bones: Tensor, turns: Tensor, places: Tensor, scale: Tensor
) -> Tensor:
    """Vertices as the bones carry them (n v 3).

    Args:
        points: (n v 3) at rest; bones: (n j 3) heads at rest.
        weights: (v j).
        turns, places, scale: of `pose.Pose`.
    """
    turns = turns * scale[:, None, None, None]
    shift = places - (turns @ bones[..., None])[..., 0]
    count = len(points)
    blended = weights @ torch.cat([turns.flatten(2), shift], -1)  # n v 12
    matrix, shift = blended[..., :9].view(count, -1, 3, 3), blended[..., 9:]
    return (matrix * points[..., None, :]).sum(-1) + shift
