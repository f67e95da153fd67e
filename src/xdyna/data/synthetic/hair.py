"""Painting hair: what hangs behind the body, what lies on the head, and hats."""

from __future__ import annotations

import torch
from torch import Tensor

from xdyna.data.synthetic.draws import Params
from xdyna.data.synthetic.face import surface_noise, wears
from xdyna.data.synthetic.head import HeadShape, Surface
from xdyna.data.synthetic.shapes import Window, bump, coverage, per_pixel, ramp, smooth_ramp

BUN, PONYTAIL, TAILS, AFRO = 8, 9, 10, 11  # places in identity.HAIR_CUTS


def _values(look: Params) -> Params:
    return {name: per_pixel(value) for name, value in look.items() if value.dim() == 1}


def hair_reach(identity: Params, hung: Params) -> Tensor:
    """(n,) how far to the side, beyond the head's own width, hair may swing, in head radii."""
    hair = identity["hair_length"].clamp(min=0)
    hanging = torch.where(identity["cut"] == PONYTAIL, 2.2, torch.where(identity["cut"] == TAILS, 2.0, hair))
    hang = hanging + 0.2 * (hanging > 0.3)
    moved = hung["sway"].abs() * 0.4 + hung["sway_tip"].abs() * 0.28 * hang
    return 0.25 + hang * moved


def paint_back_hair(window: Window, shape: HeadShape, look: Params) -> None:
    """Hair behind neck and shoulders; its ends sway after the head.

    Args:
        window: holds the hair in every frame.
        shape: the heads, on the CPU.
        look: as for `face.FacePainter`; has `sway`, `sway_tip` and `lift` of `trailing.hang`.
    """
    at, cuts = _values(look), set(shape.identity["cut"].int().tolist())
    surface = shape.surface(window.x, window.y)
    u, v = surface.u, surface.v
    sway, cut = at["sway"], at["cut"]
    zero = torch.zeros_like(sway)
    if bool((shape.identity["hair_length"] > 0).any()):
        _curtain(window, at, look, u, v)
    if PONYTAIL in cuts:
        side = torch.where(at["part"] >= 0, 1.0, -1.0)
        middle = -0.45 * at["sin_yaw"] + 0.25 * side
        _tail(window, at, look, u - middle, v + 0.75, zero + 2.2, 0.55 * side, (cut == PONYTAIL).float())
    if TAILS in cuts:
        for sign in (-1.0, 1.0):
            middle = sign * 0.80 * at["cos_yaw"] - 0.1 * at["sin_yaw"]
            _tail(
                window, at, look, u - middle, v + 0.35, zero + 2.0, zero + 0.22 * sign, (cut == TAILS).float()
            )
    if BUN in cuts:
        ball = ((u + 0.35 * at["sin_yaw"]) ** 2 + (v + 1.12) ** 2 + 1e-6).sqrt() - 0.36
        strands = 0.9 + 0.2 * (u * 20 + v * 9).sin() * (v * 7).sin()
        window.paint(coverage(ball) * (cut == BUN).float(), look["hair"], strands)


def _curtain(window: Window, at: Params, look: Params, u: Tensor, v: Tensor) -> None:
    volume, length = at["hair_volume"], at["hair_length"]
    hang = (v + 0.2).clamp(min=0)
    middle = (
        at["sway"] * hang * (0.55 - 0.12 * hang) + at["sway_tip"] * hang * hang * 0.24 - 0.12 * at["sin_yaw"]
    )
    swayed = u - middle + at["hair_wave"] * 0.4 * (v * 5).sin() * ramp(v, 0, 1)
    half = (at["head_width"] + 0.05) * (0.75 + 0.25 * at["cos_yaw"]) + volume
    length = length * (1 - 0.6 * at["lift"])
    half = half + 0.10 * hang * (1 - 0.35 * hang) + at["hair_wave"] * 0.3 * (v * 7 + 1).sin()
    tooth = 0.06 * (swayed * 17).sin() + 0.04 * (swayed * 41).sin()
    down = torch.maximum(v - length - tooth, -0.3 - v)
    curtain = torch.maximum(swayed.abs() - half * (1 - 0.3 * smooth_ramp(v, length - 0.6, length)), down)
    dome = ((swayed / half) ** 2 + ((v + 0.1) / (0.9 + volume)) ** 2 + 1e-6).sqrt() - 1
    level = torch.minimum(curtain, torch.maximum(dome, v - 0.2))
    strands = 1 + 0.16 * (swayed * 23 + 3 * (v * 1.3).sin()).sin() * (swayed * 9 + 1).sin()
    window.paint(coverage(level) * at["hair_here"] * (length > 0).float(), look["hair"] * 0.66, strands)


def _tail(
    window: Window, at: Params, look: Params, u: Tensor, v: Tensor, reach: Tensor, push: Tensor, here: Tensor
) -> None:
    """A drop of hair that hangs from (0, 0) and is pushed sideways where it leaves the head."""
    reach = reach * (1 - at["lift"])
    t = (v / reach).clamp(0, 1)
    # It leaves the head as the head moves and ends where its tip swings to: an S when the two differ.
    u = u - push * (t * (1.6 - t)) - reach * (at["sway"] * t * (1 - t) * 1.1 + at["sway_tip"] * t * t * 0.75)
    width = (0.10 + 0.34 * t * (1 - t)) * 1.3 * ramp(t, 1.0, 0.85) + 0.02
    body = torch.maximum(u.abs() - width, torch.maximum(-0.08 - v, v - reach))
    window.paint(coverage(body) * here, look["hair"] * 0.8, 1 + 0.15 * (u * 34).sin())


def paint_front_hair(window: Window, shape: HeadShape, look: Params, light: Tensor, texture: Tensor) -> None:
    """Hair on the head and before it, then a hat if there is one.

    Args:
        window, shape, look: as for `paint_back_hair`.
        light: (n 5), see `limb_shade`.
        texture: (b c t t), one a clip.
    """
    at = _values(look)
    surface = shape.surface(window.x, window.y)
    height, v = surface.height, surface.v
    volume, fringe = at["hair_volume"], at["fringe"]
    # Places round the head on the hair's own outline, which reaches beyond the skull's.
    half = at["half_widest"] * (1 + volume - 0.6 * volume * ramp(v, 0.0, 0.5)) + 0.02
    up = ((v + 0.10) / (0.93 + volume)).clamp(-1, 0)
    across = ((surface.u - at["skull_u"]) / (half * (1 - up * up).clamp(min=0.01).sqrt())).clamp(-1, 1)
    turn = torch.atan2(0.93 * at["sin_yaw"], at["head_width"] * at["cos_yaw"])
    angle = torch.asin(across * 0.9999) - turn
    # The hair line: over the forehead, down the temples, before the ears, round the back.
    from_part = angle - at["part"]
    teeth = at["fringe_jag"] * (
        (angle * at["fringe_tooth"]).sin() + 0.6 * (angle * at["fringe_tooth"] * 2.3 + 1).sin()
    )
    side = angle.abs()
    line = fringe + teeth + 0.10 * from_part.abs() * ramp(side, 1.2, 0.4)
    temple = smooth_ramp(side, 0.95, 1.45)
    long_side = (at["hair_length"] > 0.3).float()
    line = line + (0.12 + 0.75 * long_side - line) * temple
    line = line + (0.55 - line) * smooth_ramp(side, 1.65, 1.85)
    bald_crown = 1.6 * (1 - at["hair_here"])
    # The outer edge: the skull's, pushed out by the hair's volume.
    rough = surface_noise(texture, surface, scale=3.0)
    edge = volume * 0.12 * rough + 0.02 * (angle * 13).sin()
    outer = (
        (((surface.u - at["skull_u"]) / half) ** 2 + ((v + 0.10) / (0.93 + volume)) ** 2 + 1e-6).sqrt()
        - 1
        - edge
    )
    alpha = coverage(torch.maximum(outer, (height - line + bald_crown) * 0.9), soft=1.3) * at["hair_here"]
    strand = surface_noise(texture, _Stretched(angle * at["strand"], height * 0.35 + angle * 0.3), scale=1.0)
    facing = across * per_pixel(light[:, 0]) - 0.8 * per_pixel(light[:, 1]).abs() * v
    gloss = at["hair_gloss"] * bump((v + 0.62 - 0.1 * angle * angle) / 0.17) * (0.6 + 0.4 * strand)
    shade = (0.90 + 0.22 * strand + 0.22 * facing).clamp(0.35, 1.6) * (1 - 0.25 * smooth_ramp(side, 1.1, 1.7))
    thin = 1 - at["stubble_only"] * 0.25
    colour = look["hair"][:, :, None, None] * shade[:, None] + 0.35 * gloss[:, None]
    # A soft shadow under the fringe.
    under = ramp(height - line, 0.10, 0.0) * (height > line).float() * coverage(surface.outside)
    window.darken(under * 0.22 * at["hair_here"])
    window.paint(alpha * thin, colour.clamp(0, 1))
    if wears(shape, "locks"):
        _locks(window, at, look, surface)
    if wears(shape, "hat"):
        _hat(window, surface, look, at)


def _locks(window: Window, at: Params, look: Params, surface: Surface) -> None:
    """Long hair that falls before the shoulders, in two locks."""
    v = surface.v
    t = ramp(v, -0.1, at["hair_length"])
    for sign in (-1.0, 1.0):
        wave = 0.04 * (v * 4 + sign).sin()
        middle = (
            sign * (at["head_width"] * (0.98 + 0.10 * t))
            - 0.05 * at["sin_yaw"]
            + at["sway"] * t * (1 - t) * 0.8
            + at["sway_tip"] * t * t * at["hair_length"] * 0.4
            + wave
        )
        width = 0.17 * (0.5 + ramp(v, -0.1, 0.5)) * (1 - t * t) + 0.01
        lock = torch.maximum(
            (surface.u - middle).abs() - width, torch.maximum(-0.1 - v, v - at["hair_length"])
        )
        strands = 0.85 + 0.2 * ((surface.u - middle) * 30).sin() - 0.15 * t
        window.paint(coverage(lock) * at["locks"], look["hair"], strands)


class _Stretched(Surface):
    """Two coordinates dressed as a surface, so that strands read the texture stretched along the hair."""

    def __init__(self, angle: Tensor, height: Tensor) -> None:
        self.angle, self.height = angle, height


def _hat(window: Window, surface: Surface, look: Params, at: Params) -> None:
    """A knitted cap: from the forehead up, with a turned-up brim."""
    height = surface.height
    dome = (
        ((surface.u - at["skull_u"]) / (at["half_widest"] + 0.10)) ** 2
        + ((surface.v + 0.10) / 1.06) ** 2
        + 1e-6
    ).sqrt() - 1
    ribs = 0.94 + 0.08 * (surface.angle * 22).sin()
    shade = ribs * (1.02 - 0.3 * (surface.across.clamp(-1, 1)) ** 2)
    window.paint(coverage(torch.maximum(dome, height + 0.42)) * at["hat"], look["hat_colour"], shade)
    brim = torch.maximum(dome - 0.03, (height + 0.48).abs() - 0.11)
    window.paint(coverage(brim) * at["hat"], look["hat_colour"] * 0.82, shade)
