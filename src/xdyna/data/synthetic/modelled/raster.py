"""Triangles to pixels in torch, many frames at once: which triangle a pixel shows and where in it.

Every triangle's bounding box becomes a run of candidate pixels; all runs lie in one list, so that nothing loops over
triangles. The nearest candidate of a pixel is found by a scattered minimum over a key of depth and triangle.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_DEPTHS = 1 << 22
"""Steps of depth that are told apart."""

_SLACK = 2e-4  # in shares: triangles overlap by a hair, so that no rounding opens a crack between them
LARGEST_RUN, LARGEST_CPU_RUN = 24_000_000, 3_000_000
"""Candidate pixels at once, which bounds the memory (some 80 bytes each)."""


@dataclass(frozen=True)
class Visible:
    """The p pixels that show something, ordered by frame, row and column.

    Attributes:
        pixel: (p,) int64 (frame * height + row) * width + column.
        frame: (p,) int64.
        corners: (p 3) int64 the shown triangle's corners: frame * v + vertex.
        triangle: (p,) int64.
        shares: (p 3) the place in the triangle.
    """

    pixel: Tensor
    frame: Tensor
    corners: Tensor
    triangle: Tensor
    shares: Tensor

    def at(self, values: Tensor) -> Tensor:
        """Values of vertices (n v c) at the pixels (p c)."""
        corners = values.flatten(0, 1)[self.corners]
        return (corners * self.shares[..., None]).sum(1)


def rasterise(
    points: Tensor, triangles: Tensor, keep: Tensor, size: tuple[int, int], *, behind: Tensor
) -> Visible:
    """What every pixel shows.

    Args:
        points: (n v 3) x and y in pixels, and depth, larger is nearer, in about [-4, 4].
        triangles: (t 3) int64.
        keep: (n v) a surface exists where this, interpolated, is positive.
        size: (height, width).
        behind: (t,) triangles are seen from behind, too, where their least `keep` is below this; from before they
            show corners that run clockwise on the screen.
    """
    count, vertices = points.shape[:2]
    height, width = size
    device = points.device
    corner = points[:, triangles]  # n t 3 3
    xs, ys = corner[..., 0], corner[..., 1]
    area = (xs[..., 1] - xs[..., 0]) * (ys[..., 2] - ys[..., 0]) - (ys[..., 1] - ys[..., 0]) * (
        xs[..., 2] - xs[..., 0]
    )
    left = (xs.amin(-1) - 0.5).ceil().clamp(min=0)
    right = (xs.amax(-1) - 0.5).floor().clamp(max=width - 1)
    top = (ys.amin(-1) - 0.5).ceil().clamp(min=0)
    bottom = (ys.amax(-1) - 0.5).floor().clamp(max=height - 1)
    wide, high = (right - left + 1).clamp(min=0), (bottom - top + 1).clamp(min=0)
    edge = keep[:, triangles]
    there = (edge.amax(-1) > 0) & ((area > 1e-6) | ((edge.amin(-1) < behind) & (area < -1e-6)))
    cost = (wide * high * there).long()

    best = torch.full((count * height * width,), torch.iinfo(torch.int64).max, device=device)
    shift = len(triangles)
    largest = LARGEST_CPU_RUN if device.type == "cpu" else LARGEST_RUN
    for first, last, candidates in _parts(cost.sum(1), largest):
        number = cost[first:last].flatten()
        which = torch.nonzero(number)[:, 0]
        number = number[which]
        total = number.cumsum(0)
        owner = torch.repeat_interleave(
            torch.arange(len(which), device=device), number, output_size=candidates
        )
        step = torch.arange(len(owner), device=device) - (total - number)[owner]
        which = which + first * shift
        across = wide.flatten()[which].long()[owner]
        row = torch.div(step, across, rounding_mode="floor")
        x = left.flatten()[which][owner] + (step - row * across)
        y = top.flatten()[which][owner] + row
        # Barycentric shares and whatever is interpolated are planes: a x + b y + c.
        plane = _planes(corner.flatten(0, 1)[which], edge.flatten(0, 1)[which])
        x, y = x + 0.5, y + 0.5
        second, third = (_on_plane(plane[k], owner, x, y) for k in range(2))
        inside = torch.nonzero((second >= -_SLACK) & (third >= -_SLACK) & (second + third <= 1 + _SLACK))[
            :, 0
        ]
        owner, x, y = owner[inside], x[inside], y[inside]
        inside = torch.nonzero(_on_plane(plane[3], owner, x, y) > 0)[:, 0]
        owner, x, y = owner[inside], x[inside], y[inside]
        depth = ((4 - _on_plane(plane[2], owner, x, y)) * (_DEPTHS / 8)).clamp(0, _DEPTHS - 1).long()
        shown = which[owner]
        frame = torch.div(shown, shift, rounding_mode="floor")
        key = depth * shift + (shown - frame * shift)
        where = (frame * height + y.long()) * width + x.long()
        best.scatter_reduce_(0, where, key, "amin")
    pixel = torch.nonzero(best < torch.iinfo(torch.int64).max)[:, 0]
    triangle = best[pixel] % shift
    frame = torch.div(pixel, height * width, rounding_mode="floor")
    inner = pixel - frame * height * width
    y = torch.div(inner, width, rounding_mode="floor")
    x = inner - y * width
    corners = triangles[triangle] + (frame * vertices)[:, None]
    a, b, c = points.flatten(0, 1)[corners][..., :2].unbind(1)
    p = torch.stack([x + 0.5, y + 0.5], -1)
    whole = _cross(b - a, c - a)
    second, third = _cross(p - a, c - a) / whole, _cross(b - a, p - a) / whole
    shares = torch.stack([1 - second - third, second, third], 1)
    return Visible(pixel, frame, corners, triangle, shares)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _planes(corner: Tensor, keep: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """The slopes along x and y and the constant, each (k,), of second share, third share, depth and keep."""
    a, b, c = corner[..., :2].unbind(1)
    ab, ac = b - a, c - a
    whole = _cross(ab, ac)
    sx = torch.stack([ac[:, 1], -ab[:, 1]], 1) / whole[:, None]
    sy = torch.stack([-ac[:, 0], ab[:, 0]], 1) / whole[:, None]
    values = torch.stack([corner[..., 2], keep], -1)  # k 3 2
    rise = values[:, 1:] - values[:, :1]
    slope_x = torch.cat([sx, (rise * sx[..., None]).sum(1)], 1)
    slope_y = torch.cat([sy, (rise * sy[..., None]).sum(1)], 1)
    start = torch.cat([torch.zeros_like(sx), values[:, 0]], 1)
    constant = start - slope_x * a[:, :1] - slope_y * a[:, 1:]
    parts = (value.t().contiguous() for value in (slope_x, slope_y, constant))
    return list(zip(*parts, strict=True))


def _on_plane(plane: tuple[Tensor, Tensor, Tensor], owner: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return plane[0][owner] * x + plane[1][owner] * y + plane[2][owner]


def _parts(cost: Tensor, largest: int) -> list[tuple[int, int, int]]:
    """Runs of frames with at most so many candidates together, and how many; waits for the device once."""
    parts, first, total = [], 0, 0
    for frame, own in enumerate(cost.tolist()):
        if frame > first and total + own > largest:
            parts.append((first, frame, total))
            first, total = frame, 0
        total += own
    return [*parts, (first, len(cost), total)] if len(cost) > first else parts
