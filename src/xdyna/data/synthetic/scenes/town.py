"""Town and home: traffic at night, neon, flags, curtains, a train's window."""

from __future__ import annotations

import torch
from torch import Tensor

from xdyna.data.synthetic.scenery import Scenery, edge, ground, hills, mix, night, scatter, sky
from xdyna.data.synthetic.shapes import bump, ramp, smooth_ramp


def traffic(scene: Scenery) -> Tensor:
    """A street at night: lit windows, head lamps that come and tail lamps that go, their glow on wet asphalt."""
    x, y, time = scene.x, scene.y, scene.time
    horizon, middle = scene.number(0.40, 0.56), scene.number(-0.3, 0.3)
    picture = night(scene, ((0.03, 0.2), (0.1, 0.5)))
    for i in range(2):
        wide = 4.0 + 3 * (1 - i)
        column = (x * wide + scene.number(0, 9)).floor()
        own = scatter(column, float(i), 3.0)
        # Houses leave the street free in the front row.
        gap = (x - middle).abs() < 0.16 * i
        roof = horizon - (0.10 + 0.24 * own + 0.12 * i) * torch.where(gap, 0.1, 1.0)
        wall = scene.colour((0, 1), (0.1, 0.5), (0.06, 0.25)) * (0.6 + 0.6 * own)[:, :, None]
        cu, cv = x * (44.0 - 12 * i), y * (34.0 - 10 * i)
        seed = scatter(cu.floor(), cv.floor(), 7.0 + i)
        burning = (seed + 0.06 * (time * (0.3 + seed) + seed * 40).sin()) > 0.62
        pane = burning * ((cu % 1 - 0.5).abs() < 0.30) * ((cv % 1 - 0.5).abs() < 0.32) * (y < horizon - 0.03)
        light = scene.colour((0.08, 0.16), (0.2, 0.6), (0.7, 1.0)) * (0.55 + 0.45 * seed)[:, :, None]
        picture = mix(
            picture, mix(wall, light, pane * 0.9), edge(scene, y - roof) * edge(scene, horizon + 0.04 - y)
        )
    down = (y - horizon).clamp(min=0.004)
    road = scene.colour((0.5, 0.8), (0.05, 0.3), (0.06, 0.2))
    grain = scene.noise((x - middle) * 0.3 / (down + 0.02) * 0.6, 0.3 / (down + 0.02), 1)
    wet = road * (1 + 0.15 * grain)[:, :, None]
    across = (x - middle) / down
    dash = ((0.12 / down) % 1 < 0.5) * ramp((across).abs(), 0.06, 0.03) + ramp(
        (across.abs() - 1.55).abs(), 0.07, 0.03
    )
    wet = mix(wet, torch.ones_like(road) * 0.6, dash.clamp(max=1) * 0.7 * ramp(down, 0.0, 0.05))
    picture = mix(picture, wet, edge(scene, y - horizon))
    front, rear = (
        scene.colour((0.08, 0.16), (0.05, 0.35), (1, 1)),
        scene.colour((0.97, 1.02), (0.8, 1), (0.9, 1)),
    )
    white, red = torch.zeros_like(x + time), torch.zeros_like(x + time)
    pace, shine = scene.number(0.10, 0.22), scene.number(0.3, 0.9)
    for i in range(10):
        coming = i % 2 == 0
        lane = (0.45 if i % 4 < 2 else 1.05) * (-1.0 if coming else 1.0)
        own = scene.number(0, 1)
        run = (time * pace * (1.0 if i % 4 < 2 else 0.8) * (1 if coming else -0.7) + own) % 1
        # Even steps in 1/depth would crowd at the horizon; cubing keeps the speed on the road even.
        near = 0.015 + 0.75 * run**3
        cx, cy = middle + lane * near, horizon + near * 0.86
        half = 0.20 * near
        size = 0.004 + 0.055 * near
        # Both lamps at once: fold the picture about the car's middle.
        fx, fy = (x - cx).abs() - half, y - cy
        squared = (fx * fx + fy * fy) / (size * size)
        glow = 1.2 / (1 + squared * squared) + 0.20 / (1 + squared * 0.05) * 0.8
        mirror = bump(fx / (size * 1.4)) * ramp(fy, 0.0, 0.02) * ramp(fy, 0.22 + near, 0.0) * shine
        glow = (glow + 0.5 * mirror) * ramp(run, 0.0, 0.12) * ramp(run, 1.0, 0.93)
        if coming:
            white = white + glow
        else:
            red = red + glow * 0.75
        body = torch.maximum((x - cx).abs() - 1.5 * half, (y - cy + 0.20 * near).abs() - 0.26 * near)
        picture = mix(picture, road * 0.35, edge(scene, -body, 2.0) * 0.85 * ramp(run, 0.05, 0.2))
    return picture + front * white[:, :, None] + rear * red[:, :, None]


def neon(scene: Scenery) -> Tensor:
    """Signs that flicker, chasing lamps and a screen whose picture changes, on a dark wall of bricks."""
    x, y, time = scene.x, scene.y, scene.time
    rows = y * scene.number(16, 26)
    bricks = x * 9 + 0.5 * (rows.floor() % 2)
    joint = torch.maximum(
        ramp((rows % 1 - 0.5).abs(), 0.42, 0.46), ramp((bricks % 1 - 0.5).abs(), 0.45, 0.48)
    )
    tone = 0.8 + 0.35 * scatter(bricks.floor(), rows.floor(), 1.0) + 0.15 * scene.noise(x, y)
    wall = scene.colour((0, 1), (0.1, 0.5), (0.10, 0.3)) * (tone * (1 - 0.4 * joint))[:, :, None]
    glow = torch.zeros_like(wall.expand(-1, time.shape[1], -1, -1, -1))
    tubes = []
    for i in range(5):
        cx, cy = scene.number(-0.85, -0.55) + 0.34 * i, scene.number(0.12, 0.6)
        wide, high = scene.number(0.07, 0.16), scene.number(0.04, 0.13)
        kind, rate, phase = scene.number(0, 4), scene.number(1.0, 3.5), scene.number(0, 9)
        dx, dy = (x - cx).abs() - wide, (y - cy).abs() - high
        frame = torch.maximum(dx, dy).abs()
        oval = ((((x - cx) / wide) ** 2 + ((y - cy) / high) ** 2 + 1e-6).sqrt() - 1).abs() * high
        written = (
            y - cy - 0.6 * high * ((x - cx) * 26 + phase).sin() * ((x - cx) * 9 + 2 * phase).cos()
        ).abs() * 0.6
        written = torch.maximum(written, dx)
        chevron = (((y - cy).abs() * 0.8 - (x - cx)) % 0.06 - 0.03).abs() + torch.maximum(dx, dy).clamp(min=0)
        shape = torch.where(
            kind < 1, frame, torch.where(kind < 2, oval, torch.where(kind < 3, written, chevron))
        )
        step = (time * rate * 4).floor()
        # Some burn steadily, some blink, one in a few is broken.
        style = scene.number(0, 1)
        blink = ((time * rate + phase) % 1 < 0.62) * 1.0
        broken = (scatter(step, 0.0, phase) > 0.35) * 1.0
        on = torch.where(style < 0.3, 0.9 + 0.1 * (time * 40).sin(), torch.where(style < 0.75, blink, broken))
        chase = 0.35 + 0.65 * (((x - cx) * 30 - time * rate * 5).sin() > 0)
        on = on * torch.where(kind >= 3, chase, 1.0)
        colour = scene.colour((0, 1), (0.6, 1), (0.9, 1))
        halo = on * (0.16 / (1 + (shape / 0.03) ** 2) + 0.10 / (1 + (shape / 0.12) ** 2))
        glow = glow + colour * halo[:, :, None]
        tubes.append((colour, ramp(shape, 0.009, 0.004), on))
    picture = wall * (0.6 + 3.2 * glow) + 0.7 * glow
    for colour, tube, on in tubes:
        hot = (colour * 0.65 + 0.42).clamp(max=1)
        picture = mix(picture, colour * 0.16 + (hot - colour * 0.16) * on[:, :, None], tube)
    sx, sy = scene.number(-0.6, 0.6), scene.number(0.66, 0.8)
    screen = torch.maximum((x - sx).abs() - 0.22, (y - sy).abs() - 0.13)
    cut = (time * scene.number(0.4, 1.1) + scene.number(0, 1)).floor()
    jump = scatter(cut, 1.0, 5.0)
    shown = 0.45 + 0.22 * scene.colours((x - sx) * 0.7 + jump + 0.05 * time, (y - sy) * 0.7 + 0.61 * cut)
    shown = shown * (0.9 + 0.1 * (y * 500).sin())[:, :, None] * (0.6 + 0.7 * jump)[:, :, None]
    here = scene.chance(0.6)
    picture = picture + (0.25 * here * jump / (1 + (screen.clamp(min=0) / 0.06) ** 2))[
        :, :, None
    ] * shown.mean((3, 4), keepdim=True)
    picture = mix(picture, torch.full_like(wall, 0.03), edge(scene, 0.018 - screen) * here)
    return mix(picture, shown, edge(scene, -screen) * here)


def flags(scene: Scenery) -> Tensor:
    """Flags on their poles in the wind: waves run along the cloth."""
    x, y, time = scene.x, scene.y, scene.time
    picture = hills(
        scene, scene.number(0.7, 0.95), scene.colour((0.1, 0.5), (0.1, 0.5), (0.2, 0.6)), sky(scene)
    )
    side = torch.where(scene.wind < 0, -1.0, 1.0)
    strength = 0.5 + 0.5 * scene.wind.abs()
    # One pole a column; the cloth fits in it, so all flags are painted at once.
    wide = scene.number(0.40, 0.62)
    place = x * side / wide + scene.number(0, 1)
    column = place.floor()
    salt = scene.number(0, 99)
    own, other, third = (scatter(column, float(k), salt) for k in range(3))
    away = (place - column - 0.06) * wide
    top, high = 0.05 + 0.22 * own, 0.17 + 0.14 * other
    mast = torch.maximum(away.abs() - 0.008, top - 0.02 - y)
    metal = scene.colour((0, 1), (0, 0.15), (0.4, 0.9)) * (0.9 - 40 * away)[:, :, None].clamp(0.4, 1.3)
    picture = mix(picture, metal, edge(scene, -mast))
    u = away / (wide * (0.72 + 0.16 * third))
    inside = u.clamp(0, 1)
    wave = 11 * u - time * (3.5 + 3.5 * third) + 6 * own + 1.5 * (y - top)
    swing = 0.030 * inside.sqrt() * (wave.sin() + 0.35 * (1.9 * wave + 2).sin())
    droop = 1.1 * inside * inside * (1.15 - strength) * high
    v = (y - top - swing - droop) / high
    reach = 1 - 0.035 * (wave * 0.5 + 3 * v).cos()
    level = torch.maximum((v - 0.5).abs() - 0.5, torch.maximum(-u, u - reach)) * high
    colours = [scene.colour((0, 1), (0.1, 1), (0.3, 1)) for _ in range(4)]
    first, second = mix(colours[0], colours[1], (other > 0.5) * 1.0), mix(colours[2], colours[3], own)
    kind = (3.7 * other + 1.9 * third) % 1 * 4
    bands = torch.where(kind < 1, v * 3, u * 3).floor()
    cross = torch.maximum(((v - 0.5).abs() < 0.10) * 1.0, ((u - 0.36).abs() < 0.07) * 1.0)
    disc = ((u - 0.5) ** 2 * 2.2 + (v - 0.5) ** 2 < 0.07) * 1.0
    one = torch.where(kind < 2, (bands == 1) * 1.0, torch.where(kind < 3, cross, disc))
    cloth = mix(mix(first, second, one), colours[3], ((kind < 2) & (bands >= 2)) * 1.0)
    # The cloth faces the light on one flank of every wave.
    light = 0.92 + 0.24 * (wave + 0.6).cos() * inside.sqrt() - 0.10 * (1.9 * wave).sin() * inside
    return mix(picture, cloth * light[:, :, None], edge(scene, -level))


def curtain(scene: Scenery) -> Tensor:
    """An open window whose curtains the wind lifts and lets fall; leaves move outside."""
    x, y, time = scene.x, scene.y, scene.time
    room = scene.colour((0, 1), (0.02, 0.4), (0.3, 0.8)) * (1 - 0.25 * y)[:, :, None]
    room = room * (1 + 0.04 * scene.noise(x, y, 2))[:, :, None]
    cx, wide, top, sill = (
        scene.number(-0.3, 0.3),
        scene.number(0.24, 0.4),
        scene.number(0.04, 0.14),
        scene.number(0.62, 0.8),
    )
    outside = mix(
        sky(scene), scene.colour((0.2, 0.4), (0.3, 0.7), (0.3, 0.7)), ramp(y, sill - 0.3, sill - 0.2)
    )
    sway = 0.012 * (time * 1.9 + y * 4).sin()
    tree = scene.noise((x + sway) * 0.7, (y + 0.5 * sway) * 0.7, 0)
    leaf = (
        scene.colour((0.2, 0.38), (0.4, 0.8), (0.25, 0.6))
        * (1 + 0.3 * scene.noise((x + sway) * 1.8, y * 1.8, 1))[:, :, None]
    )
    outside = mix(outside, leaf, smooth_ramp(tree, 0.0, 0.5) * 0.9)
    pane = torch.maximum((x - cx).abs() - wide, torch.maximum(top - y, y - sill))
    picture = mix(
        room,
        scene.colour((0, 1), (0, 0.2), (0.7, 1)) * (0.95 - 0.1 * ramp(pane, 0.0, 0.03))[:, :, None],
        edge(scene, 0.03 - pane),
    )
    picture = mix(picture, outside * 1.15, edge(scene, -pane))
    bar = torch.minimum((x - cx).abs(), (y - top - 0.4 * (sill - top)).abs()) - 0.008
    picture = mix(picture, torch.ones_like(room) * 0.85, edge(scene, -bar) * edge(scene, -pane))
    picture = ground(scene, scene.number(0.86, 1.1), picture)
    cloth = scene.colour((0, 1), (0, 0.5), (0.6, 1.0))
    length = scene.number(0.80, 1.05)
    pleats, clear = scene.number(55, 95), scene.number(0.3, 0.8)
    rate, phase = scene.number(1.2, 2.2), scene.number(0, 6)
    side = torch.where(scene.wind < 0, -1.0, 1.0)
    for sign in (-1.0, 1.0):
        gust = 0.5 + 0.5 * (time * rate + phase + 0.8 * sign).sin() + 0.25 * (time * rate * 2.3 + phase).sin()
        down = ((y - top) / (length - top)).clamp(0, 1.2)
        lift = (0.30 * gust * down * down + 0.035 * (time * 4.1 - 7 * down + sign).sin() * down) * (
            0.7 + 0.3 * sign * side
        )
        inner = cx + sign * (wide * 0.50) + side * lift
        outer = cx + sign * (wide + 0.09) + side * lift * 0.55
        t = (x - torch.minimum(inner, outer)) / (outer - inner).abs().clamp(min=0.04)
        fold = (t * pleats * 0.35 + 1.2 * (time * 1.7 + 5 * down).sin() * down + phase).sin()
        hem = length - 0.16 * gust.clamp(min=0) * down - 0.012 * fold
        level = torch.maximum((t - 0.5).abs() - 0.5, 0 * t) * 0.2 + torch.maximum(
            top - 0.04 - y, y - hem
        ).clamp(min=0)
        shade = (0.82 + 0.20 * fold + 0.10 * edge(scene, -pane))[:, :, None]
        alpha = ramp(level, 0.006, 0.0) * (1 - 0.45 * clear * edge(scene, -pane) * (0.6 - 0.4 * fold))
        picture = mix(picture, cloth * shade, alpha)
    rod = torch.maximum((y - top + 0.045).abs() - 0.010, (x - cx).abs() - wide - 0.16)
    return mix(picture, cloth * 0.35, edge(scene, -rod))


def train(scene: Scenery) -> Tensor:
    """A landscape that passes a train's window: far hills slowly, trees faster, poles in a flash."""
    x, y, time = scene.x, scene.y, scene.time
    pace = scene.number(0.25, 0.6) * (2 * scene.chance(0.5) - 1)
    picture = sky(scene)
    haze = scene.colour((0.5, 0.65), (0.05, 0.3), (0.7, 0.95))
    for i in range(4):
        speed = (0.05, 0.16, 0.40, 0.85)[i]
        near = (i + 1) / 4
        moved = x + pace * time * speed
        base = scene.number(0.36 + 0.09 * i, 0.44 + 0.09 * i)
        rough = (0.09, 0.05, 0.05, 0.03)[i]
        # Trees on the nearer ridges: a finer noise on top.
        ridge = base - rough * scene.noise(moved * 0.25 + 0.3 * i, 0 * x + 0.27 * i, i % 3)
        ridge = ridge - 0.020 * (i > 0) * scene.noise(moved * 1.4, 0 * x + 0.13 * i, (i + 1) % 3)
        grain = scene.noise(moved * (0.8 + 0.2 * i), y * 2.0, (i + 2) % 3)
        own = (
            scene.colour((0.12, 0.42), (0.25, 0.75), (0.25, 0.65))
            * (1 + 0.16 * grain - 0.6 * (y - ridge).clamp(0, 0.4))[:, :, None]
        )
        picture = mix(
            picture, mix(haze, own, torch.full_like(x, 0.35 + 0.65 * near)), edge(scene, y - ridge, 2.0)
        )
    count = scene.number(1.1, 1.9)
    moved = (x + pace * time * 1.7) * count
    column = moved.floor()
    crown = scatter(column, 4.0, 2.0)
    dx = (moved - column - 0.5) / count
    leaf = scene.noise((x + pace * time * 1.7) * 1.1, y * 1.1, 1)
    tree = 0.10 + 0.07 * crown + 0.02 * leaf - (dx * dx + (y - 0.56 + 0.1 * crown) ** 2 + 1e-6).sqrt()
    green = scene.colour((0.18, 0.4), (0.4, 0.8), (0.15, 0.4)) * (1 + 0.3 * leaf)[:, :, None]
    trunk = torch.maximum(dx.abs() - 0.012, 0.56 - y)
    shown = torch.maximum(ramp(tree, -0.015, 0.015), edge(scene, -trunk, 3.0)) * (crown > 0.45)
    picture = mix(picture, green, shown)
    # Poles come with a blur as long as the way they make in a sixteenth of a second; the wires sag between them.
    post = (x + pace * time * 2.6) * 0.55
    away = (post - post.floor() - 0.5) / 0.55
    blurred = 0.012 + 0.05 * pace.abs()
    picture = mix(picture, green * 0.4, ramp(away.abs(), blurred, blurred * 0.4) * ramp(y, 0.05, 0.08) * 0.8)
    for i in range(2):
        sag = 0.14 + 0.05 * i + 0.05 * (1 - (1 - away.abs() / 0.909) ** 2)
        picture = mix(picture, green * 0.3, ramp((y - sag).abs(), 0.005, 0.002) * 0.8)
    sill, half = scene.number(0.70, 0.86), scene.number(0.5, 0.85)
    shift, high = scene.number(-0.2, 0.2), scene.number(0.02, 0.10)
    across, down = (x - shift).abs() - half, torch.maximum(high - y, y - sill)
    corner = (across.clamp(min=-0.08) + 0.08) ** 2 + (down.clamp(min=-0.08) + 0.08) ** 2
    frame = (corner + 1e-9).sqrt() - 0.08
    inside = scene.colour((0, 1), (0.05, 0.4), (0.25, 0.8))
    jolt = 1 + 0.03 * (time * 7).sin()
    tone = (0.85 + 0.2 * ramp(frame, 0.0, 0.2) - 0.35 * bump(frame / 0.03)) * jolt
    seat = torch.maximum((x - scene.number(-0.8, 0.8)).abs() - 0.2, 0.72 - y + 0.1 * (x * 9).cos() * 0.2)
    cabin = mix(
        inside * tone[:, :, None],
        scene.colour((0, 1), (0.2, 0.8), (0.2, 0.7)) * tone[:, :, None],
        edge(scene, -seat) * scene.chance(0.6),
    )
    glass = picture + 0.05 * ramp((x * 0.8 + y - scene.number(0.2, 0.9)).abs(), 0.12, 0.1)[:, :, None]
    return mix(glass, cabin, edge(scene, frame))
