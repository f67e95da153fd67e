"""Painting hair: what hangs behind the body, what lies on the head, and hats."""

from __future__ import annotations

import torch
from torch import Tensor

from xdyna.data.synthetic.draws import Params
from xdyna.data.synthetic.face import Values, surface_noise
from xdyna.data.synthetic.head import Surface
from xdyna.data.synthetic.shapes import Window, coverage, per_pixel, ramp, smooth_ramp

BUN, PONYTAIL, TAILS, AFRO = 8, 9, 10, 11  # places in identity.HAIR_CUTS


def _values(look: Params) -> Values:
    return {name: per_pixel(value) for name, value in look.items() if value.dim() == 1}


def paint_back_hair(window: Window, surface: Surface, look: Params, light: Tensor) -> None:
    """Hair behind neck and shoulders; its ends sway after the head.

    Args:
        window, surface, look, light: as in `face.paint_face`; look has `sway`: how far the ends lag, head units.
    """
    at = _values(look)
    u, v = surface.u, surface.v
    volume, length = at["hair_volume"], at["hair_length"]
    cut = at["cut"]
    hang = (v + 0.2).clamp(min=0)
    swayed = (
        u
        - at["sway"] * hang**1.3 * 0.5
        + 0.12 * at["sin_yaw"]
        + at["hair_wave"] * 0.4 * (v * 5).sin() * ramp(v, 0, 1)
    )
    half = (at["head_width"] + 0.05) * (0.75 + 0.25 * at["cos_yaw"]) + volume
    half = half + 0.10 * hang * (1 - 0.35 * hang) + at["hair_wave"] * 0.3 * (v * 7 + 1).sin()
    tooth = 0.06 * (swayed * 17).sin() + 0.04 * (swayed * 41).sin()
    curtain = torch.maximum(
        swayed.abs() - half * (1 - 0.25 * ramp(v, length - 0.5, length)),
        torch.maximum(v - length - tooth, -0.3 - v),
    )
    dome = ((swayed / half) ** 2 + ((v + 0.1) / (0.9 + volume)) ** 2 + 1e-6).sqrt() - 1
    level = torch.minimum(curtain, torch.maximum(dome, v - 0.2))
    level = torch.where(length > 0, level, torch.ones_like(level))
    strands = 1 + 0.16 * (swayed * 23 + 3 * (v * 1.3).sin()).sin() * (swayed * 9 + 1).sin()
    dark = look["hair"] * 0.62
    window.paint(coverage(level) * at["hair_here"], dark, strands)

    # Ponytail and tails: a drop that hangs from the crown or from the sides.
    def tail(anchor_u: Tensor, anchor_v: Tensor, reach: Tensor, here: Tensor, push: Tensor) -> None:
        t = ((v - anchor_v) / reach).clamp(0, 1)
        middle = anchor_u + push * (t * (1.6 - t)) + at["sway"] * t * t * reach * 0.8
        width = (0.10 + 0.30 * (t * (1 - t)) + 0.06 * (1 - t)) * 1.2
        body = torch.maximum(
            (u - middle).abs() - width, torch.maximum(anchor_v - 0.08 - v, v - anchor_v - reach)
        )
        window.paint(coverage(body) * here, look["hair"] * 0.8, 1 + 0.15 * ((u - middle) * 34).sin())

    zero = torch.zeros_like(at["sway"])
    pony = (cut == PONYTAIL).float()
    side = torch.where(at["part"] >= 0, 1.0, -1.0)
    tail(-0.45 * at["sin_yaw"] + 0.25 * side, zero - 0.75, zero + 2.2, pony, 0.55 * side)
    for sign in (-1.0, 1.0):
        tail(
            sign * 0.80 * at["cos_yaw"] - 0.1 * at["sin_yaw"],
            zero - 0.35,
            zero + 2.0,
            (cut == TAILS).float(),
            zero + 0.22 * sign,
        )
    bun = ((u + 0.35 * at["sin_yaw"]) ** 2 + (v + 1.12) ** 2 + 1e-6).sqrt() - 0.36
    window.paint(
        coverage(bun) * (cut == BUN).float(),
        look["hair"],
        0.9 + 0.2 * ((u * 20 + v * 9).sin()) * (v * 7).sin(),
    )


def paint_front_hair(window: Window, surface: Surface, look: Params, light: Tensor, texture: Tensor) -> None:
    """Hair on the head and before it, then a hat if there is one.

    Args:
        texture: (b c t t), one a clip.
    """
    at = _values(look)
    angle, height, v = surface.angle, surface.height, surface.v
    volume, fringe = at["hair_volume"], at["fringe"]
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
    puff = 1 + volume
    rough = surface_noise(texture, surface, scale=3.0)
    edge = volume * 0.12 * rough + 0.02 * (angle * 13).sin()
    lower = ramp(v, 0.0, 0.5)
    half = at["half_widest"] * (puff - 0.6 * volume * lower) + 0.02
    outer = (
        (((surface.u - at["skull_u"]) / half) ** 2 + ((v + 0.10) / (0.93 + volume)) ** 2 + 1e-6).sqrt()
        - 1
        - edge
    )
    alpha = coverage(torch.maximum(outer, (height - line + bald_crown) * 0.9), soft=1.3) * at["hair_here"]
    strand = surface_noise(texture, _Stretched(angle * at["strand"], height * 0.35 + angle * 0.3), scale=1.0)
    facing = surface.across * per_pixel(light[:, 0]) - 0.8 * per_pixel(light[:, 1]).abs() * v
    gloss = (
        at["hair_gloss"] * torch.exp(-(((v + 0.62 - 0.1 * angle * angle) / 0.14) ** 2)) * (0.6 + 0.4 * strand)
    )
    shade = (0.90 + 0.22 * strand + 0.22 * facing).clamp(0.35, 1.6) * (1 - 0.25 * smooth_ramp(side, 1.1, 1.7))
    thin = 1 - at["stubble_only"] * 0.25
    colour = look["hair"][:, :, None, None] * shade[:, None] + 0.35 * gloss[:, None]
    # A soft shadow under the fringe.
    under = ramp(height - line, 0.10, 0.0) * (height > line).float() * coverage(surface.outside)
    window.darken(under * 0.22 * at["hair_here"])
    window.paint(alpha * thin, colour.clamp(0, 1))
    # Long hair falls before the shoulders in two locks.
    for sign in (-1.0, 1.0):
        t = ramp(v, 0.1, 2.0)
        middle = (
            sign * (at["head_width"] * (0.95 + 0.08 * t)) - 0.05 * at["sin_yaw"] + at["sway"] * t * t * 0.9
        )
        lock = torch.maximum(
            (surface.u - middle).abs() - 0.20 * (1 - 0.6 * t), torch.maximum(0.05 - v, v - at["hair_length"])
        )
        window.paint(
            coverage(lock) * at["locks"], look["hair"], 0.85 + 0.2 * ((surface.u - middle) * 30).sin()
        )
    _hat(window, surface, look, at, outer)


class _Stretched(Surface):
    """Two coordinates dressed as a surface, so that strands read the texture stretched along the hair."""

    def __init__(self, angle: Tensor, height: Tensor) -> None:
        self.angle, self.height = angle, height


def _hat(window: Window, surface: Surface, look: Params, at: Values, outer: Tensor) -> None:
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
