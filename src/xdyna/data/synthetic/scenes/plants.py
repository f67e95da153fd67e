"""Plants in wind: grass, leaves, flowers."""

from __future__ import annotations

import torch
from torch import Tensor

from xdyna.data.synthetic.scenery import Scenery, edge, ground, hills, mix, scatter, sky
from xdyna.data.synthetic.shapes import ramp, smooth_ramp


def grass(scene: Scenery) -> Tensor:
    """A meadow whose blades bend in gusts."""
    x, y, time = scene.x, scene.y, scene.time
    picture = hills(
        scene, scene.number(0.4, 0.55), scene.colour((0.2, 0.5), (0.2, 0.6), (0.25, 0.6)), sky(scene)
    )
    hue = 0.2
    for i in range(4):
        base, high = scene.number(0.58 + 0.11 * i, 0.66 + 0.11 * i), 0.20 + 0.05 * i
        up = ((base + 0.14 - y) / high).clamp(0, 1.3)
        gust = 0.07 * (time * scene.number(2.0, 5.0) + x * scene.number(3, 8) + scene.number(0, 6)).sin()
        gust = gust + 0.03 * (time * scene.number(5, 9) + x * 9).sin()
        bent = x + gust * up * up
        blades = scene.noise(bent * 2.4 + 0.3 * i, 0 * x + 0.2 * i, i % 3)
        shape = ramp(0.55 + 0.38 * blades.clamp(-1.4, 1.3) - up, 0, 0.06)
        dark, light = (
            scene.colour((hue - 0.05, hue + 0.1), (0.4, 0.9), (0.2, 0.5)),
            scene.colour((hue - 0.06, hue + 0.08), (0.3, 0.8), (0.45, 0.9)),
        )
        picture = mix(picture, mix(dark, light, (up * 0.8 + 0.12 * blades).clamp(0, 1)), shape)
    return picture


def leaves(scene: Scenery) -> Tensor:
    """Trees in wind: masses of leaves that sway, light between them."""
    x, y, time = scene.x, scene.y, scene.time
    picture = mix(
        scene.colour((0.1, 0.5), (0.05, 0.4), (0.6, 1.0)),
        scene.colour((0.15, 0.4), (0.2, 0.6), (0.3, 0.7)),
        y.clamp(0, 1),
    )
    hue = scene.number(0.06, 0.34)
    for i in range(3):
        rate, phase = scene.number(1.2, 3.0), scene.number(0, 6)
        sway = (0.010 + 0.008 * i) * (
            (time * rate + phase + x * 3).sin() + 0.5 * (time * rate * 2.3 + y * 7).sin()
        )
        size = 0.75 + 0.35 * i
        tree = scene.noise((x + sway) * size + scene.number(0, 1), (y + 0.5 * sway) * size, i)
        tone = scene.noise((x + 1.3 * sway) * size * 2.3, (y + sway) * size * 2.3, (i + 1) % 3)
        colour = scene.colour((0.0, 0.05), (0.3, 0.8), (0.3, 0.8))
        green = torch.stack(
            [colour[:, :, 0] * (0.6 + hue), colour[:, :, 0] * (1.0 + 0 * hue), colour[:, :, 2] * 0.8], 2
        )
        picture = mix(
            picture, green * (1 + 0.35 * tone)[:, :, None], smooth_ramp(tree, -0.25, 0.15) * (0.9 - 0.1 * i)
        )
    return ground(scene, scene.number(0.8, 1.2), picture)


def flowers(scene: Scenery) -> Tensor:
    """A field of flowers that nod and sway, near ones large and far ones small."""
    x, y, time = scene.x, scene.y, scene.time
    horizon = scene.number(0.30, 0.48)
    picture = hills(scene, horizon, scene.colour((0.2, 0.5), (0.2, 0.6), (0.25, 0.6)), sky(scene))
    green = scene.colour((0.2, 0.36), (0.4, 0.8), (0.25, 0.5))
    field = green * (1 + 0.25 * scene.noise(x * 1.5, (y - horizon) * 3.0, 1))[:, :, None]
    picture = mix(picture, field, edge(scene, y - horizon - 0.02, 2.0))
    petals, core = scene.colour((0, 1), (0.3, 0.95), (0.7, 1)), scene.colour((0.08, 0.16), (0.6, 1), (0.5, 1))
    other, mixed = scene.colour((0, 1), (0.1, 0.9), (0.8, 1)), scene.chance(0.6)
    count = scene.number(4, 7).floor()
    rate, phase = scene.number(1.4, 3.2), scene.number(0, 6)
    for i in range(5):
        near = (i + 1.4) / 5
        size = 0.085 * near * near + 0.012
        level = horizon + 0.03 + 0.62 * near * near
        grid = 0.5 / size
        gust = (time * rate + 2.5 * x + phase + i).sin() + 0.5 * (time * rate * 2.1 + 6 * x + i).sin()
        sway = size * (0.55 * gust + 1.2 * scene.wind)
        column = ((x + 0.19 * i) * grid).floor()
        own, more = scatter(column, float(i), phase), scatter(column, float(i) + 9, phase)
        nod = sway * (0.7 + 0.6 * more)
        middle = (column + 0.5 + 0.16 * (2 * own - 1)) / grid - 0.19 * i
        top = level - size * (1.0 - 2.4 * more)
        up = ((y - top) / (3.2 * size)).clamp(0, 1)
        stem = (x - middle - 0.6 * nod * (1 - up) ** 2).abs()
        high = ramp(stem, 0.16 * size, 0.06 * size) * edge(scene, y - top)
        blades = scene.noise((x - 0.6 * sway) * 1.3 / near, 0 * x + 0.21 * i, i % 3)
        grass = ramp(y - level - size * 1.6 + 0.9 * size * blades, -0.6 * size, 0.6 * size)
        tone = (0.55 + 0.45 * near) * (1 + 0.22 * blades)
        picture = mix(picture, green * tone[:, :, None], torch.maximum(grass, high))
        dx, dy = (x - middle - 0.6 * nod) / size, (y - top) / size * 1.25
        far = (dx * dx + dy * dy + 1e-6).sqrt()
        leaf = (torch.atan2(dy, dx) * count + 6 * own).sin()
        head = ramp(0.40 + 0.11 * leaf - far, -0.04, 0.06)
        own_colour = mix(petals, other, (more > 0.5) * mixed)
        shade = (0.75 + 0.3 * ramp(far, 0.0, 0.4) + 0.1 * leaf - 0.12 * dy)[:, :, None]
        picture = mix(picture, own_colour * shade, head * (own > 0.12))
        picture = mix(picture, core, ramp(0.14 - far, -0.03, 0.03) * (own > 0.12))
    return picture
