"""The scenes behind the people: ten kinds, two of them still, each a function of place and time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from xdyna.data.synthetic.draws import TAU
from xdyna.data.synthetic.scenery import Scenery, edge, ground, hills, mix, sky
from xdyna.data.synthetic.shapes import bump, ramp, smooth_ramp

Painter = Callable[[Scenery], Tensor]


def wall(scene: Scenery) -> Tensor:
    """A room: wall with paper, panels or tiles, pictures, a window or a curtain, a floor; or a blurred photograph."""
    x, y = scene.x, scene.y
    base, second = (
        scene.colour((0, 1), (0.02, 0.45), (0.35, 1.0)),
        scene.colour((0, 1), (0.02, 0.55), (0.3, 1.0)),
    )
    slope = scene.number(-1, 1)
    picture = mix(base, second, (x * slope + y * scene.number(0.2, 1.0)).clamp(0, 1))
    across, down = scene.number(2, 14), scene.number(2, 14)
    waves = (x * across * TAU).sin() * scene.number(0, 1) + (y * down * TAU).sin() * scene.number(0, 1)
    paper = ramp(waves, 0.0, 0.25) * scene.number(0, 0.22) * scene.chance(0.5)
    seams = torch.maximum(
        ramp((x * across * 3.1).sin().abs(), 0.06, 0.0), ramp((y * down * 3.1).sin().abs(), 0.06, 0.0)
    )
    paper = paper + seams * scene.number(0, 0.25) * scene.chance(0.35)
    grain = scene.noise(x * 0.8, y * 0.8)
    picture = picture * (1 - paper + scene.number(0, 0.06) * grain)[:, :, None]
    # A corner of the room: one side is in shade.
    corner = scene.number(-0.7, 0.7)
    picture = (
        picture * (1 - scene.number(0.05, 0.3) * scene.chance(0.4) * edge(scene, x - corner))[:, :, None]
    )
    for _ in range(3):
        centre_x, centre_y = scene.number(-0.9, 0.9), scene.number(0.05, 0.6)
        frame = torch.maximum(
            (x - centre_x).abs() - scene.number(0.05, 0.2), (y - centre_y).abs() - scene.number(0.05, 0.22)
        )
        here = scene.chance(0.55)
        picture = picture * (1 - 0.3 * here * ramp(frame - 0.012, 0.02, 0.0) * edge(scene, frame))[:, :, None]
        picture = mix(picture, scene.colour((0, 1), (0, 0.7), (0.05, 0.9)), edge(scene, -frame) * here)
        inner = scene.colour((0, 1), (0.1, 0.8), (0.2, 1)) + 0.16 * scene.colours(x * 1.2 + centre_x, y * 1.2)
        picture = mix(picture, inner, edge(scene, -frame - 0.015) * here)
    curtain_x, curtain_w = scene.number(-0.9, 0.9), scene.number(0.08, 0.3)
    pleats = 1 + 0.18 * (x * scene.number(30, 80)).sin()
    cloth = scene.colour((0, 1), (0, 0.6), (0.3, 1.0)) * pleats[:, :, None]
    picture = mix(picture, cloth, edge(scene, curtain_w - (x - curtain_x).abs()) * scene.chance(0.3))
    floor = scene.number(0.70, 1.15)
    skirting = edge(scene, y - floor + 0.025) * scene.chance(0.6)
    picture = mix(picture, scene.colour((0, 1), (0, 0.3), (0.4, 1.0)), skirting)
    picture = ground(scene, floor, picture)
    # Something to stand beside: a cupboard or a table.
    box_x, box_w, box_top = scene.number(-0.9, 0.9), scene.number(0.08, 0.22), scene.number(0.45, 0.75)
    box = torch.maximum((x - box_x).abs() - box_w, torch.maximum(box_top - y, y - floor - 0.05))
    picture = mix(
        picture,
        scene.colour((0, 1), (0.1, 0.6), (0.15, 0.7)) * (1 + 0.08 * grain)[:, :, None],
        edge(scene, -box) * scene.chance(0.35),
    )
    # Or nothing but blurred colours, as a photograph out of focus has them.
    zoom = scene.number(0.15, 0.5)
    photo = base * 0.75 + scene.number(0.12, 0.3)[:, :, None] * scene.colours(x * zoom + slope, y * zoom)
    picture = mix(picture, photo, scene.chance(0.30).expand_as(x))
    lamp_x, lamp_y = scene.number(-0.8, 0.8), scene.number(-0.2, 0.8)
    far = (x - lamp_x) ** 2 + (y - lamp_y) ** 2
    return picture * (1 + scene.number(-0.15, 0.30) * torch.exp(-far * 2))[:, :, None]


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


def water(scene: Scenery) -> Tensor:
    """Sea or lake in perspective: waves run towards the viewer and glitter."""
    x, y, time = scene.x, scene.y, scene.time
    horizon = scene.number(0.18, 0.55)
    picture = hills(
        scene,
        horizon - scene.number(-0.02, 0.10),
        scene.colour((0.2, 0.62), (0.15, 0.6), (0.2, 0.65)),
        sky(scene),
    )
    depth = 0.22 / (y - horizon + 0.05).clamp(min=0.02)
    speed, size = scene.number(0.10, 0.30), scene.number(0.7, 1.5)
    first = scene.noise(x * depth * size + scene.number(0, 1), depth * 1.5 + time * speed, 0)
    second = scene.noise(x * depth * 1.4 * size - time * speed * 0.3, depth * 2.0 + time * speed * 0.6, 1)
    level = first + second
    deep, bright = (
        scene.colour((0.44, 0.66), (0.35, 0.9), (0.15, 0.5)),
        scene.colour((0.0, 1.0), (0.05, 0.5), (0.6, 1.0)),
    )
    sea = mix(deep, bright, ramp(level, -2.0, 2.6))
    sea = mix(sea, torch.ones_like(deep), ramp(level, 1.3, 2.6) * 0.75 * ramp(y - horizon, 0.0, 0.15))
    return mix(picture, sea, edge(scene, y - horizon))


def fire(scene: Scenery) -> Tensor:
    """Flames that rise and lick, before a dark scene, with sparks."""
    x, y, time = scene.x, scene.y, scene.time
    speed, size = scene.number(0.35, 0.85), scene.number(0.6, 1.2)
    swirl = scene.noise(x * size + scene.number(0, 1), y * size * 0.6 + time * speed, 0)
    flame = scene.noise(x * size + 0.06 * swirl, y * size * 0.7 + time * speed * 1.5, 1)
    heat = (y - scene.number(0.25, 0.75)) * scene.number(1.6, 2.8) + 0.33 * flame + 0.2 * swirl
    dark = scene.colour((0, 1), (0.2, 0.7), (0.03, 0.3)) * (1 + 0.15 * scene.noise(x, y, 2))[:, :, None]
    red, orange = (
        scene.colour((0.97, 1.03), (0.8, 1), (0.5, 0.85)),
        scene.colour((0.04, 0.10), (0.75, 1), (0.85, 1)),
    )
    yellow = scene.colour((0.11, 0.17), (0.25, 0.7), (0.95, 1))
    picture = mix(
        mix(mix(dark, red, ramp(heat, 0.0, 0.35)), orange, ramp(heat, 0.3, 0.7)),
        yellow,
        ramp(heat, 0.75, 1.3),
    )
    grid = scene.number(4, 8)
    cell_x, cell_y = x * grid + 0.3 * (time * 2 + y * 5).sin(), (y + time * speed * 0.5) * grid
    jitter = _hash(cell_x.floor(), cell_y.floor(), scene.number(0, 100))
    spark = (cell_x - cell_x.floor() - 0.2 - 0.6 * jitter) ** 2 + (cell_y - cell_y.floor() - 0.5) ** 2
    return mix(picture, yellow, ramp(spark, 0.006, 0.001) * (jitter > 0.6).float() * 0.9)


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
        blades = scene.noise(bent * 2.4 + 0.3 * i, 0 * y + 0.2 * i, i % 3)
        shape = ramp(0.55 + 0.38 * blades.clamp(-1.4, 1.3) - up, 0, 0.06)
        dark, light = (
            scene.colour((hue - 0.05, hue + 0.1), (0.4, 0.9), (0.2, 0.5)),
            scene.colour((hue - 0.06, hue + 0.08), (0.3, 0.8), (0.45, 0.9)),
        )
        picture = mix(picture, mix(dark, light, (up * 0.8 + 0.12 * blades).clamp(0, 1)), shape)
    return picture


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
            cell_x - column - 0.3 - 0.4 * _hash(column, row, salt),
            cell_y - row - 0.3 - 0.4 * _hash(row, column, salt + 3),
        )
        far = ((dx * (1 + 2.5 * rain)) ** 2 + (dy / (1 + 2.0 * rain)) ** 2).sqrt()
        flake = ramp(0.12 - 0.02 * i + 0.05 * _hash(column, row, salt + 7) - far, -0.05, 0.05) * (
            0.9 - 0.4 * rain
        )
        picture = mix(picture, torch.ones_like(picture), flake)
    return picture


def lights(scene: Scenery) -> Tensor:
    """Night: lamps out of focus that pulse and sway, or fireworks that open and fade."""
    x, y, time = scene.x, scene.y, scene.time
    picture = mix(
        scene.colour((0.55, 0.95), (0.3, 0.9), (0.02, 0.25)),
        scene.colour((0.55, 1.1), (0.3, 0.9), (0.05, 0.45)),
        y.clamp(0, 1),
    )
    picture = picture * (1 + 0.15 * scene.noise(x * 0.6, y * 0.6))[:, :, None]
    fireworks = scene.chance(0.3)
    for _ in range(9):
        cx, cy, radius = scene.number(-0.9, 0.9), scene.number(0, 0.85), scene.number(0.02, 0.09)
        rate, phase = scene.number(2.0, 7.0), scene.number(0, 6)
        pulse = (0.5 + 0.5 * (time * rate + phase).sin()) * scene.number(0.4, 1.0)
        dx, dy = x - cx - 0.03 * (time * 1.2 + phase).sin(), y - cy
        far = (dx * dx + dy * dy + 1e-8).sqrt()
        disc = (
            ramp(radius - far, -0.012, 0.02) * (0.75 + 0.25 * ramp(far, 0.5 * radius, radius)) * pulse * 0.75
        )
        age = (time * 0.22 * rate / 4 + phase / 6) % 1
        ring = radius * 3.2 * age.sqrt()
        rays = (0.5 + 0.5 * (torch.atan2(dy, dx) * 12 + phase).sin()) ** 3
        burst = bump((far - ring * 0.8) / (0.3 * ring + 0.005)) * rays * (1 - age) * 1.3
        glow = disc * (1 - fireworks) + burst * fireworks
        picture = picture + scene.colour((0, 1), (0.2, 0.9), (0.7, 1)) * glow[:, :, None]
    return picture


def falls(scene: Scenery) -> Tensor:
    """A waterfall between rocks, with spray at its foot."""
    x, y, time = scene.x, scene.y, scene.time
    speed, left, right = scene.number(0.35, 0.8), scene.number(-0.7, -0.1), scene.number(0.1, 0.8)
    rock = mix(
        scene.colour((0, 1), (0.05, 0.4), (0.08, 0.3)),
        scene.colour((0.05, 0.5), (0.1, 0.5), (0.3, 0.65)),
        ramp(scene.noise(x * 0.9 + left, y * 0.9), -1.5, 1.5),
    )
    first = scene.noise(x * 2.0 + 0.01 * (time * 3).sin(), y * 0.35 - time * speed, 0)
    second = scene.noise(x * 3.3, y * 0.5 - time * speed * 1.3, 1)
    stream = mix(
        scene.colour((0.45, 0.62), (0.2, 0.6), (0.35, 0.65)),
        scene.colour((0.5, 0.6), (0, 0.12), (0.9, 1)),
        ramp(first + 0.8 * second, -1.6, 2.0),
    )
    ragged = 0.015 * scene.noise(0 * x + left, y * 0.4, 2)
    picture = mix(rock, stream, ramp(x - left - ragged, -0.01, 0.01) * ramp(right + ragged - x, -0.01, 0.01))
    foot = scene.number(0.75, 1.1)
    mist = ramp(y - foot + 0.14 * scene.noise(x * 0.7 + time * 0.10, y * 0.7 - time * 0.15, 2), -0.15, 0.15)
    return mix(picture, scene.colour((0.5, 0.6), (0, 0.2), (0.8, 1.0)), mist * 0.8)


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


def _hash(first: Tensor, second: Tensor, salt: Tensor) -> Tensor:
    """Noise in [0, 1) for whole numbers."""
    value = (first * 12.9898 + second * 78.233 + salt).sin() * 43758.5453
    return value - value.floor()


PAINTERS: dict[str, Painter] = {
    "wall": wall, "land": land, "water": water, "fire": fire, "clouds": clouds, "grass": grass,
    "snow": snow, "lights": lights, "falls": falls, "leaves": leaves,
}  # fmt: skip
SCENES = tuple(PAINTERS)
"""Names of the scenes; `SyntheticBatch.scene` holds places in this tuple."""
STILL_SCENES = ("wall", "land")
"""Scenes in which nothing moves."""
MOVING_SCENES = tuple(name for name in SCENES if name not in STILL_SCENES)
"""Scenes that move by themselves."""
SLOPES = {"water": 1.5, "fire": 1.7, "clouds": 1.55, "falls": 1.5, "leaves": 1.05, "wall": 1.25, "land": 1.25}
"""How fast the textures' amplitude falls with frequency; 1.3 where not named."""
