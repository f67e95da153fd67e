"""Sky and weather: clouds, snow, aurora, dust."""

from __future__ import annotations

import torch
from torch import Tensor

from xdyna.data.synthetic.scenery import Scenery, cells, edge, hills, mix, scatter, sky, tint
from xdyna.data.synthetic.shapes import bump, ramp, smooth_ramp


def clouds(scene: Scenery) -> Tensor:
    """A sky whose clouds drift, over a ridge or none."""
    x, y, time = scene.x, scene.y, scene.time
    drift = scene.number(0.04, 0.14) * torch.where(scene.number(0, 1) < 0.5, -1.0, 1.0)
    size = scene.number(0.3, 0.65)
    low = scene.noise(x * size + time * drift + scene.number(0, 1), y * size * 1.5, 0)
    high = scene.noise(x * size * 1.7 + time * drift * 1.5, y * size * 2.2 - time * 0.02, 1)
    thick = 0.7 * low + 0.45 * high + scene.number(-0.3, 0.4)
    light, shade = (
        scene.colour((0, 0.15), (0, 0.25), (0.85, 1)),
        scene.colour((0.5, 0.9), (0.05, 0.3), (0.45, 0.8)),
    )
    picture = mix(sky(scene), mix(light, shade, ramp(high - low, -1.0, 2.0)), smooth_ramp(thick, -0.2, 1.1))
    return hills(
        scene, scene.number(0.62, 1.1), scene.colour((0.15, 0.45), (0.2, 0.7), (0.15, 0.55)), picture, 2
    )


def snow(scene: Scenery) -> Tensor:
    """Snow or rain falling before a winter scene or a street."""
    x, y, time = scene.x, scene.y, scene.time
    picture = mix(
        scene.colour((0.5, 0.8), (0.05, 0.6), (0.1, 0.6)),
        scene.colour((0.5, 0.8), (0.05, 0.4), (0.3, 0.8)),
        y.clamp(0, 1),
    )
    for i in range(2):
        picture = hills(
            scene,
            scene.number(0.5 + 0.2 * i, 0.75 + 0.2 * i),
            scene.colour((0.5, 0.7), (0.02, 0.3), (0.4, 0.98)),
            picture,
            i,
        )
    rain = scene.chance(0.4)
    for i in range(3):
        count = 5 + 3 * i
        speed, wind = (0.16 + 0.05 * i) * (1 + 2.0 * rain), scene.number(-0.08, 0.08)
        cell_x, cell_y = (x + wind * time - 0.3 * wind * y) * count, (y - speed * time) * count
        column, row = cell_x.floor(), cell_y.floor()
        salt = scene.number(0, 100)
        dx, dy = (
            cell_x - column - 0.3 - 0.4 * scatter(column, row, salt),
            cell_y - row - 0.3 - 0.4 * scatter(row, column, salt + 3),
        )
        far = ((dx * (1 + 2.5 * rain)) ** 2 + (dy / (1 + 2.0 * rain)) ** 2).sqrt()
        flake = ramp(0.12 - 0.02 * i + 0.05 * scatter(column, row, salt + 7) - far, -0.05, 0.05) * (
            0.9 - 0.4 * rain
        )
        picture = mix(picture, torch.ones_like(picture), flake)
    return picture


def aurora(scene: Scenery) -> Tensor:
    """Northern lights: curtains of light that fold and ripple among stars, over snow or a dark ridge."""
    x, y, time = scene.x, scene.y, scene.time
    picture = mix(
        scene.colour((0.58, 0.75), (0.5, 0.9), (0.03, 0.14)),
        scene.colour((0.5, 0.7), (0.3, 0.8), (0.08, 0.3)),
        y.clamp(0, 1),
    )
    across, down, seed = cells(x * 26, y * 26, scene.number(0, 99))
    star = ramp(0.10 * seed - (across * across + down * down).sqrt(), -0.02, 0.03)
    picture = picture + (star * (0.7 + 0.3 * (time * 3 + seed * 40).sin()))[:, :, None]
    hue = scene.number(0.30, 0.46)
    for i in range(3):
        base, rate = scene.number(0.30, 0.56) - 0.06 * i, scene.number(0.05, 0.12)
        fold = scene.noise(x * 0.22 + time * rate * 0.5 + 0.3 * i, 0 * x + time * rate * 0.3 + 0.3 * i, i)
        fine = scene.noise(x * 0.6 - time * rate * 1.2, 0 * x + 0.1 * i + time * rate * 0.2, (i + 1) % 3)
        up = base + 0.11 * fold + 0.025 * fine - y
        rays = scene.noise(x * 1.6 + 0.5 * fold + time * rate, 0.05 * y + 0.13 * i, (i + 2) % 3)
        high = 0.13 + 0.05 * rays
        light = smooth_ramp(up, -0.025, 0.02) * torch.exp(-up.clamp(min=0) / high.clamp(min=0.05))
        light = light * (0.65 + 0.4 * rays + 0.25 * (time * rate * 14 + x * 3 + i).sin()).clamp(min=0.05)
        low = tint(hue, scene.number(0.6, 0.9), 0.9)
        top = tint(hue + scene.number(0.1, 0.5), scene.number(0.5, 0.9), 0.8)
        colour = mix(low, top, ramp(up, 0.02, 0.22))
        picture = picture + colour * (light * scene.number(0.5, 0.95))[:, :, None]
    picture = hills(
        scene, scene.number(0.62, 0.8), scene.colour((0.5, 0.7), (0.1, 0.6), (0.02, 0.25)), picture
    )
    return hills(
        scene, scene.number(0.78, 1.0), scene.colour((0.5, 0.7), (0.02, 0.3), (0.05, 0.6)), picture, 1
    )


def dust(scene: Scenery) -> Tensor:
    """A sandstorm: veils and grains of sand that race over dunes and hide what is far."""
    x, y, time = scene.x, scene.y, scene.time
    hue = scene.number(0.05, 0.13)
    air = tint(hue, scene.number(0.2, 0.6), scene.number(0.6, 0.95))
    picture = air * (0.85 + 0.35 * y)[:, :, None]
    sun = (x - scene.number(-0.6, 0.6)) ** 2 + (y - scene.number(0.05, 0.35)) ** 2
    picture = picture + 0.35 * ramp(sun, 0.02, 0.0)[:, :, None] * scene.chance(0.6)[:, :, None]
    side = torch.where(scene.wind < 0, -1.0, 1.0)
    speed = scene.number(0.35, 0.8)
    run = side * time * speed
    for i in range(3):
        near = 0.35 + 0.3 * i
        base = scene.number(0.42 + 0.16 * i, 0.54 + 0.17 * i)
        sand = tint(hue + 0.01 * i, scene.number(0.4, 0.7), scene.number(0.5, 0.85))
        ridge = base - 0.10 * scene.noise(x * 0.2 + scene.number(0, 1), 0 * x + 0.37 * i, i)
        ripple = (scene.noise(x * 0.7, y * 2.5, i) * 3 + (y - ridge) * 90).sin()
        shade = 0.92 + 0.06 * ripple - 0.5 * (y - ridge).clamp(0, 0.4)
        layer = mix(air, sand * shade[:, :, None], torch.full_like(x, near))
        picture = mix(picture, layer, edge(scene, y - ridge, 2.0))
        # Sand smokes off the crest, and veils drift between the dunes.
        lee = scene.noise(x * 0.6 - run * (0.6 + 0.2 * i), (y - ridge) * 1.3 + 0.2 * i, (i + 1) % 3)
        crest = bump((y - ridge + 0.03) / 0.10) * ramp(lee, -0.3, 1.6)
        veil = ramp(
            scene.noise(x * 0.3 - run * 0.5, y * 0.9 + 0.03 * (time * 2).sin() + 0.3 * i, i), -0.4, 2.2
        )
        picture = mix(picture, air * 1.06, (0.75 * crest + 0.6 * veil).clamp(max=0.92))
    for i in range(2):
        count = 9.0 + 7 * i
        across, down, seed = cells(
            (x - run * (0.8 + 0.2 * i)) * count * 0.6, (y - 0.12 * run * side + 0.03 * (x * 5).sin()) * count * 2.2,
            scene.number(0, 99),
        )  # fmt: skip
        grain = ramp(0.24 - (across * across + (2.2 * down) ** 2).sqrt(), 0.0, 0.2) * (seed > 0.45)
        picture = mix(picture, tint(hue, 0.35 + 0 * hue, 1.0 - 0.3 * i), grain * 0.4)
    return picture
