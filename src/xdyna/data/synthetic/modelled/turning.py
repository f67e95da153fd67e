"""Rotations as matrices (... 3 3); x to the picture's right, y down, z towards the viewer."""

from __future__ import annotations

import torch
from torch import Tensor


def about(axis: int, angle: Tensor) -> Tensor:
    """Turns about an axis, with the signs of the drawn people's motion.

    Args:
        axis: 0 nods (what faces the viewer looks down), 1 turns (what faces the viewer looks to the picture's right),
            2 rolls (clockwise as seen).
        angle: (n,) radians.
    """
    first, second = ((2, 1), (2, 0), (0, 1))[axis]
    matrix = torch.eye(3, device=angle.device).repeat(len(angle), 1, 1)
    cos, sin = angle.cos(), angle.sin()
    matrix[:, first, first] = cos
    matrix[:, second, second] = cos
    matrix[:, second, first] = sin
    matrix[:, first, second] = -sin
    return matrix


def unit(vectors: Tensor) -> Tensor:
    """Vectors (... 3) of length 1."""
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1e-7)


def shortest(start: Tensor, end: Tensor) -> Tensor:
    """The smallest rotation that brings one unit vector (n 3) to another."""
    axis = torch.cross(start, end, dim=-1)
    cosine = (start * end).sum(-1).clamp(min=-0.999)
    skew = _skew(axis)
    return torch.eye(3, device=start.device) + skew + skew @ skew / (1 + cosine)[:, None, None]


def spun(axis: Tensor, angle: Tensor) -> Tensor:
    """Rotations by an angle (n,) about unit axes (n 3) (Rodrigues)."""
    skew = _skew(axis)
    sin, cos = angle.sin()[:, None, None], angle.cos()[:, None, None]
    return torch.eye(3, device=axis.device) + sin * skew + (1 - cos) * (skew @ skew)


def frame(first: Tensor, second: Tensor) -> Tensor:
    """An orthonormal frame (n 3 3), columns: the first vector, the second made upright to it, their cross product."""
    a = unit(first)
    b = unit(second - (second * a).sum(-1, keepdim=True) * a)
    return torch.stack([a, b, torch.cross(a, b, dim=-1)], -1)


def _skew(axis: Tensor) -> Tensor:
    x, y, z = axis.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
