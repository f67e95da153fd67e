"""All surfaces of a modelled person as one mesh: skin, shells of cloth, a cap of hair, and sheets that hang freely.

A shell takes its vertices from the skin, smoothed, so that it needs no skeleton of its own; a sheet is a grid. Places
on the body at rest ("canon": the mean body, standing heights, feet on y = 0) tell what is where, for everybody alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from xdyna.data.synthetic.modelled.asset import Body, body_on
from xdyna.data.synthetic.modelled.skin import neighbour_faces

LAYERS = ("skin", "top", "bottom", "shoe", "cap", "curtain", "skirt", "tuft", "teeth")
_BEHIND = (-9.0, 0.03, 0.03, 0.03, 0.3, 9.0, 9.0, -9.0, -9.0)
"""How near their edge the insides of layers show: skin's never, those of sheets everywhere."""
NECK, WAIST, HIPS = -0.802, -0.628, -0.532
"""Heights on the mean body: the line of the shoulders, the waist, the hip joints."""
HEAD = (0.0, -0.935, 0.031)
"""Middle of the mean head; its half height is `HEAD_UNIT`."""
HEAD_UNIT = 0.0635
CAP = (72, 24)
CURTAIN = (45, 14)
SKIRT = (44, 12)
TUFT = (12, 9)
TUFTS = 2
TEETH = (13, 3)
ARM = ((0.0974, -0.802, 0.014), (0.2013, -0.6874, 0.0209), (0.272, -0.6169, 0.1158))
LEG = ((0.0651, -0.5299, 0.0027), (0.0827, -0.2884, 0.0207), (0.1069, -0.045, 0.0014))
SMOOTHED = {"top": 9, "bottom": 7, "shoe": 22, "cap": 3}


@dataclass(frozen=True)
class Layers:
    """The mesh's fixed parts; s vertices are skin, k shells', the rest sheets'.

    Attributes:
        body: on the same device.
        canon: (v 3) canonical places.
        first: where each layer's vertices begin.
        shells: (1+m k 3) the mean shells, smoothed from the skin, and what each of a body's m components adds to
            them; shell_triangles: theirs alone. weights: (s+k j) of the bones.
        triangles: (t 3); layer: (t,) places in `LAYERS`; limb: (t,) bool, of an arm or a leg.
        behind: (t,) see `raster.rasterise`; around, shell_around: of `neighbour_faces`, the second
            of the shells alone.
        along_arm, along_leg: (s+k) 0 at the shoulder (hip), 1 at the elbow (knee), 2 at the wrist (ankle); -1
            elsewhere.
        openness: (v,) how much light from all sides reaches a vertex.
    """

    body: Body
    canon: Tensor
    first: dict[str, int]
    shells: Tensor
    shell_triangles: Tensor
    weights: Tensor
    triangles: Tensor
    layer: Tensor
    limb: Tensor
    behind: Tensor
    around: Tensor
    shell_around: Tensor
    along_arm: Tensor
    along_leg: Tensor
    openness: Tensor

    def of(self, name: str) -> slice:
        """The vertices of a layer."""
        following = LAYERS.index(name) + 1
        last = self.first[LAYERS[following]] if following < len(LAYERS) else len(self.canon)
        return slice(self.first[name], last)


def along(canon: Tensor, chain: tuple[tuple[float, ...], ...]) -> Tensor:
    """How far down a limb a place (... 3) is, in bones; both sides alike."""
    a, b, c = (torch.tensor(point, device=canon.device) for point in chain)
    place = canon * torch.tensor([1.0, 1, 1], device=canon.device)
    place = torch.cat([place[..., :1].abs(), place[..., 1:]], -1)
    first = ((place - a) * (b - a)).sum(-1) / ((b - a) ** 2).sum()
    second = ((place - b) * (c - b)).sum(-1) / ((c - b) ** 2).sum()
    return torch.where(second > 0, 1 + second, first.clamp(max=1))


def grid(columns: int, rows: int, start: int, *, closed: bool) -> Tensor:
    """Triangles of a grid whose vertices lie row by row, clockwise as seen with rows down and columns to the right."""
    across = torch.arange(columns if closed else columns - 1)
    down = torch.arange(rows - 1)
    a = down[:, None] * columns + across
    b = down[:, None] * columns + (across + 1) % columns
    quads = torch.stack([a, b, b + columns, a, b + columns, a + columns], -1)
    return quads.reshape(-1, 3) + start


@cache
def layers_on(device: torch.device) -> Layers:
    """The layers on a device, made once."""
    built = _build(body_on(torch.device("cpu")))
    moved = {name: value.to(device) for name, value in vars(built).items() if isinstance(value, Tensor)}
    return Layers(body=body_on(device), first=built.first, **moved)


def _build(body: Body) -> Layers:
    low, high = body.mean[:, 1].max(), body.mean[:, 1].min()
    canon = (body.mean - torch.stack([0 * low, low, 0 * low])) / (low - high)
    count = len(canon)
    part = body.part

    def weight(*stems: str) -> Tensor:
        own = [i for i, name in enumerate(body.bone_names) if name.partition(".")[0] in stems]
        return body.weights[:, own].sum(1)

    fingers = tuple(f"finger{i}-{k}" for i in range(1, 6) for k in range(1, 4))
    arm = weight("upperarm01", "lowerarm01", "lowerarm02", "wrist", *fingers)
    leg = weight("upperleg01", "lowerleg01", "foot")
    along_arm = along(canon, ARM) * arm - (1 - arm)
    along_leg = along(canon, LEG) * leg - (1 - leg)

    middle = canon[body.triangles].mean(1)
    is_body = part == body.parts.index("body")
    of_arm = arm[body.triangles].mean(1) > 0.5
    sleeve = along_arm[body.triangles].mean(1) > 0.10
    of_leg = leg[body.triangles].mean(1) > 0.5
    upper = is_body & ((middle[:, 1] < HIPS + 0.06) | of_arm) & (middle[:, 1] > -0.872) & ~of_leg
    upper |= is_body & (middle[:, 1] < HIPS + 0.07) & (middle[:, 1] > -0.872)
    lower = is_body & (middle[:, 1] > WAIST - 0.03) & ~of_arm
    foot = (part == body.parts.index("foot")) | (is_body & (middle[:, 1] > -0.09))
    triangles, layer, limb = [body.triangles], [torch.zeros(len(part), dtype=torch.long)], [of_arm | of_leg]
    rows, places, first = [], [canon], {"skin": 0}
    total = count
    for name, chosen, kind in (("top", upper, sleeve), ("bottom", lower, of_leg), ("shoe", foot, of_leg)):
        own = body.triangles[chosen]
        used = own.unique()
        rows.append(_smoothing(own, used, count, SMOOTHED[name]))
        into = torch.full((count,), -1)
        into[used] = torch.arange(len(used)) + total
        triangles.append(into[own])
        layer.append(torch.full((len(own),), LAYERS.index(name)))
        limb.append(kind[chosen])
        # A smoothed place for a smoothed vertex, so that edges and patterns run straight.
        places.append(rows[-1] @ canon)
        first[name], total = total, total + len(used)
    cap, cap_places = _cap(body, canon)
    rows.append(cap)
    first["cap"] = total
    triangles.append(grid(*CAP, total, closed=True))
    places.append(cap_places)
    total += len(cap_places)
    for name, (columns, depth), copies, closed in (
        ("curtain", CURTAIN, 1, False), ("skirt", SKIRT, 1, True), ("tuft", TUFT, TUFTS, True),
        ("teeth", TEETH, 1, False),
    ):  # fmt: skip
        first[name] = total
        for _ in range(copies):
            triangles.append(grid(columns, depth, total, closed=closed))
            places.append(_sheet(columns, depth))
            total += columns * depth
    sizes = {"cap": 1, "curtain": 1, "skirt": 1, "tuft": TUFTS, "teeth": 1}
    for name, copies in sizes.items():
        for part_triangles in triangles[len(layer) : len(layer) + copies]:
            layer.append(torch.full((len(part_triangles),), LAYERS.index(name)))
            limb.append(torch.zeros(len(part_triangles), dtype=torch.bool))
    spread = torch.cat(rows)
    every = torch.cat(triangles)
    kinds = torch.cat(layer)
    shell_triangles = every[(kinds > 0) & (kinds < 5)] - count
    shells = torch.cat([along_arm[:, None], along_leg[:, None], body.openness[:, None]], 1)
    shells = torch.cat([shells, spread @ shells])
    open_all = torch.cat([shells[:, 2], torch.ones(total - len(shells))])
    return Layers(
        body, torch.cat(places), first, _shells(body, spread), shell_triangles,
        torch.cat([body.weights, spread @ body.weights]),
        every, kinds, torch.cat(limb), torch.tensor(_BEHIND)[kinds], neighbour_faces(every, total),
        neighbour_faces(shell_triangles, len(spread)),
        shells[:, 0], shells[:, 1], open_all,
    )  # fmt: skip


def _shells(body: Body, spread: Tensor) -> Tensor:
    """(1+m k 3) the shells of the mean body and of each of its components, see `shape.Rest.scores`."""
    count = len(body.mean)
    mean = body.mean.index_add(0, body.head_vertices, body.face_mean)
    faces = torch.zeros(len(body.faces), count, 3).index_add(1, body.head_vertices, body.faces)
    parts = torch.cat([mean[None], body.shapes[:, :count], faces])
    return torch.stack([spread @ part for part in parts])


def _smoothing(triangles: Tensor, used: Tensor, count: int, steps: int) -> Tensor:
    """(u count): every used vertex as a mean of those round it, `steps` edges far."""
    place = torch.full((count,), -1)
    place[used] = torch.arange(len(used))
    own = place[triangles]
    near = torch.zeros(len(used), len(used))
    for i in range(3):
        near[own[:, i], own[:, (i + 1) % 3]] = 1
        near[own[:, (i + 1) % 3], own[:, i]] = 1
    # The rim only follows itself, or it would shrink.
    edges = torch.cat([own[:, [0, 1]], own[:, [1, 2]], own[:, [2, 0]]])
    code, number = (edges.amin(1) * len(used) + edges.amax(1)).unique(return_counts=True)
    rim = torch.stack([code // len(used), code % len(used)], 1)[number == 1]
    on_rim = torch.zeros(len(used), dtype=torch.bool)
    on_rim[rim.flatten()] = True
    near[on_rim] = 0
    near[rim[:, 0], rim[:, 1]] = 1
    near[rim[:, 1], rim[:, 0]] = 1
    near = near / near.sum(1, keepdim=True).clamp(min=1)
    mixed = torch.eye(len(used))
    for _ in range(steps):
        mixed = 0.5 * mixed + 0.5 * (near @ mixed)
    wide = torch.zeros(len(used), count)
    wide[:, used] = mixed
    return wide


def cap_rays() -> tuple[Tensor, Tensor]:
    """Angles round the head (0 the face, towards the picture's right) and rows (0 the crown, 1 below the nape)."""
    columns, rows = CAP
    angle = (torch.arange(columns) / columns * 2 - 1) * math.pi
    # Rows step down evenly; the crown's row is a small ring.
    row = torch.arange(rows) / (rows - 1)
    row, angle = torch.meshgrid(row, angle, indexing="ij")
    return angle, row


def _cap(body: Body, canon: Tensor) -> tuple[Tensor, Tensor]:
    """(k s) the grid of hair on the skull as shares of the skin's vertices, and its canonical places (k 3)."""
    angle, row = cap_rays()
    dip = (0.001 + 2.13 * row).flatten()  # from straight up
    angle = angle.flatten()
    way = torch.stack([dip.sin() * angle.sin(), -dip.cos(), dip.sin() * angle.cos()], 1)
    # The jaw keeps hair from going down there in front.
    start = torch.tensor(HEAD)
    own = body.triangles[body.part == body.parts.index("head")]
    own = torch.cat([own, body.triangles[(body.part == 0) & (canon[body.triangles].mean(1)[:, 1] < -0.83)]])
    a, b, c = canon[own].unbind(1)
    e1, e2 = b - a, c - a
    rows = torch.zeros(len(way), len(canon))
    for i, ray in enumerate(way):
        h = torch.cross(ray.expand_as(e2), e2, dim=1)
        det = (e1 * h).sum(1)
        s = start - a
        u = (s * h).sum(1) / det
        q = torch.cross(s, e1, dim=1)
        v = (q * ray).sum(1) / det
        t = (e2 * q).sum(1) / det
        hit = (u > -1e-4) & (v > -1e-4) & (u + v < 1.0001) & (t > 0.02)
        outward = (torch.cross(e1, e2, dim=1) * ray).sum(1) > 0
        hit = torch.nonzero(hit & outward)[:, 0]
        if not len(hit):
            hit = ((a + b + c) / 3 - start - 0.06 * ray).norm(dim=1).argmin()[None]
        chosen = hit[t[hit].argmin()]
        corner = own[chosen]
        w = torch.stack([1 - u[chosen] - v[chosen], u[chosen], v[chosen]]).clamp(0, 1)
        rows[i, corner] = w / w.sum()
    # Ears bulge the skull; their neighbours round the head smooth them away.
    columns, depth = CAP
    smooth = rows.view(depth, columns, -1)
    for _ in range(SMOOTHED["cap"]):
        smooth = 0.4 * smooth + 0.3 * (smooth.roll(1, 1) + smooth.roll(-1, 1))
    rows = smooth.flatten(0, 1)
    return rows, rows @ canon


def _sheet(columns: int, rows: int) -> Tensor:
    """Canonical places of a sheet: (across in [-1, 1], down in [0, 1], 0)."""
    down, across = torch.meshgrid(torch.linspace(0, 1, rows), torch.linspace(-1, 1, columns), indexing="ij")
    return torch.stack([across, down, 0 * down], -1).flatten(0, 1)
