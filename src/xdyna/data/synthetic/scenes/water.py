"""Water: sea, river, surf, falls, a fountain, and what is under the surface."""

from __future__ import annotations

import torch
from torch import Tensor

from xdyna.data.synthetic.draws import TAU
from xdyna.data.synthetic.scenery import Scenery, cells, edge, ground, hills, mix, sky
from xdyna.data.synthetic.shapes import bump, ramp, smooth_ramp


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
    ragged = 0.015 * scene.noise(0 * y + left, y * 0.4, 2)
    picture = mix(rock, stream, ramp(x - left - ragged, -0.01, 0.01) * ramp(right + ragged - x, -0.01, 0.01))
    foot = scene.number(0.75, 1.1)
    mist = ramp(y - foot + 0.14 * scene.noise(x * 0.7 + time * 0.10, y * 0.7 - time * 0.15, 2), -0.15, 0.15)
    return mix(picture, scene.colour((0.5, 0.6), (0, 0.2), (0.8, 1.0)), mist * 0.8)


def river(scene: Scenery) -> Tensor:
    """A river seen from above, between banks, round stones."""
    x, y, time = scene.x, scene.y, scene.time
    angle = scene.number(-0.9, 0.9)
    along, across = y * angle.cos() + x * angle.sin(), x * angle.cos() - (y - 0.5) * angle.sin()
    speed, phase = scene.number(0.10, 0.26) * (2 * scene.chance(0.5) - 1), scene.number(0, 6)
    bend = 0.10 * (along * 3.0 + phase).sin() + 0.03 * (along * 7 + 2 * phase).sin() + scene.number(-0.2, 0.2)
    ragged = scene.noise(x * 0.7, y * 0.7, 2)
    t = across - bend
    inside = scene.number(0.22, 0.5) + 0.025 * ragged - t.abs()
    bank = mix(
        scene.colour((0.06, 0.4), (0.2, 0.7), (0.2, 0.5)),
        scene.colour((0.08, 0.35), (0.2, 0.6), (0.4, 0.75)),
        ramp(scene.noise(x * 1.4, y * 1.4, 0) + 0.6 * ragged, -1.6, 1.8),
    )
    sand = scene.colour((0.07, 0.12), (0.2, 0.5), (0.5, 0.8))
    picture = mix(bank, sand, ramp(inside, -0.05, -0.01) * 0.8)
    flow = along * 0.55 - time * speed
    first = scene.noise(t * 1.5 + 0.02 * (flow * 19).sin(), flow, 0)
    second = scene.noise(t * 2.4 + 0.02 * first, flow * 1.5 - time * speed * 0.5, 1)
    deep = scene.colour((0.42, 0.62), (0.3, 0.8), (0.15, 0.5))
    shallow = scene.colour((0.25, 0.55), (0.15, 0.5), (0.4, 0.7))
    stream = mix(shallow, deep, smooth_ramp(inside + 0.03 * first, 0.0, 0.16))
    stream = stream * (1 + 0.14 * first + 0.10 * second)[:, :, None]
    stream = mix(stream, torch.ones_like(deep), ramp(first + second, 1.5, 3.0) * 0.8)
    foam = ramp(second + 0.6 * first + 2.2 * ramp(inside, 0.05, 0.0), 1.2, 2.6)
    stream = mix(stream, torch.ones_like(deep), foam * ramp(inside, 0.12, 0.0) * 0.8)
    picture = mix(picture, stream, edge(scene, inside, 2.0))
    for _ in range(4):
        cx, cy, size = scene.number(-0.5, 0.5), scene.number(0.05, 0.95), scene.number(0.02, 0.07)
        dx, dy = x - cx, y - cy
        far = (dx * dx + 1.5 * dy * dy + 1e-6).sqrt() * (1 + 0.08 * ragged) - size
        # White water round the stone and behind it.
        down = (dx * angle.sin() + dy * angle.cos()) * torch.where(speed > 0, 1.0, -1.0)
        aside = (dx * angle.cos() - dy * angle.sin()).abs()
        wake = ramp(aside - size, 0.03, -0.02) * ramp(down, -0.02, 0.03) * ramp(down, 0.34, 0.05)
        white = torch.maximum(ramp(far, 0.03, 0.0), wake * 0.9) * ramp(first + second, -1.0, 1.5)
        picture = mix(picture, torch.ones_like(deep), white * 0.8 * edge(scene, inside))
        tone = (0.9 + 0.2 * ragged - 3 * dy - 2 * dx)[:, :, None].clamp(0.3, 1.6)
        picture = mix(picture, scene.colour((0, 1), (0, 0.25), (0.25, 0.6)) * tone, edge(scene, -far))
    return picture


def surf(scene: Scenery) -> Tensor:
    """A beach: waves roll in, break, run up the sand and drain back, leaving it wet."""
    x, y, time = scene.x, scene.y, scene.time
    horizon, shore = scene.number(0.12, 0.36), scene.number(0.62, 0.82)
    rate, slant = scene.number(0.13, 0.24), scene.number(-0.12, 0.12)
    picture = sky(scene)
    down = (y - horizon - slant * x * ramp(y, horizon, shore)).clamp(min=0.004)
    depth = 0.25 / (down + 0.035)
    sand = scene.colour((0.06, 0.13), (0.15, 0.5), (0.6, 0.9))
    grain = 1 + 0.06 * scene.noise(x * 1.3, y * 2.6, 2)
    beach = sand * grain[:, :, None]
    far_ripple = scene.noise(x * depth * 0.45, depth * 0.8 + time * 0.15, 0)
    fine = scene.noise(x * depth * 0.8 + 0.1 * (time * 0.7).sin(), depth * 1.4 + time * 0.3, 1)
    deep = scene.colour((0.46, 0.62), (0.35, 0.85), (0.25, 0.6))
    green = scene.colour((0.42, 0.52), (0.25, 0.6), (0.5, 0.85))
    closer = ramp(y, horizon, shore)
    sea = mix(deep, green, closer**2) * (1 + 0.13 * far_ripple + 0.08 * fine)[:, :, None]
    # Crests travel towards the shore and steepen; foam begins where they break.
    clock = time * rate
    phase = closer * 2.6 - clock * 1.0 + 0.05 * scene.noise(x * 0.25, 0 * x + 0.3, 1)
    crest = phase - phase.floor()
    back = ramp(crest, 0.55, 0.95)
    sea = (
        sea
        * (1 + (0.30 * back - 0.30 * ramp(crest, 0.0, 0.02) * ramp(crest, 0.25, 0.0)) * closer)[:, :, None]
    )
    lace = scene.noise(x * 1.0, y * 1.8 - time * 0.10, 2) + 0.6 * fine
    broken = ramp(closer, 0.45, 0.9) * ramp(crest + 0.05 * lace, 0.84, 0.97)
    after = ramp(closer, 0.5, 1.0) * ramp(lace + 2.5 * crest - 1.6, 0.2, 1.5)
    white = torch.ones_like(deep) * 0.97
    sea = mix(sea, white, torch.maximum(broken, 0.75 * after))
    # The sheet of water on the sand: a front that runs up fast and drains slowly.
    turn = clock - clock.floor()
    run = torch.where(turn < 0.35, (turn / 0.35 * TAU / 4).sin(), ramp(turn, 1.0, 0.35) ** 1.3)
    reach = scene.number(0.10, 0.2)
    scallop = 0.025 * scene.noise(x * 0.55 + 0.37 * clock.floor(), 0 * x + 0.21 * clock.floor(), 0)
    front = shore + slant * x + reach * run + scallop - y
    wet_line = shore + slant * x + reach + scallop - y
    wet = ramp(wet_line, -0.015, 0.015) * (0.55 + 0.25 * ramp(front, -reach, 0.0))
    beach = mix(beach, beach * 0.62 + 0.10 * green, wet)
    film = mix(beach, green * 1.05, ramp(front, 0.0, 0.16) * 0.85)
    film = mix(film, white, ramp(lace + 3 * ramp(front, 0.14, 0.0) - 1.2, 0.0, 1.4) * 0.85)
    film = mix(film, white, bump(front / 0.014))
    land = mix(beach, film, edge(scene, front))
    beyond = ramp(shore + slant * x - y + 0.02 * lace, -0.02, 0.05)
    return mix(picture, mix(land, sea, beyond), edge(scene, y - horizon))


def fountain(scene: Scenery) -> Tensor:
    """A fountain in a park: jets rise, arch over and fall into a basin."""
    x, y, time = scene.x, scene.y, scene.time
    picture = hills(
        scene, scene.number(0.3, 0.5), scene.colour((0.2, 0.42), (0.2, 0.7), (0.2, 0.5)), sky(scene), 1
    )
    picture = ground(scene, scene.number(0.62, 0.7), picture)
    cx, level = scene.number(-0.4, 0.4), scene.number(0.74, 0.86)
    dx, wide = x - cx, scene.number(0.28, 0.46)
    stone = scene.colour((0.05, 0.65), (0.02, 0.25), (0.45, 0.85))
    # The far rim, the water, later the near wall.
    oval = ((dx / wide) ** 2 + ((y - level) / (0.16 * wide)) ** 2 + 1e-6).sqrt()
    tone = (1 + 0.10 * scene.noise(x * 1.4, y * 1.4, 2) - 0.3 * (dx / wide).clamp(-1, 1))[:, :, None]
    rim = ((dx / (wide + 0.025)) ** 2 + ((y - level) / (0.16 * wide + 0.018)) ** 2 + 1e-6).sqrt()
    wall = torch.maximum(dx.abs() - wide - 0.025, torch.maximum(level - y, y - level - 0.10))
    body = torch.maximum(edge(scene, -wall), edge(scene, (1 - rim) * wide * 0.2))
    picture = mix(picture, stone * tone * 0.85, body)
    picture = mix(picture, stone * tone, ramp(rim, 1.02, 0.99))
    ring = ((dx / wide) ** 2 + ((y - level) / (0.16 * wide)) ** 2 + 1e-6).sqrt() * 30 - time * 9
    choppy = 0.5 * ring.sin() + 0.6 * scene.noise(dx * 1.6, (y - level) * 8 + time * 0.4, 0)
    pool = scene.colour((0.45, 0.6), (0.25, 0.7), (0.3, 0.65)) * (1 + 0.22 * choppy)[:, :, None]
    picture = mix(picture, pool, ramp(oval, 1.01, 0.99))
    high, speed = scene.number(0.38, 0.6), scene.number(0.5, 0.8)
    pulse = 1 + 0.05 * (time * 2.3).sin() + 0.03 * (time * 5.1).sin()
    spray = torch.zeros_like(dx + time)
    rough = scene.noise(x * 1.7, y * 1.0 - time * speed * 0.4, 1)
    blown = 0.05 * scene.wind * (level - y).clamp(min=0)
    for i in range(4):
        out = wide * (0.22 + 0.19 * i)
        rise = high * (1 - 0.16 * i) * pulse
        share = ((dx - blown).abs() / out).clamp(max=1.3)
        arc = level - rise * 4 * (share * 0.5 + 0.08) * (1 - share * 0.5 - 0.08) * (
            1 - ramp(share, 0.9, 1.1) * 0.3
        )
        arc = arc + rise * 1.25 * (share - 0.42).clamp(min=0) ** 2 * 2.2
        thin = 0.006 + 0.026 * share
        bead = 0.55 + 0.45 * ((share * 40 - time * speed * 16 + 3 * rough).sin())
        drop = bump((y - arc + 0.012 * rough * share) / thin) * (share < 1.02) * (y < level + 0.02)
        spray = torch.maximum(spray, drop * (0.45 + 0.55 * bead * ramp(rough, -2.0, 0.8)))
    column = bump((dx - blown) / (0.016 + 0.035 * ramp(level - y, high * 0.6, high))) * (y < level)
    top = level - high * 1.12 * pulse + 0.03 * rough
    spray = torch.maximum(spray, column * ramp(y - top, -0.01, 0.04) * (0.75 + 0.25 * rough).clamp(0, 1))
    mist = bump(dx / (1.1 * wide)) * bump((y - level + 0.02) / 0.07) * ramp(rough, -1.2, 1.6) * 0.7
    return mix(picture, scene.colour((0.5, 0.6), (0, 0.08), (0.93, 1)), torch.maximum(spray * 0.9, mist))


def underwater(scene: Scenery) -> Tensor:
    """Under the surface: shafts of light, plants that sway, fish that pass and bubbles that rise."""
    x, y, time = scene.x, scene.y, scene.time
    top = scene.colour((0.46, 0.58), (0.3, 0.7), (0.6, 0.95))
    picture = mix(top, scene.colour((0.50, 0.64), (0.6, 0.95), (0.08, 0.35)), (y * 1.1).clamp(0, 1))
    lean = scene.number(-0.5, 0.5)
    shaft = scene.noise(0.5 * (x + lean * y) / (1 + 0.5 * y) + 0.02 * time, 0 * x + 0.05 * time, 0)
    shaft = shaft + 0.6 * scene.noise(1.1 * (x + lean * y) / (1 + 0.5 * y) - 0.04 * time, 0 * x + 0.4, 1)
    picture = picture * (1 + (0.30 * shaft.clamp(-1, 2.5) * ramp(y, 1.0, 0.0)))[:, :, None]
    haze = mix(top, picture, torch.full_like(x, 0.6))
    floor = scene.number(0.80, 0.94) + 0.03 * scene.noise(x * 0.3, 0 * x, 2)
    caustic = (
        1
        - (
            scene.noise(x * 0.7 + 0.06 * time, y * 1.8 + 0.03 * time, 1)
            - scene.noise(x * 0.8 - 0.05 * time, y * 2 + 0.3, 0)
        ).abs()
    )
    sand = (
        scene.colour((0.09, 0.5), (0.15, 0.5), (0.4, 0.75))
        * (0.8 + 0.28 * caustic.clamp(min=-0.5))[:, :, None]
    )
    picture = mix(picture, mix(haze, sand, torch.full_like(x, 0.6)), edge(scene, y - floor, 2.0))
    for i in range(2):
        base, high = floor + 0.02 + 0.08 * i, scene.number(0.22, 0.5)
        up = ((base - y) / high).clamp(0, 1.2)
        bent = (
            x
            + (
                0.05 * (time * scene.number(0.9, 1.8) + 5 * x + 3 * up).sin()
                + 0.02 * (time * 2.7 + 9 * x).sin()
            )
            * up
        )
        weed = scene.noise(bent * 1.7 + 0.4 * i, 0 * x + 0.3 * i, (i + 1) % 3)
        shape = ramp(0.10 + 0.40 * weed.clamp(-1, 1.5) - up, 0.0, 0.06)
        colour = scene.colour((0.2, 0.5), (0.3, 0.8), (0.15, 0.5)) * (0.7 + 0.5 * up)[:, :, None]
        picture = mix(picture, colour, shape * edge(scene, base + 0.1 - y))
    for i in range(2):
        rows, pace = 3.0 + 2 * i, scene.number(0.05, 0.16) * (2 * scene.chance(0.5) - 1)
        swim = x - time * pace
        across, down, seed = cells(
            swim * rows * 0.8,
            (y + 0.02 * (time * 1.3 + swim * 4).sin()) * rows,
            scene.number(0, 99),
            spread=0.14,
        )
        ahead = across * torch.where(pace > 0, 1.0, -1.0)
        down = down + 0.03 * (time * 9 - ahead * 9 + seed * 20).sin() * ramp(ahead, 0.1, -0.3)
        size = 0.14 + 0.10 * seed
        body = 1 - (ahead / size) ** 2 - (down / (0.38 * size)) ** 2
        fork = torch.maximum(
            (down.abs() - 0.55 * (-ahead - 0.8 * size)),
            torch.maximum(-ahead - 1.45 * size, ahead + 0.8 * size),
        )
        shape = torch.maximum(ramp(body, -0.05, 0.1), ramp(fork, 0.012, -0.012)) * (seed > 0.5)
        scale = (0.75 - 1.2 * down / size)[:, :, None] * (1 + 0.25 * (ahead / size * 9).sin())[:, :, None]
        fish = scene.colour((0, 1), (0.2, 0.9), (0.5, 1)) * scale
        eye = ramp(
            (ahead - 0.6 * size) ** 2 + (down + 0.06 * size) ** 2, (0.10 * size) ** 2, (0.05 * size) ** 2
        )
        picture = mix(picture, mix(fish, 0 * fish, eye), shape * (0.55 + 0.35 * i))
    for i in range(2):
        grid = 5.0 + 4 * i
        wobble = 0.015 * (time * 4 + y * 16 + i).sin()
        across, down, seed = cells(
            (x + wobble) * grid, (y + time * (0.14 + 0.05 * i)) * grid, scene.number(0, 99)
        )
        size = 0.05 + 0.12 * seed
        far = (across * across + down * down + 1e-6).sqrt() / size
        rim = bump((far - 0.85) / 0.22) + 0.9 * ramp(
            (across + 0.4 * size) ** 2 + (down + 0.4 * size) ** 2, 0.06 * size * size, 0
        )
        picture = mix(
            picture, torch.ones_like(top), (rim * 0.55 + 0.12 * (far < 1)).clamp(max=0.9) * (seed > 0.55)
        )
    return picture
