"""Painting a head: skin, ears, eyes, brows, nose, mouth, beard, glasses (hair is in `hair`)."""

from __future__ import annotations

import torch
from torch import Tensor

from xdyna.data.synthetic.draws import Params
from xdyna.data.synthetic.head import Surface, brow_line, eye_lids, mouth_lines
from xdyna.data.synthetic.shapes import Window, coverage, lit, per_pixel, ramp, sample_texture, smooth_ramp

Values = dict[str, Tensor]


def paint_face(window: Window, surface: Surface, look: Params, light: Tensor, noise: Tensor) -> None:
    """Paint the head without hair.

    Args:
        window: holds the head in every frame.
        surface: of `HeadShape.surface` for the window's pixels.
        look: identity, state and derived values of the head, one row a frame, on the window's device.
        light: (n 5), see `limb_shade`.
        noise: (n h w) skin texture, standard deviation 1.
    """
    at: Values = {name: per_pixel(value) for name, value in look.items() if value.dim() == 1}
    skin = look["skin"]
    height, lateral, across = surface.height, surface.lateral, surface.across
    facing = (
        across * per_pixel(light[:, 0])
        + surface.v * 0.75 * per_pixel(light[:, 1])
        + torch.sqrt((1 - across.clamp(-1, 1) ** 2).clamp(min=0)) * per_pixel(light[:, 2])
    )
    shade = lit(facing, light)

    for sign in (-1, 1):
        _ear(window, surface, look, at, sign, shade, near=False)
    inside = coverage(surface.outside)
    window.paint(inside, _skin(surface, look, at, noise), shade)
    for sign in (-1, 1):
        _ear(window, surface, look, at, sign, shade, near=True)

    _ageing(window, surface, at, inside)
    front = inside * ramp(surface.angle.cos(), 0.0, 0.12)
    for sign in (-1, 1):
        _eye(window, surface, look, at, sign, front, shade)
    _nose(window, surface, look, at, skin, light, front)
    _mouth(window, surface, look, at, front, shade)
    _beard(window, surface, look, at, front, shade, noise)
    for sign in (-1, 1):
        _brow(window, surface, look, at, sign, front, noise)
    _glasses(window, surface, look, at, lateral, height, front)


def _skin(surface: Surface, look: Params, at: Values, noise: Tensor) -> Tensor:
    """Skin with blush, freckles and a little unevenness (n 3 h w)."""
    skin = look["skin"][:, :, None, None]
    cheek = torch.exp(
        -(((surface.lateral.abs() - 0.42) / 0.2) ** 2) - ((surface.height - 0.32) / 0.16) ** 2
    ) + 0.6 * torch.exp(-((surface.lateral / 0.12) ** 2) - ((surface.height - at["nose_y"]) / 0.12) ** 2)
    redder = (
        torch.stack([0.06 * cheek, -0.16 * cheek, -0.12 * cheek], 1)
        * (at["blush"] * (0.3 + skin.mean(1)))[:, None]
    )
    spots = ramp(noise, 1.1, 1.8) * at["freckles"] * cheek * 0.5
    return (skin + redder) * (1 + 0.018 * noise - spots)[:, None]


def _ear(
    window: Window, surface: Surface, look: Params, at: Values, sign: int, shade: Tensor, *, near: bool
) -> None:
    """The far ear goes behind the head, the near one before it."""
    side = "left" if sign > 0 else "right"
    towards = at["sin_yaw"] * sign
    here = ((towards < -0.08) if near else (towards >= -0.08)).float()
    du = (surface.u - at[f"{side}_ear_u"]) / (0.13 * at["ear"] * (1 + 0.5 * towards.abs()))
    dv = (surface.v - at[f"{side}_ear_v"]) / (0.21 * at["ear"])
    round_ = (du * du + dv * dv + 1e-6).sqrt()
    alpha = coverage(round_ - 1) * here
    inner = 1 - 0.30 * ramp(round_, 0.75, 0.35) * ramp(dv, 0.9, 0.2)
    window.paint(
        alpha, look["skin"] * look["skin"].new_tensor([0.97, 0.88, 0.86]), shade.clamp(min=0.6) * inner
    )
    ring = coverage(
        ((surface.u - at[f"{side}_ear_u"]) ** 2 + (surface.v - at[f"{side}_ear_v"] - 0.24) ** 2 + 1e-6).sqrt()
        - 0.05
    )
    window.paint(ring * here * at["earrings"], look["shadow_colour"] + 0.3)


def _ageing(window: Window, surface: Surface, at: Values, inside: Tensor) -> None:
    """Folds that deepen with age and with the smile."""
    height, side = surface.height, surface.lateral.abs()
    # From the nose's wing to outside the mouth's corner.
    t = ramp(height, at["nose_y"] + 0.02, at["mouth_y"] + 0.06)
    line = at["nose_width"] + 0.04 + (at["mouth_half"] + 0.03 - at["nose_width"]) * t
    fold = torch.exp(-(((side - line) / 0.022) ** 2)) * (t * (1 - t) * 4).clamp(max=1)
    amount = fold * (0.05 + 0.20 * at["smile"].clamp(min=0) + 0.18 * at["age"])
    bags = torch.exp(-(((height - at["eye_y"] - 0.17) / 0.03) ** 2) - ((side - at["eye_x"]) / 0.14) ** 2)
    wave = ((height + 0.6) * 52 + 1.5 * side).sin().clamp(min=0)
    brow = (
        wave
        * ramp(height, -0.68, -0.6)
        * ramp(height, at["brow_line"] - 0.06, at["brow_line"] - 0.14)
        * ramp(side, 0.5, 0.2)
    )
    amount = amount + 0.16 * at["age"] * bags + brow * (0.10 * at["age"] + 0.06 * at["brow"].clamp(min=0))
    window.darken((amount * inside).clamp(0, 0.5))


def _eye(
    window: Window, surface: Surface, look: Params, at: Values, sign: int, front: Tensor, shade: Tensor
) -> None:
    height = surface.height
    across = sign * surface.lateral - at["eye_x"]  # positive outwards
    place = across / at["eye_width"]
    upper, lower = eye_lids(place.clamp(-1.3, 1.3), at["eye_y"], at["eye_height"], at["eye_slant"], at["lid"])
    beyond = (place.abs() - 1) * at["eye_width"]

    # The socket: shade under the brow, and what make-up is on the lid.
    rise = (height - (at["eye_y"] - 0.9 * at["eye_height"])) / (0.9 * at["eye_height"])
    socket = torch.exp(-((place / 1.15) ** 4) - rise * rise)
    window.darken(socket * front * 0.16)
    shadow = look["shadow_colour"][:, :, None, None]
    window.paint(
        socket * front * at["eye_shadow"], shadow.expand(-1, -1, *height.shape[1:]), shade, covers=False
    )

    opening = torch.maximum(torch.maximum(upper - height, height - lower), beyond)
    wide_open = coverage(opening) * front * ramp(at["lid"], 0.02, 0.10)
    ball = 0.95 - 0.10 * place * place
    white = ball.new_tensor([1.0, 0.98, 0.97])
    under_lid = 1 - 0.38 * ramp(height - upper, 0.07, 0.0)
    eye_light = shade.clamp(0.75, 1.05) * under_lid * ball
    window.paint(wide_open, white.expand(len(height), 3), eye_light, covers=False)
    # The iris: darker rim, lighter below, pupil, and a highlight that stays with the light.
    du = across - sign * at["gaze_x"] * 0.55 * at["eye_width"]
    dv = height - at["eye_y"] + 0.20 * at["eye_height"] - at["gaze_y"] * 0.42 * at["eye_height"]
    from_middle = (du * du + dv * dv + 1e-8).sqrt() / at["iris_radius"]
    rim = (
        1.1
        - 0.65 * smooth_ramp(from_middle, 0.62, 1.0)
        + 0.35 * dv / at["iris_radius"] * ramp(from_middle, 0.2, 0.8)
    )
    iris = coverage(from_middle - 1) * wide_open
    window.paint(iris, look["iris"], rim * under_lid, covers=False)
    window.paint(coverage(from_middle - 0.45) * wide_open, look["iris"] * 0.10, covers=False)
    glint = ((du * sign + 0.35 * at["iris_radius"]) ** 2 + (dv + 0.38 * at["iris_radius"]) ** 2 + 1e-8).sqrt()
    window.paint(
        coverage(glint - 0.26 * at["iris_radius"]) * iris * 0.9, torch.ones_like(look["iris"]), covers=False
    )
    # Lashes: a line on the upper lid's edge, thicker outwards; the crease above; a faint lower line.
    inside = ramp(place.abs(), 1.06, 0.98)
    thick = (0.010 + 0.020 * at["lashes"] * (0.6 + 0.4 * place)) * inside
    line = coverage((height - upper).abs() - thick) * inside * front
    dark = (look["hair"] * 0.25).clamp(0, 0.25)
    window.paint(line * (0.55 + 0.4 * at["lashes"]).clamp(max=1), dark, covers=False)
    crease = torch.exp(-(((height - upper + 0.055 + 0.02 * at["lid"]) / 0.013) ** 2)) * ramp(
        place.abs(), 1.0, 0.7
    )
    below = torch.exp(-(((height - lower) / 0.010) ** 2)) * inside
    window.darken((crease * 0.25 * at["lid"] + below * 0.25) * front)


def _brow(
    window: Window, surface: Surface, look: Params, at: Values, sign: int, front: Tensor, noise: Tensor
) -> None:
    reach = 1.28 * at["eye_width"]
    place = (sign * surface.lateral - at["eye_x"]) / reach
    line = brow_line(place.clamp(-1.2, 1.2), at["brow_line"], at["brow_arch"], at["brow_tilt"])
    thick = at["brow_thick"] * (0.85 - 0.35 * place) * ramp(place.abs(), 1.08, 0.8) + 1e-3
    alpha = coverage(
        torch.maximum((surface.height - line).abs() - thick, (place.abs() - 1.05) * reach), soft=1.6
    )
    colour = look["hair"] * 0.62 * look["hair_here"][:, None] + look["skin"] * 0.42 * (
        1 - look["hair_here"][:, None]
    )
    window.paint(alpha * front * (0.85 + 0.12 * noise).clamp(0.4, 1), colour, covers=False)


def _nose(
    window: Window, surface: Surface, look: Params, at: Values, skin: Tensor, light: Tensor, front: Tensor
) -> None:
    """The nose stands out of the face, so it is painted in the picture's plane between projected points."""
    u, v = surface.u, surface.v
    top_v, tip_u, tip_v = at["nose_top_v"], at["nose_tip_u"], at["nose_tip_v"]
    t = ramp(v, top_v, tip_v)
    middle = at["nose_top_u"] + (tip_u - at["nose_top_u"]) * t
    half = at["nose_width"] * (0.34 + 0.5 * t * t)
    side = (u - middle) / half
    along = smooth_ramp(v, top_v - 0.05, top_v + 0.15) * ramp(v, tip_v + 0.10, tip_v + 0.02)
    # One flank away from the light is dark; the ridge catches it.
    away = -torch.sign(per_pixel(light[:, 0]))
    flank = torch.exp(-(((side * away - 0.95) / 0.45) ** 2)) * along
    window.darken(flank * front * (0.16 + 0.14 * t))
    ridge = torch.exp(-((side / 0.35) ** 2)) * along
    tip = torch.exp(-(((u - tip_u) / 0.07) ** 2) - ((v - tip_v + 0.02) / 0.06) ** 2)
    window.paint((0.10 * ridge + 0.14 * tip) * front, (skin * 1.15 + 0.08).clamp(max=1), covers=False)
    # Underside, wings and nostrils.
    dv = v - tip_v - 0.055
    wide = at["nose_width"] * 1.02
    under = torch.exp(-(((dv - 0.015) / 0.035) ** 2)) * ramp((u - tip_u).abs(), wide * 1.1, wide * 0.6)
    window.darken(under * front * 0.26)
    for sign in (-1, 1):
        hole = (
            ((u - tip_u - sign * 0.48 * at["nose_width"]) / 0.045) ** 2 + (dv / 0.024) ** 2 + 1e-8
        ).sqrt() - 1
        window.paint(coverage(hole, soft=1.5) * front * 0.75, skin * 0.30, covers=False)
        wing = (
            ((u - tip_u - sign * 0.95 * at["nose_width"]) / 0.028) ** 2 + ((dv + 0.03) / 0.055) ** 2
        ).clamp(max=30)
        window.darken(torch.exp(-wing) * front * 0.25)


def _mouth(window: Window, surface: Surface, look: Params, at: Values, front: Tensor, shade: Tensor) -> None:
    half = at["mouth_half"]
    place = surface.lateral / half
    inside = place.clamp(-1, 1)
    lines = mouth_lines(inside, at["mouth_y"], at["smile"], at["mouth_open"], at["pucker"], at["lip_thick"])
    upper_outer, upper_inner, lower_inner, lower_outer = lines
    height = surface.height
    beyond = (place.abs() - 1) * half
    lips = coverage(torch.maximum(torch.maximum(upper_outer - height, height - lower_outer), beyond)) * front
    # The upper lip faces down and is darker; the lower one has a highlight.
    lower_lip = height - lower_inner
    lip_height = (lower_outer - lower_inner).clamp(min=1e-3)
    gloss = 0.20 * torch.exp(-(((lower_lip / lip_height - 0.4) / 0.3) ** 2)) * ramp(place.abs(), 0.7, 0.2)
    tone = torch.where(height < upper_inner, 0.84, 1.0) + gloss
    window.paint(lips, look["lip"], shade * tone, covers=False)
    gap = torch.maximum(torch.maximum(upper_inner - height, height - lower_inner), beyond + 0.02)
    opened = coverage(gap) * front
    window.paint(opened, look["lip"] * 0.18, covers=False)
    # Tongue, then both rows of teeth, only where the mouth is open.
    room = (lower_inner - upper_inner).clamp(min=1e-4)
    level = (height - upper_inner) / room
    wide = ramp(at["mouth_open"], 0.08, 0.22)
    tongue = coverage(((place / 0.62) ** 2 + ((level - 1.05) / 0.52) ** 2).sqrt() - 1) * opened
    window.paint(
        tongue * wide,
        look["lip"].new_tensor([[0.74, 0.34, 0.34]]).expand_as(look["lip"]),
        0.75 + 0.3 * level,
        covers=False,
    )
    tooth = 1 - 0.10 * ((surface.lateral * 46).cos() > 0.93).float()
    grin = ramp(at["smile"], -0.1, 0.35)
    upper_teeth = (
        coverage(height - upper_inner - 0.085 * (0.4 + 0.6 * grin)) * coverage(beyond + 0.03) * opened
    )
    window.paint(
        upper_teeth * ramp(room, 0.012, 0.05),
        torch.full_like(look["lip"], 0.93),
        tooth * shade.clamp(0.7, 1),
        covers=False,
    )
    lower_teeth = (
        coverage(lower_inner - 0.035 - height) * coverage(beyond + 0.07) * opened * ramp(room, 0.12, 0.22)
    )
    window.paint(lower_teeth * 0.8, torch.full_like(look["lip"], 0.86), tooth, covers=False)
    shut = torch.exp(-(((height - upper_inner) / 0.014) ** 2)) * coverage(beyond - 0.02) * (1 - opened)
    below = torch.exp(-(((height - lower_outer - 0.05) / 0.03) ** 2)) * ramp(place.abs(), 0.8, 0.3)
    window.darken((shut * 0.55 * ramp(at["mouth_open"], 0.15, 0.02) + below * 0.16) * front)


def _beard(
    window: Window, surface: Surface, look: Params, at: Values, front: Tensor, shade: Tensor, noise: Tensor
) -> None:
    height, side = surface.height, surface.lateral.abs()
    jaw = ramp(height - (0.30 + 0.30 * (1 - (side / 0.6).clamp(max=1))), 0.0, 0.14)
    mouth_top = at["mouth_y"] - 0.05
    tuft = ramp(height, at["nose_y"] + 0.08, at["nose_y"] + 0.13) * ramp(
        height, mouth_top + 0.10, mouth_top + 0.04
    )
    tuft = tuft * ramp(side, at["mouth_half"] * 1.25, at["mouth_half"] * 0.95)
    around = torch.maximum(
        side / (at["mouth_half"] * 1.02) - 1, (height - at["lip_middle"]).abs() / at["lip_reach"] - 1
    )
    free = ramp(around, 0.0, 0.12)
    alpha = torch.maximum(jaw * at["beard"], tuft * at["moustache"]) * free * front
    alpha = alpha * (0.86 + 0.14 * noise).clamp(0, 1)
    window.paint(alpha, look["hair"] * 0.85, shade * (1 + 0.10 * noise), covers=False)


def _glasses(
    window: Window, surface: Surface, look: Params, at: Values, lateral: Tensor, height: Tensor, front: Tensor
) -> None:
    size = at["glasses_size"]
    side = lateral.abs() - at["eye_x"] - 0.01
    ring = ((side / size) ** 4 + ((height - at["eye_y"] - 0.03) / (0.82 * size)) ** 4 + 1e-8) ** 0.25 - 1
    rim = coverage((ring * size).abs() - 0.018)
    bridge = coverage(torch.maximum((height - at["eye_y"] + 0.04).abs() - 0.014, side + size))
    arm = coverage(
        torch.maximum((height - at["eye_y"] + 0.05).abs() - 0.016, at["eye_x"] + size - lateral.abs())
    )
    window.paint(
        torch.maximum(torch.maximum(rim, bridge), arm) * front * at["glasses"],
        look["glasses_colour"],
        covers=False,
    )
    shine = coverage(ring) * torch.exp(-((((lateral + 0.7 * height) % 0.45 - 0.2) / 0.05) ** 2))
    window.paint(shine * 0.12 * front * at["glasses"], torch.ones_like(look["skin"]), covers=False)


def surface_noise(texture: Tensor, surface: Surface, *, scale: float) -> Tensor:
    """A clip's texture on its head: it moves with the surface (n h w).

    Args:
        texture: (b c t t), one a clip; the first channel is read; n is a multiple of b.
    """
    u, v = surface.angle * 0.16 * scale, surface.height * 0.2 * scale
    batch = len(texture)
    return sample_texture(texture[:, :1], u.unflatten(0, (batch, -1)), v.unflatten(0, (batch, -1))).flatten(
        0, 2
    )
