"""Rooms, in which nothing moves."""

from __future__ import annotations

import torch
from torch import Tensor

from xdyna.data.synthetic.draws import TAU
from xdyna.data.synthetic.scenery import Scenery, edge, ground, mix, scatter
from xdyna.data.synthetic.shapes import bump, ramp


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
    picture = mix(picture, photo, scene.chance(0.30))
    lamp_x, lamp_y = scene.number(-0.8, 0.8), scene.number(-0.2, 0.8)
    far = (x - lamp_x) ** 2 + (y - lamp_y) ** 2
    return picture * (1 + scene.number(-0.15, 0.30) * torch.exp(-far * 2))[:, :, None]


def room(scene: Scenery) -> Tensor:
    """A furnished room in perspective: back wall, side walls, floor, a window's light, a sofa, a lamp, a plant."""
    x, y = scene.x, scene.y
    vx, vy = scene.number(-0.25, 0.25), scene.number(0.36, 0.52)
    left, right = scene.number(-0.75, -0.3), scene.number(0.3, 0.75)
    top, low = scene.number(-0.05, 0.14), scene.number(0.66, 0.80)
    grain = scene.noise(x * 0.7, y * 0.7, 2)
    wall = scene.colour((0, 1), (0.02, 0.35), (0.45, 0.95))
    back = wall * (1 + 0.05 * grain - 0.12 * (y - 0.3))[:, :, None]
    # How far beyond each edge of the back wall a pixel lies, as a share of the way from the vanishing point.
    out_x = torch.maximum((x - vx) / (right - vx), (x - vx) / (left - vx))
    out_y = torch.maximum((y - vy) / (low - vy), (y - vy) / (top - vy))
    sides = wall * (0.62 + 0.12 * (x > vx) + 0.10 / out_x.clamp(min=1))[:, :, None]
    depth = 1 / out_y.clamp(min=1)
    boards = ((x - vx) * depth * scene.number(7, 16)).floor()
    plank = scatter(boards, (depth * 6 + 0.4 * boards).floor(), 2.0)
    wood = scene.colour((0.03, 0.12), (0.15, 0.6), (0.25, 0.75))
    streak = scene.noise((x - vx) * depth * 1.5, depth * 0.8, 0)
    floor = wood * (0.82 + 0.22 * plank + 0.06 * streak)[:, :, None] * (0.75 + 0.35 * (1 - depth))[:, :, None]
    ceiling = scene.colour((0, 0.2), (0, 0.08), (0.75, 1.0)) * (0.8 + 0.1 * depth)[:, :, None]
    picture = mix(back, sides, edge(scene, (out_x - 1) * 0.3, 1.5))
    vertical = out_y > out_x
    picture = mix(
        picture,
        torch.where((y > vy)[:, :, None], floor, ceiling),
        edge(scene, (out_y - 1) * 0.3, 1.5) * vertical,
    )
    skirting = edge(scene, 0.012 - (y - low + 0.012).abs()) * (out_x < 1)
    picture = mix(picture, torch.ones_like(wall) * 0.85, skirting * scene.chance(0.7))
    # Where walls meet it is darker.
    corner = bump((out_x - 1) / 0.10) + bump((torch.maximum(out_y, out_x) - 1) / 0.12)
    picture = picture * (1 - 0.10 * corner)[:, :, None]
    wx, wy, ww, wh = (
        scene.number(-0.5, 0.5),
        scene.number(0.18, 0.32),
        scene.number(0.08, 0.2),
        scene.number(0.09, 0.17),
    )
    pane = torch.maximum((x - wx).abs() - ww, (y - wy).abs() - wh)
    here = scene.chance(0.6) * (out_x < 1) * (out_y < 1)
    view = mix(
        scene.colour((0.5, 0.65), (0.1, 0.5), (0.8, 1)),
        scene.colour((0.2, 0.45), (0.2, 0.6), (0.4, 0.8)),
        ramp(y - wy, -0.05, 0.08),
    )
    view = view * (1 + 0.15 * scene.noise(x * 1.4, y * 1.4, 1))[:, :, None]
    cross = torch.minimum((x - wx).abs(), (y - wy).abs()) - 0.006
    view = mix(view, torch.ones_like(wall) * 0.92, edge(scene, -cross))
    picture = mix(picture, torch.ones_like(wall) * 0.9, edge(scene, 0.018 - pane) * here)
    picture = mix(picture, view, edge(scene, -pane) * here)
    # Its light lies on the floor, slanted.
    patch = torch.maximum((x - wx - 0.8 * (y - low)).abs() - ww * 1.1, (y - low - 0.13).abs() - 0.07)
    picture = (
        picture
        * (1 + 0.30 * ramp(patch, 0.03, -0.03) * here.amax((2, 3), keepdim=True) * ramp(y - low, 0.0, 0.03))[
            :, :, None
        ]
    )
    # A sofa, a table or a chest: a box with a seat and a back.
    cloth = scene.colour((0, 1), (0.1, 0.7), (0.15, 0.8))
    sx, sw, sh = scene.number(-0.7, 0.7), scene.number(0.14, 0.32), scene.number(0.10, 0.2)
    base, here = low + scene.number(0.02, 0.12), scene.chance(0.65)
    shadow = bump((x - sx) / (1.2 * sw)) * bump((y - base) / 0.05)
    picture = picture * (1 - 0.35 * shadow * here)[:, :, None]
    rest = torch.maximum((x - sx).abs() - sw, torch.maximum(base - sh - y, y - base)) - 0.01
    seat = torch.maximum((x - sx).abs() - sw * 1.06, torch.maximum(base - 0.5 * sh - y, y - base)) - 0.008
    weave = (1 + 0.08 * grain)[:, :, None]
    picture = mix(
        picture,
        cloth * weave * (0.75 + 0.5 * ramp(y, base, base - sh))[:, :, None],
        edge(scene, -rest) * here,
    )
    seams = 1 - 0.2 * ramp(((x - sx) % (sw * 0.66) - sw * 0.33).abs(), 0.012, 0.0)
    picture = mix(
        picture,
        cloth * weave * (0.85 * seams - 0.3 * ramp(y, base - 0.4 * sh, base))[:, :, None],
        edge(scene, -seat) * here,
    )
    cushion = ((x - sx - 0.5 * sw) ** 2 + (y - base + 0.62 * sh) ** 2 + 1e-6).sqrt() - 0.055
    picture = mix(picture, scene.colour() * weave, edge(scene, -cushion) * here * scene.chance(0.6))
    # A plant in a pot.
    px, foot, here = scene.number(-0.8, 0.8), low + scene.number(0.03, 0.16), scene.chance(0.5)
    pot = torch.maximum(
        (x - px).abs() - 0.045 + 0.25 * (y - foot + 0.09), torch.maximum(foot - 0.09 - y, y - foot)
    )
    picture = mix(
        picture,
        scene.colour((0, 0.2), (0.1, 0.6), (0.3, 0.9)) * (1 - 5 * (x - px))[:, :, None],
        edge(scene, -pot) * here,
    )
    around = torch.atan2(y - foot + 0.12, x - px)
    far = ((x - px) ** 2 + (y - foot + 0.2) ** 2 + 1e-6).sqrt()
    leaf = (
        0.15
        + 0.07 * (around * scene.number(5, 11).floor() + 1).sin()
        + 0.03 * scene.noise(x * 1.7, y * 1.7, 0)
        - far
    )
    green = (
        scene.colour((0.22, 0.42), (0.3, 0.8), (0.2, 0.6))
        * (0.8 + 2.2 * far + 0.2 * scene.noise(x * 2.6, y * 2.6, 1))[:, :, None]
    )
    picture = mix(picture, green, ramp(leaf, -0.008, 0.008) * here * edge(scene, foot - 0.05 - y))
    # A standing lamp and its glow.
    lx, ly, here = scene.number(-0.8, 0.8), scene.number(0.22, 0.42), scene.chance(0.45)
    shade = torch.maximum((x - lx).abs() - 0.05 - 0.35 * (y - ly), (y - ly).abs() - 0.05)
    pole = torch.maximum((x - lx).abs() - 0.005, torch.maximum(ly - y, y - low - 0.08))
    picture = picture + (0.30 * here / (1 + ((x - lx) ** 2 + (y - ly) ** 2) / 0.03))[:, :, None] * wall
    picture = mix(picture, wood * 0.4, edge(scene, -pole) * here)
    return mix(picture, scene.colour((0.05, 0.16), (0.1, 0.5), (0.9, 1)), edge(scene, -shade) * here)


def shelf(scene: Scenery) -> Tensor:
    """Shelves full of books, jars and pictures, before a wall or out to the frame's edge."""
    x, y = scene.x, scene.y
    grain = scene.noise(x * 0.6, y * 2.5, 0)
    wood = scene.colour((0.03, 0.12), (0.1, 0.6), (0.2, 0.85)) * (1 + 0.08 * grain)[:, :, None]
    count, salt = scene.number(3, 6.5), scene.number(0, 40)
    v = y * count + scene.number(0, 1)
    row = v.floor()
    t = v - row
    back = wood * (0.45 + 0.25 * t)[:, :, None]
    picture = back
    palette = [scene.colour((0, 1), (0.1, 0.9), (0.15, 0.95)) for _ in range(4)]
    depth = 1 - 0.5 * bump(t / 0.18)
    for i in range(2):
        # Books of two widths; in the second pass some slots are jars and boxes.
        slots = x * (26.0 - 15 * i) + 7.3 * row
        column = slots.floor()
        own, other = scatter(column, row, salt + i), scatter(column, row + 50, salt)
        high, u = 0.50 + 0.38 * own, slots - column
        lean = 0.06 * (other > 0.85) * (t - 1)
        spine = torch.maximum((u - 0.5 + lean * 6).abs() - 0.46, 1 - high - t)
        colour = mix(
            mix(palette[0], palette[1], (own * 2) % 1),
            mix(palette[2], palette[3], (other * 3) % 1),
            (other > 0.5) * 1.0,
        )
        round_ = 1 - 0.35 * (2 * u - 1).abs() ** 2
        band = 1 + 0.35 * ((((t - 1) / high + 0.8).abs() < 0.05) | (((t - 1) / high + 0.25).abs() < 0.03))
        here = (
            (scatter((x * 2.2).floor(), row, salt) > 0.25)
            if i == 0
            else (scatter((x * 2.2).floor(), row, salt) <= 0.25) & (own > 0.3)
        )
        if i == 1:
            jar = torch.maximum(((u - 0.5) ** 2 * 5 + 1e-6).sqrt() - 0.85, 1 - 0.75 * high - t)
            spine = torch.where(
                other > 0.5,
                jar,
                torch.maximum(jar, ((t - 1 + 0.4 * high) ** 2 * 4 + (u - 0.5) ** 2 * 5 + 1e-6).sqrt() - 0.9),
            )
        picture = mix(picture, colour * (round_ * band * depth)[:, :, None], ramp(spine, 0.04, -0.02) * here)
    board = (0.07 - torch.minimum(t, 1 - t)) / count
    picture = mix(picture, wood * (0.85 + 0.4 * (t > 0.5))[:, :, None], edge(scene, board))
    posts = ((x * scene.number(1.0, 2.2) + scene.number(0, 1)) % 1 - 0.5).abs()
    picture = mix(picture, wood * 0.9, ramp(posts, 0.025, 0.02))
    picture = picture * (1 + scene.number(-0.25, 0.25) * (2 * x))[:, :, None]
    # At times it ends, and a plain wall begins.
    end = scene.number(-0.4, 0.4)
    side = torch.where(scene.chance(0.5) > 0, x - end, end - x)
    wall = (
        scene.colour((0, 1), (0.02, 0.4), (0.4, 0.95))
        * (1 + 0.04 * scene.noise(x, y, 2) - 0.2 * bump(side / 0.06))[:, :, None]
    )
    return mix(picture, wall, edge(scene, side) * scene.chance(0.5))
