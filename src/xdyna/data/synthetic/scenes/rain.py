"""Rain: on a window, and in the puddles of a street."""

from __future__ import annotations

import torch
from torch import Tensor

from xdyna.data.synthetic.draws import TAU
from xdyna.data.synthetic.scenery import Scenery, cells, edge, mix, scatter
from xdyna.data.synthetic.shapes import bump, ramp


def rain(scene: Scenery) -> Tensor:
    """Rain on a window: drops stand, swell and run down before a blurred street or garden."""
    x, y, time = scene.x, scene.y, scene.time
    zoom, gain = scene.number(0.16, 0.32), scene.number(0.14, 0.26)
    first, second = scene.colour((0, 1), (0.1, 0.6), (0.2, 0.8)), scene.colour((0, 1), (0.1, 0.6), (0.1, 0.6))
    turned = scene.number(0, 1)
    bright = scene.colour((0, 1), (0.1, 0.8), (0.8, 1))
    lamps = [(scene.number(-0.8, 0.8), scene.number(0.1, 0.8), scene.number(0.004, 0.012)) for _ in range(3)]

    def outside(u: Tensor, v: Tensor) -> Tensor:
        picture = mix(first, second, v.clamp(0, 1)) + gain[:, :, None] * scene.colours(
            u * zoom + turned, v * zoom
        )
        glow = torch.zeros_like(u)
        for lx, ly, size in lamps:
            glow = glow + ramp((u - lx) ** 2 + (v - ly) ** 2, size, size * 0.5)
        return picture + bright * (0.5 * glow)[:, :, None]

    tilt_x = tilt_y = cover = torch.zeros_like(x)
    # Standing drops, small and large; they swell and shrink away slowly.
    for i in range(2):
        grid = 24.0 - 11 * i
        across, down, seed = cells(x * grid, y * grid * 0.85, scene.number(0, 99))
        life = (time * 0.10 + seed * 17) % 1
        size = (0.16 + 0.20 * seed) * ramp(life, 0.0, 0.25) * ramp(life, 1.0, 0.9)
        here = ramp(size - (across * across + down * down).sqrt(), -0.02, 0.06) * (seed > 0.35)
        lens = (here / (size.clamp(min=0.05))).clamp(max=4) * 0.055
        tilt_x, tilt_y = tilt_x - across * lens, tilt_y - down * lens
        cover = torch.maximum(here, cover)
    # Running drops: each lane has one; it halts and hurries, and leaves a trail.
    for i in range(2):
        lanes = 5.0 + 4 * i
        place = x * lanes + 0.18 * (y * 11 + i).sin() + 0.1 * (y * 29).sin()
        lane = place.floor()
        seed = scatter(lane, float(i), lamps[i][0] * 10)
        clock = time * (0.22 + 0.3 * seed) + seed * 9
        clock = clock + 0.10 * (clock * TAU * 2).sin() / TAU * 5
        drop_y = (clock % 1.3) * 1.0 - 0.12
        across = place - lane - 0.5 - 0.24 * (2 * seed - 1)
        down = (y - drop_y) * lanes
        body = ramp(0.21 - (across * across + (0.7 * down) ** 2).sqrt(), -0.02, 0.06) * (seed > 0.3)
        trail = (
            ramp(0.10 - across.abs(), -0.01, 0.05)
            * ramp(down, 0.0, -0.1)
            * ramp(down, -3.2, -0.4)
            * 0.7
            * (seed > 0.3)
        )
        both = torch.maximum(body, trail)
        tilt_x, tilt_y = tilt_x - across * both * 0.9, tilt_y - down.clamp(-0.3, 0.3) * body * 1.4
        cover = torch.maximum(cover, both)
    seen = outside(x + tilt_x, y + tilt_y)
    # Drops gather the sky: dark above and bright below.
    shade = 1 + cover * (
        1.6 * (-tilt_y).clamp(-0.12, 0.16) - 0.6 * (tilt_x * tilt_x + tilt_y * tilt_y).sqrt().clamp(max=0.2)
    )
    fog = scene.noise(x * 0.5, y * 0.5, 2)
    mistier = mix(seen, torch.ones_like(first) * 0.75, (0.18 + 0.06 * fog).clamp(0, 1) * (1 - cover))
    bar = torch.minimum(
        (x - scene.number(-0.9, 0.9)).abs() - 0.022, (y - scene.number(0.0, 0.3)).abs() - 0.018
    )
    picture = mistier * shade[:, :, None]
    frame = scene.colour((0, 1), (0, 0.4), (0.15, 0.9)) * (0.9 - 8 * bar)[:, :, None].clamp(0.6, 1.4)
    return mix(picture, frame, edge(scene, -bar) * scene.chance(0.6))


def puddles(scene: Scenery) -> Tensor:
    """A wet street in the rain: rings spread in puddles that mirror what stands behind."""
    x, y, time = scene.x, scene.y, scene.time
    horizon = scene.number(0.34, 0.52)
    first, second = (
        scene.colour((0.5, 0.75), (0.05, 0.4), (0.3, 0.8)),
        scene.colour((0, 1), (0.05, 0.4), (0.3, 0.7)),
    )
    base = scene.colour((0, 1), (0.1, 0.5), (0.15, 0.5))
    shift, lamps = scene.number(0, 1), scene.colour((0.10, 0.14), (0.4, 0.5), (0.7, 0.75))

    def behind(u: Tensor, v: Tensor) -> Tensor:
        """Houses and sky, `v` up from the horizon."""
        column = (u * 3.2 + 20 * shift).floor()
        house = 0.14 + 0.22 * scatter(column, 2.0, shift * 50)
        wall = base * (0.6 + 0.7 * scatter(column, 5.0, shift * 31))[:, :, None]
        pane = scatter((u * 30).floor(), (v * 24).floor(), shift * 70) > 0.7
        pane = pane * (((u * 30) % 1 - 0.5).abs() < 0.28) * (((v * 24) % 1 - 0.5).abs() < 0.30)
        wall = mix(
            wall,
            second * 0.2 + lamps,
            pane * 1.0,
        )
        return mix(mix(second, first, (v * 2).clamp(0, 1)), wall, edge(scene, house - v, 2.0))

    down = (y - horizon).clamp(min=0.006)
    depth = 0.20 / (down + 0.02)
    tilt = torch.zeros_like(x + time)
    for i in range(3):
        grid = 1.5 + 0.8 * i
        gx, gz = x * depth * grid, depth * grid * 1.1
        across, away, seed = cells(gx, gz, scene.number(0, 99), spread=0.15)
        age = (time * (0.8 + 0.4 * seed) + seed * 23) % 1
        far = (across * across + away * away + 1e-6).sqrt()
        ring = (far - 0.48 * age) * 22
        tilt = tilt + bump(ring / 5) * ring.sin() * (1 - age) * ramp(far, 0.5, 0.4) * ramp(
            depth * grid, 9.0, 4.0
        )
    mirrored = behind(x + 0.012 * tilt, 0.9 * down + 0.030 * tilt)
    wet = ramp(scene.noise(x * depth * 0.30, depth * 0.45, 0), -0.7, -0.1)
    grain = scene.noise(x * depth * 0.9, depth * 1.6, 1)
    asphalt = scene.colour((0, 1), (0, 0.2), (0.12, 0.35)) * (1 + 0.2 * grain)[:, :, None]
    pool = mirrored * (0.80 + 0.28 * tilt)[:, :, None]
    street = mix(asphalt * 0.8 + 0.25 * mirrored, pool, wet)
    street = street + (0.5 * (tilt - 0.45).clamp(min=0) * (0.4 + 0.6 * wet))[:, :, None]
    picture = mix(behind(x, horizon - y), street, edge(scene, y - horizon))
    # Streaks of falling rain.
    for i in range(2):
        grid = 7.0 + 5 * i
        slant = 0.10 * scene.wind
        across, fall, seed = cells(
            (x - slant * y) * grid * 1.6, (y - time * (1.1 + 0.25 * i)) * grid * 0.5, scene.number(0, 99)
        )
        streak = ramp(across.abs(), 0.05, 0.01) * ramp(fall.abs(), 0.30, 0.1) * (seed > 0.3)
        picture = mix(picture, torch.ones_like(first) * 0.9, streak * 0.35)
    return picture
