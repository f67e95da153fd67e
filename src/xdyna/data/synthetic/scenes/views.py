"""Still views: land, streets, and what photographs are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from xdyna.data.synthetic.scenery import Scenery, edge, hills, mix, scatter, sky, tint
from xdyna.data.synthetic.shapes import bump, ramp


def land(scene: Scenery) -> Tensor:
    """Hills, mountains and trees under a still sky."""
    picture = sky(scene)
    snow_line = scene.chance(0.4)
    for i in range(4):
        base = scene.number(0.30 + 0.14 * i, 0.46 + 0.15 * i)
        haze = 0.75 - 0.2 * i
        near, far = (
            scene.colour((0.12, 0.42), (0.2, 0.75), (0.3, 0.8)),
            scene.colour((0.52, 0.68), (0.1, 0.4), (0.45, 0.85)),
        )
        rough = 0.10 if i == 0 else 0.04
        picture = hills(
            scene, base, near + (far - near) * haze * (1 - 0.4 * snow_line[:, :, None]), picture, i % 3, rough
        )
    trunk_x = scene.number(-0.8, 0.8)
    crown = scene.noise(scene.x * 0.9, scene.y * 0.9, 1) * 0.06 + scene.number(0.12, 0.3)
    crown = crown - ((scene.x - trunk_x) ** 2 + ((scene.y - scene.number(0.2, 0.5)) * 0.8) ** 2).sqrt()
    here = scene.chance(0.4)
    trunk = torch.maximum((scene.x - trunk_x).abs() - 0.02, 0.4 - scene.y)
    picture = mix(
        picture,
        scene.colour((0.05, 0.1), (0.3, 0.6), (0.15, 0.35)),
        edge(scene, -trunk) * here * edge(scene, 0.85 - scene.y),
    )
    leaves = (
        scene.colour((0.15, 0.42), (0.3, 0.8), (0.2, 0.6))
        * (1 + 0.28 * scene.noise(scene.x * 2.2, scene.y * 2.2, 2))[:, :, None]
    )
    return mix(picture, leaves, edge(scene, crown, 2.0) * here)


def street(scene: Scenery) -> Tensor:
    """House fronts along a street: windows in rows, doors, shop signs, a pavement, a tree or a lamp post."""
    x, y = scene.x, scene.y
    foot = scene.number(0.66, 0.82)
    picture = sky(scene)
    shift = scene.number(0, 40)
    house = x * scene.number(1.6, 2.8) + shift
    column = house.floor()
    own, other, third = (scatter(column, float(k), shift) for k in (1, 2, 3))
    t = house - column
    roof = scene.number(0.0, 0.22) - 0.28 * (own - 0.5)
    gable = roof - 0.12 * (other > 0.6) * (0.5 - (t - 0.5).abs())
    first, second, tone = (scene.colour((0, 1), (0.05, 0.5), (0.35, 0.95)) for _ in range(3))
    wall = mix(mix(first, second, own), tone, (third > 0.55) * 0.8)
    grain = scene.noise(x * 1.2, y * 1.2, 1)
    bricks = ramp(((y * 46) % 1 - 0.5).abs(), 0.40, 0.5) + ramp(
        ((x * 20 + 0.5 * ((y * 46).floor() % 2)) % 1 - 0.5).abs(), 0.43, 0.5
    )
    wall = wall * (0.95 + 0.06 * grain - 0.14 * bricks.clamp(max=1) * (other > 0.4))[:, :, None]
    # Windows: two or three a floor, with frames, sills and reflections.
    wide = 2 + (other > 0.5) * 1.0
    cu, cv = t * wide, (foot - y) * (5.6 + 2 * third)
    du, dv = (cu - cu.floor() - 0.5).abs(), cv - cv.floor() - 0.52
    level = torch.maximum(du - 0.25, dv.abs() - 0.30)
    lit = scatter(column * 7 + cu.floor(), cv.floor(), shift)
    glass = (
        scene.colour((0.5, 0.65), (0.1, 0.5), (0.2, 0.6))
        * (0.7 + 0.6 * lit + 0.5 * (dv + 0.3) * (lit > 0.3))[:, :, None]
    )
    glass = glass * (1 + 0.25 * scene.noise(x * 0.8, y * 0.8, 2))[:, :, None]
    blind = torch.full_like(first, 0.8) * (0.8 + 0.2 * lit)[:, :, None]
    glass = mix(glass, blind, ((lit > 0.6) & (dv > 0.3 - lit * 0.4)) * 0.85)
    above = ramp(cv, 0.98, 1.02) * ramp(y - roof, 0.02, 0.05)
    wall = mix(wall, torch.ones_like(first) * (0.35 + 0.6 * own)[:, :, None], ramp(level, 0.06, 0.04) * above)
    pane = torch.minimum(du, dv.abs()) - 0.018
    wall = mix(
        wall,
        mix(torch.ones_like(first) * 0.8, glass, ramp(pane, 0.0, 0.02)),
        ramp(level, 0.015, -0.015) * above,
    )
    # The ground floor: a shop or a door.
    shop = torch.maximum((t - 0.5).abs() - 0.40, (foot - y - 0.075).abs() - 0.065)
    goods = 0.35 + 0.30 * scene.colours(x * 1.8, y * 1.8)
    wall = mix(wall, goods * 0.9, edge(scene, -shop) * (third > 0.4))
    sign = torch.maximum((t - 0.5).abs() - 0.43, (foot - y - 0.165).abs() - 0.018)
    wall = mix(wall, mix(second, first, other) * 0.7, edge(scene, -sign) * (third > 0.4))
    door = torch.maximum((t - 0.3 - 0.3 * own).abs() - 0.07, (foot - y - 0.07).abs() - 0.07)
    wall = mix(wall, tone * 0.45, edge(scene, -door) * (third <= 0.4))
    gap = 1 - 0.25 * ramp((t - 0.5).abs(), 0.485, 0.5)
    picture = mix(picture, wall * gap[:, :, None], edge(scene, y - gable))
    # Everything lies in the shade of one side of the street.
    shade = scene.number(-0.5, 0.5) + 0.5 * (y - 0.4)
    picture = picture * (1 - scene.number(0, 0.35) * edge(scene, x - shade, 4.0))[:, :, None]
    walk = scene.colour((0.05, 0.7), (0.0, 0.15), (0.4, 0.8)) * (1 + 0.06 * grain)[:, :, None]
    depth = 0.2 / (y - foot + 0.06).clamp(min=0.02)
    joint = ramp(((x * depth * 4) % 1 - 0.5).abs(), 0.46, 0.5) + ramp(
        ((depth * 5) % 1 - 0.5).abs(), 0.44, 0.5
    )
    picture = mix(picture, walk * (1 - 0.14 * joint.clamp(max=1))[:, :, None], edge(scene, y - foot))
    kerb = foot + scene.number(0.08, 0.16)
    road = (
        scene.colour((0.5, 0.7), (0, 0.15), (0.2, 0.5))
        * (1 + 0.10 * scene.noise(x * 1.5, y * 3, 0))[:, :, None]
    )
    picture = mix(picture, walk * 0.7, edge(scene, y - kerb))
    picture = mix(picture, road, edge(scene, y - kerb - 0.018))
    # Parked cars, a tree, a lamp post.
    for _ in range(2):
        cx, here = scene.number(-0.9, 0.9), scene.chance(0.45)
        dx, dy = (x - cx) / 0.20, (y - kerb + 0.012) / 0.085
        body = torch.maximum(dx.abs() - 1, torch.maximum(-0.75 - dy, dy - 0.35)) - 0.10
        cabin = torch.maximum(dx.abs() - 0.62 - 0.30 * (dy + 1.4), torch.maximum(-1.5 - dy, dy + 0.6))
        wheel = ((dx.abs() - 0.58) ** 2 * 5.5 + (dy - 0.36) ** 2 + 1e-6).sqrt() - 0.36
        paint = (
            scene.colour((0, 1), (0, 0.9), (0.2, 0.95))
            * (1.05 - 0.35 * (dy + 0.75).clamp(0, 1.2))[:, :, None]
        )
        picture = mix(
            picture, 0.12 * torch.ones_like(first), bump((dy - 0.55) / 0.25) * (dx.abs() < 1.0) * 0.6 * here
        )
        picture = mix(picture, paint, ramp(torch.minimum(body, cabin - 0.12), 0.06, -0.02) * here)
        picture = mix(
            picture,
            torch.full_like(first, 0.25) + 0.3 * (0.3 * dx - dy - 0.9).clamp(0, 1)[:, :, None],
            ramp(cabin, 0.05, -0.05) * here,
        )
        picture = mix(picture, torch.full_like(first, 0.08), ramp(wheel, 0.05, -0.05) * here)
    post, here = scene.number(-0.8, 0.8), scene.chance(0.5)
    mast = torch.maximum((x - post).abs() - 0.010, torch.maximum(0.08 - y, y - kerb))
    head = ((x - post) ** 2 + (y - 0.08) ** 2 + 1e-6).sqrt() - 0.035
    picture = mix(picture, torch.full_like(first, 0.2), edge(scene, -mast) * here)
    picture = mix(picture, torch.full_like(first, 0.9), edge(scene, -head) * here)
    tree, here = scene.number(-0.9, 0.9), scene.chance(0.5)
    leaf = scene.noise(x * 1.3, y * 1.3, 0)
    crown = 0.20 + 0.035 * leaf - (((x - tree) * 1.1) ** 2 + (y - foot + 0.42) ** 2 + 1e-6).sqrt()
    trunk = torch.maximum((x - tree).abs() - 0.014, torch.maximum(foot - 0.4 - y, y - kerb + 0.03))
    picture = mix(picture, scene.colour((0.04, 0.1), (0.2, 0.5), (0.15, 0.4)), edge(scene, -trunk) * here)
    green = (
        scene.colour((0.1, 0.4), (0.3, 0.8), (0.25, 0.65))
        * (1 + 0.25 * leaf - 0.8 * (y - foot + 0.42))[:, :, None]
    )
    return mix(picture, green, ramp(crown, -0.015, 0.02) * here)


def photo(scene: Scenery) -> Tensor:
    """What photographs are made of: things of all sizes that hide one another, each with its own cloth and shade.

    The "dead leaves" model of natural pictures (Lee, Mumford and Huang 2001), out of focus at times.
    """
    x, y = scene.x, scene.y
    first, second = (
        scene.colour((0, 1), (0.05, 0.5), (0.2, 0.9)),
        scene.colour((0, 1), (0.05, 0.6), (0.2, 0.9)),
    )
    picture = mix(first, second, (y + scene.number(-0.5, 0.5) * x).clamp(0, 1)) + 0.12 * scene.colours(
        x * 0.4, y * 0.4
    )
    fine = scene.noise(x * 1.5, y * 1.5, 0)
    broad = scene.noise(x * 0.5, y * 0.5, 1)
    accent, soft = scene.number(0, 1), 1 + scene.number(0, 12) * scene.chance(0.5)
    for i in range(22):
        # Sizes fall as 1/r^3, as they must for a picture that looks alike at every scale.
        size = 0.125 / (scene.number(0.0, 1.0) * 0.9 + 0.06) ** 0.5 * (1.25 - 0.025 * i)
        dx, dy = x - scene.number(-1, 1), y - scene.number(-0.1, 1.1)
        angle, stretch = scene.number(0, 3.14), scene.number(0.35, 1.0)
        u, v = dx * angle.cos() + dy * angle.sin(), (dy * angle.cos() - dx * angle.sin()) / stretch
        box = torch.maximum(u.abs(), v.abs())
        oval = (u * u + v * v + 1e-6).sqrt() * (1 + 0.06 * broad)
        level = torch.where(scene.number(0, 1) < 0.35, box, oval) - size
        hue = accent + scene.number(-0.12, 0.12) + 0.5 * scene.chance(0.3)
        colour = tint(hue, scene.number(0.02, 0.75), scene.number(0.08, 1.0))
        light = (
            1
            + 0.45 * (u * scene.number(-1, 1) + v * scene.number(-1, 1)) / size
            + 0.12 * fine * scene.number(0, 1)
        )
        picture = picture * (1 - 0.28 * ramp(level, 0.05, 0.0) * (level > 0))[:, :, None]
        picture = mix(picture, colour * light[:, :, None], edge(scene, -level, soft))
    return picture
