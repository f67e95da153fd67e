"""Fire and light: flames, candles, smoke, fireworks and lamps."""

from __future__ import annotations

import torch
from torch import Tensor

from xdyna.data.synthetic.draws import TAU
from xdyna.data.synthetic.scenery import Scenery, cells, edge, ground, mix, night, scatter
from xdyna.data.synthetic.shapes import bump, ramp, smooth_ramp


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
    jitter = scatter(cell_x.floor(), cell_y.floor(), scene.number(0, 100))
    spark = (cell_x - cell_x.floor() - 0.2 - 0.6 * jitter) ** 2 + (cell_y - cell_y.floor() - 0.5) ** 2
    return mix(picture, yellow, ramp(spark, 0.006, 0.001) * (jitter > 0.6).float() * 0.9)


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


def campfire(scene: Scenery) -> Tensor:
    """A fire on logs at night, with sparks that whirl up and light that flickers on the ground."""
    x, y, time = scene.x, scene.y, scene.time
    centre, foot = scene.number(-0.45, 0.45), scene.number(0.66, 0.92)
    high, wide = scene.number(0.28, 0.5), scene.number(0.10, 0.2)
    speed = scene.number(0.5, 0.9)
    picture = night(scene, ((0.02, 0.12), (0.03, 0.2)))
    for i in range(2):
        tree = scene.noise(x * (0.9 + 0.5 * i) + scene.number(0, 1), 0.12 * y, i)
        level = y - scene.number(0.15, 0.5) - 0.16 * tree
        picture = mix(picture, scene.colour((0.2, 0.6), (0.2, 0.6), (0.02, 0.1)), ramp(level, -0.01, 0.01))
    earth = scene.colour((0.04, 0.12), (0.3, 0.6), (0.10, 0.25))
    grain = 1 + 0.3 * scene.noise(x * 1.3, y * 3.0, 2)
    picture = mix(picture, earth * grain[:, :, None], ramp(y - foot + 0.10, -0.02, 0.02))
    flicker = 1 + 0.16 * (time * 11).sin() * (time * 4.3).sin() + 0.08 * (time * 23).sin()
    dx = x - centre
    far = (dx * dx + (0.8 * (y - foot + 0.08)) ** 2).sqrt()
    warm = scene.colour((0.04, 0.09), (0.7, 0.95), (0.9, 1.0))
    picture = picture * (0.9 + 2.4 * torch.exp(-far * 4) * flicker)[:, :, None]
    picture = picture + warm * (0.42 * torch.exp(-far * 5.5) * flicker)[:, :, None]
    for sign in (-1.0, 1.0):
        down = (y - foot) - sign * 0.32 * dx
        log = torch.maximum(down.abs() - 0.030, dx.abs() - 1.15 * wide)
        bark = scene.colour((0.03, 0.08), (0.4, 0.7), (0.12, 0.28))
        lit = (1 + 0.4 * (dx * 60 + down * 200).sin() - 14 * down)[:, :, None]
        picture = mix(picture, bark * lit + warm * 0.15, edge(scene, -log))
    up = ((foot - y) / high).clamp(-1, 2)
    swirl = scene.noise(x * 0.7, y * 0.5 + time * speed, 0)
    tongue = scene.noise(x * 1.5 + 0.06 * swirl, y * 0.7 + time * speed * 1.4, 1)
    bend = 0.05 * up * (time * 5).sin() + 0.05 * swirl * up.clamp(min=0) + 0.12 * scene.wind * up * up
    heat = 1 - ((dx - bend).abs() / (wide * (1.05 - 0.55 * up.clamp(0, 1)))) ** 1.5 - 0.85 * up.clamp(min=0)
    heat = heat + 0.30 * tongue * (0.35 + up.clamp(0, 1)) - 7 * (-up - 0.04).clamp(min=0)
    picture = mix(picture, scene.colour((0.0, 0.04), (0.85, 1), (0.75, 1)), smooth_ramp(heat, 0.0, 0.22))
    picture = mix(picture, scene.colour((0.06, 0.10), (0.75, 0.95), (1, 1)), smooth_ramp(heat, 0.15, 0.45))
    picture = mix(picture, scene.colour((0.12, 0.16), (0.25, 0.5), (1, 1)), smooth_ramp(heat, 0.42, 0.85))
    for i in range(2):
        grid = 9.0 + 5 * i
        whirl = 0.05 * (time * 2.2 + y * 9 + i).sin() - 0.2 * scene.wind * (foot - y)
        across, down, seed = cells(
            (x + whirl) * grid, (y + time * (0.35 + 0.12 * i)) * grid, scene.number(0, 99)
        )
        spark = ramp(0.09 - (across * across + down * down).sqrt(), 0.0, 0.06) * (seed > 0.55)
        near = ramp((dx + whirl).abs() / (wide + 0.35 * up.clamp(min=0)), 1.0, 0.4) * ramp(up, 0.1, 0.6)
        picture = mix(picture, warm, spark * near * ramp(up, 2.2, 0.8))
    return picture


def candles(scene: Scenery) -> Tensor:
    """Candles on a table in a dim room; their flames lean, stretch and flicker."""
    x, y, time = scene.x, scene.y, scene.time
    picture = scene.colour((0.0, 1.0), (0.2, 0.6), (0.05, 0.3)) * (1.1 - 0.6 * y)[:, :, None]
    picture = picture * (1 + 0.25 * scene.noise(x * 0.5, y * 0.5))[:, :, None]
    table = scene.number(0.70, 0.88)
    wood = scene.colour((0.03, 0.1), (0.4, 0.7), (0.12, 0.35))
    grain = 1 + 0.18 * scene.noise(x * 0.4, (y - table) * 4.0, 1)
    picture = mix(picture, wood * grain[:, :, None], ramp(y - table, -0.004, 0.004))
    warm = scene.colour((0.07, 0.11), (0.55, 0.85), (1, 1))
    glow = torch.zeros_like(x + time)
    shapes = []
    for i in range(5):
        cx = scene.number(-0.78, -0.52) + 0.32 * i
        top, rate, phase = scene.number(0.36, 0.62), scene.number(5, 9), scene.number(0, 6)
        wave = (time * rate + phase).sin() + 0.6 * (time * rate * 1.73 + 2 * phase).sin()
        lively = 1 + 0.10 * wave + 0.08 * (time * 19 + phase).sin()
        high = scene.number(0.075, 0.12) * lively
        up = (top - 0.012 - y) / high
        lean = (0.014 * wave + 0.05 * scene.wind) * up.clamp(0, 1) ** 2
        width = 0.021 * (up + 0.12).clamp(min=0).sqrt() * (1 - up).clamp(min=0) ** 0.75 * 1.9
        shapes.append((cx, top, up, width - (x - cx - lean).abs()))
        far = (x - cx) ** 2 + (y - top + 0.05) ** 2
        glow = glow + (0.012 / (far + 0.012)) * lively
    picture = picture * (0.6 + 1.3 * glow)[:, :, None] + warm * (0.22 * glow)[:, :, None]
    for cx, top, up, inside in shapes:
        radius = scene.number(0.022, 0.04)
        body = torch.maximum((x - cx).abs() - radius, torch.maximum(top - y, y - table - 0.03))
        round_ = 1 - 0.5 * ((x - cx) / radius).clamp(-1, 1) ** 2
        wax = (
            scene.colour((0, 1), (0.03, 0.5), (0.5, 0.95))
            * (round_ * (0.55 + 0.7 * ramp(y, top + 0.2, top)))[:, :, None]
        )
        picture = mix(picture, wax, edge(scene, -body))
        wick = torch.maximum((x - cx).abs() - 0.003, (y - top + 0.008).abs() - 0.012)
        picture = mix(picture, 0.1 * warm, edge(scene, -wick))
        picture = mix(
            picture, warm, ramp(inside, -0.003, 0.004) * ramp(up, -0.14, -0.08) * ramp(up, 1.02, 0.96)
        )
        picture = mix(picture, torch.ones_like(warm), ramp(inside, 0.004, 0.012) * ramp(up, 0.05, 0.3))
    return picture


def fireworks(scene: Scenery) -> Tensor:
    """Rockets that burst over roofs: sparks fly out, slow down, fall and fade."""
    x, y, time = scene.x, scene.y, scene.time
    picture = night(scene, ((0.01, 0.12), (0.04, 0.3)))
    flash = torch.zeros_like(time)
    roofs = scene.number(0.72, 1.0)
    sparks = torch.zeros_like(picture)
    for _ in range(5):
        rate, phase, salt = scene.number(0.28, 0.5), scene.number(0, 1), scene.number(0, 99)
        clock = time * rate + phase
        turn = clock.floor()
        age = clock - turn
        cx, cy = (scatter(turn, 1.0, salt) - 0.5) * 1.5, 0.08 + 0.42 * scatter(turn, 2.0, salt)
        hue = scatter(turn, 3.0, salt)
        colour = torch.stack([0.62 + 0.38 * (TAU * (hue + k / 3)).cos() for k in range(3)], 2)
        # The rocket climbs for the first fifth.
        burst = ((age - 0.18) / 0.82).clamp(min=0)
        climb = (age / 0.18).clamp(0, 1)
        head = 1.05 + (cy - 1.05) * (climb * (2 - climb))
        tail = torch.maximum((x - cx).abs() * 1.0 - 0.004, torch.maximum(head - y, y - head - 0.10))
        rising = ramp(tail, 0.004, -0.003) * ramp(y - head, 0.12, 0.0) * (age < 0.18)
        reach = scene.number(0.16, 0.34) * (1 - torch.exp(-4.5 * burst))
        dx, dy = x - cx, y - cy - 0.16 * burst * burst
        far = (dx * dx + dy * dy + 1e-6).sqrt()
        count = scene.number(14, 30).floor()
        around = torch.atan2(dy, dx) / TAU * count
        ray = around.floor()
        aside = (around - ray - 0.5) / count * TAU * far
        own = 0.62 + 0.38 * scatter(ray, turn, salt)
        long = 0.03 + 0.10 * (1 - burst) * reach / 0.3
        along = reach * own - far
        streak = ramp(aside.abs(), 0.010, 0.002) * ramp(along, long, 0.0) * ramp(along, -0.008, 0.002)
        inner = 0.55 * reach
        ring = ramp(aside.abs(), 0.008, 0.002) * bump((far - inner * own) / 0.012)
        twinkle = 0.65 + 0.35 * (time * 31 + ray * 7).sin()
        fade = ramp(burst, 1.0, 0.35) * twinkle * (burst > 0)
        light = (streak + 0.6 * ring) * fade * 1.25
        bloom = torch.exp(-burst * 9) * (burst > 0)
        light = light + bloom * 0.5 / (1 + (far / 0.05) ** 2) + rising * 0.9
        flash = flash + bloom * 0.10 + 0.02 * ramp(burst, 0.8, 0.1) * (burst > 0)
        sparks = sparks + colour * light[:, :, None] + 0.5 * (light - 0.7).clamp(min=0)[:, :, None]
    picture = picture * (1 + 5 * flash)[:, :, None] + sparks
    column = (x * 9 + scene.number(0, 9)).floor()
    house = roofs + 0.10 * scatter(column, 0.0, 4.0)
    lit = scatter((x * 50).floor(), (y * 40).floor(), 3.0) > 0.86
    wall = (
        0.03
        + 0.5 * flash
        + 0.45 * lit * (((x * 50) % 1 - 0.5).abs() < 0.3) * (((y * 40) % 1 - 0.5).abs() < 0.3)
    )
    return mix(
        picture, scene.colour((0.05, 0.7), (0.1, 0.5), (0.8, 1)) * wall[:, :, None], edge(scene, y - house)
    )


def smoke(scene: Scenery) -> Tensor:
    """Smoke or steam that rises, curls and thins before a wall or the sky."""
    x, y, time = scene.x, scene.y, scene.time
    first = scene.colour((0, 1), (0.05, 0.6), (0.05, 0.5))
    second = scene.colour((0, 1), (0.05, 0.6), (0.1, 0.75))
    picture = mix(first, second, (0.5 * x + y).clamp(0, 1)) * (1 + 0.10 * scene.noise(x, y, 2))[:, :, None]
    floor = scene.number(0.8, 1.1)
    picture = ground(scene, floor, picture)
    speed = scene.number(0.10, 0.24)
    tone = scene.colour((0, 1), (0, 0.12), (0.55, 1.0))
    for i in range(2):
        cx, foot = scene.number(-0.7, 0.7), floor - scene.number(-0.02, 0.12)
        up = (foot - y).clamp(min=0)
        # Two warps by noises that rise with it make it curl.
        swirl = scene.noise(x * 0.35 + 0.4 * i, y * 0.35 + time * speed * 0.55, 0)
        curl = scene.noise(x * 0.8 + 0.05 * swirl, y * 0.55 + time * speed + 0.05 * swirl, 1)
        middle = cx + (0.09 * swirl + 0.035 * curl) * up.sqrt() * 1.6 + 0.55 * scene.wind * up * up
        wide = 0.025 + scene.number(0.20, 0.36) * up
        across = (x - middle) / wide
        body = bump(across * 0.9) * (0.60 + 0.34 * curl + 0.2 * swirl)
        thick = (body * ramp(up, 0.0, 0.05) * torch.exp(-1.3 * up)).clamp(0, 1) * scene.number(0.8, 1.2)
        shade = (1 + 0.18 * curl - 0.14 * across)[:, :, None]
        picture = mix(picture, tone * shade, thick)
        cup = torch.maximum((x - cx).abs() - 0.06, torch.maximum(foot - y, y - foot - 0.09))
        picture = mix(
            picture,
            scene.colour((0, 1), (0.1, 0.7), (0.1, 0.7))
            * (1 - 5 * (x - cx).abs()).clamp(min=0.4)[:, :, None],
            edge(scene, -cup),
        )
    return picture
