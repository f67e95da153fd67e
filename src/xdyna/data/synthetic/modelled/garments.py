"""What modelled people wear: shells off the skin, where they end, and hair on the skull; at rest, one row a clip."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from xdyna.data.synthetic.draws import Params
from xdyna.data.synthetic.modelled.layers import CAP, HEAD, HEAD_UNIT, HIPS, NECK, WAIST, Layers, cap_rays
from xdyna.data.synthetic.modelled.shape import Rest
from xdyna.data.synthetic.modelled.skin import normals
from xdyna.data.synthetic.shapes import ramp, smooth_ramp

UNDER = 0.016
"""So far inside its edge a garment hides the skin below it."""

# The hair's edge round the head: degrees from the face's middle, canonical heights.
_EDGE_ANGLES = (0.0, 22.0, 36.0, 48.0, 58.0, 68.0, 77.0, 86.0, 112.0, 140.0, 180.0)
_EDGE_HEIGHTS = (-0.980, -0.979, -0.976, -0.968, -0.954, -0.938, -0.925, -0.947, -0.942, -0.905, -0.886)


def column(values: Tensor) -> Tensor:
    """(b,) to (b 1), so that a value a person meets vertices."""
    return values[:, None]


def long_hair(identity: Params) -> Tensor:
    """(b,) bool: hair that hangs, as the drawn people's bobs, long and wavy cuts."""
    return (identity["cut"] >= 5) & (identity["cut"] <= 7)


def trunk_place(canon: Tensor) -> tuple[Tensor, Tensor]:
    """Angle round the trunk (0 ahead, towards the picture's right) and height (0 the shoulders, 1 the hips)."""
    angle = torch.atan2(canon[..., 0], canon[..., 2] - 0.008)
    return angle, (canon[..., 1] - NECK) / (HIPS - NECK)


def dress_up(layers: Layers, identity: Params, rest: Rest) -> tuple[Tensor, Tensor]:
    """Shells and edges.

    Args:
        identity: b people, on the layers' device.
        rest: their bodies, there as well.

    Returns:
        shells (b k 3) at rest, and where every layer exists (b v), see `raster.rasterise`; in standing heights.
    """
    canon = layers.canon
    skin = rest.skin
    batch = len(skin)
    keep = torch.full((batch, len(canon)), 1.0, device=skin.device)
    low, count = layers.first["top"], skin.shape[1]
    base = rest.fit(layers.shells)
    outward = normals(base, layers.shell_triangles, layers.shell_around)
    offset = torch.zeros(base.shape[:2], device=skin.device)

    top, bottom, shoe, cap = (layers.of(name) for name in ("top", "bottom", "shoe", "cap"))
    for part, edge in ((top, top_edge), (bottom, bottom_edge), (shoe, shoe_edge)):
        keep[:, part] = edge(
            canon[part], layers.along_arm if part is top else layers.along_leg, identity, part
        )
    keep[:, cap], thick = hair_edge(canon[cap], identity)

    _, height = trunk_place(canon[top])
    hang = smooth_ramp(height, 0.35, 1.0) * 0.010 * (1 + 4 * column(identity["loose"] - 1))
    sleeve = (column(identity["sleeve_width"]) - 1.10) * 0.024 * smooth_ramp(layers.along_arm[top], -0.1, 0.8)
    offset[:, _shift(top, low)] = 0.0065 + 0.05 * (column(identity["loose"]) - 1) + hang + sleeve
    wide = (
        (column(identity["trouser_width"]) - 1.0) * 0.040 * smooth_ramp(layers.along_leg[bottom], -0.1, 1.2)
    )
    offset[:, _shift(bottom, low)] = 0.0055 + 0.006 * smooth_ramp(layers.along_leg[bottom], 0.2, 1.6) + wide
    offset[:, _shift(shoe, low)] = 0.0085
    offset[:, _shift(cap, low)] = thick
    shells = base + outward * offset[..., None]
    # The crown is one point.
    crown = slice(cap.start - low, cap.start - low + CAP[0])
    shells[:, crown] = shells[:, crown].mean(1, keepdim=True)
    # Soles are flat, and stand on the ground.
    sole = shells[:, _shift(shoe, low), 1]
    shells[:, _shift(shoe, low), 1] = sole.clamp(max=0.006)
    # Skin ends under what is worn.
    own = canon[:count]
    everywhere = slice(0, count)
    below = torch.maximum(
        bottom_edge(own, layers.along_leg, identity, everywhere),
        shoe_edge(own, layers.along_leg, identity, everywhere),
    )
    below = torch.where(layers.along_arm[:count] > -0.2, -1.0, below)
    hidden = torch.maximum(top_edge(own, layers.along_arm, identity, everywhere), below)
    # Under a skirt there is nothing that could come through it.
    legs = layers.along_leg[:count]
    start = torch.where(identity["dress"] > 0, -0.625, -0.600)
    skirted = torch.where(legs > 0, (_hem(identity) - legs) * 0.24 - 0.030, own[:, 1] - column(start))
    skirted = torch.where(layers.along_arm[:count] > -0.2, -1.0, skirted)
    skirted = torch.where(column(identity["skirt"]) > 0, skirted, -1.0)
    keep[:, :count] = UNDER - torch.where(own[:, 1] < -0.88, -1.0, torch.maximum(hidden, skirted))
    legs = layers.along_leg[bottom]
    shown = torch.where(column(identity["skirt"]) > 0, UNDER - (_hem(identity) - legs) * 0.24, 1.0)
    keep[:, bottom] = torch.minimum(keep[:, bottom], shown)
    for name, here in (("curtain", long_hair(identity)), ("skirt", identity["skirt"] > 0)):
        keep[:, layers.of(name)] = torch.where(column(here), 1.0, -1.0)
    tuft = layers.of("tuft")
    half = (tuft.stop - tuft.start) // 2
    cut = identity["cut"]
    keep[:, tuft.start : tuft.start + half] = torch.where(column((cut >= 8) & (cut <= 10)), 1.0, -1.0)
    keep[:, tuft.start + half : tuft.stop] = torch.where(column(cut == 10), 1.0, -1.0)
    return shells, keep


def _shift(part: slice, low: int) -> slice:
    return slice(part.start - low, part.stop - low)


def _hem(identity: Params) -> Tensor:
    """Where a skirt ends, in bones of the leg."""
    return column(2 * identity["hem"])


def top_edge(canon: Tensor, arm: Tensor, identity: Params, part: slice) -> Tensor:
    """How far inside a top's edges places are (b v), negative outside, in standing heights."""
    x, y, z = canon.unbind(-1)
    arm = arm[part]
    # Longer tops would show where the legs part.
    hem = torch.where(identity["dress"] > 0, 0.86, (identity["crop"] + 0.03).clamp(max=1.03))
    below = (column(hem) - (y - NECK) / (HIPS - NECK)) * (HIPS - NECK)
    below = torch.where(arm > 0, 1.0, below)
    # Nobody is left without a top: what would be bare has no sleeves.
    sleeve = (column(identity["sleeve"] * 0.98) - arm - 0.02) * 0.155
    sleeve = torch.where(column(identity["sleeve"]) < 0.1, (-0.02 - arm) * 0.155, sleeve)
    kind, size = column(identity["collar"]), column(identity["neckline"])
    ahead = smooth_ramp(z, -0.01, 0.03)
    wide = torch.where(kind == 2, 0.066, torch.where(kind == 4, 0.040, 0.046)) * (0.8 + 0.2 * size)
    deep = torch.where(kind == 2, 0.045, torch.where(kind == 1, 0.085, torch.where(kind == 4, 0.058, 0.050)))
    deep = 0.022 + (deep * size - 0.022) * ahead
    down = ((y + 0.851) / deep).clamp(min=-0.3)
    rounded = ((x / wide) ** 2 + down * down.abs() + 1e-6).clamp(min=1e-6).sqrt() - 1
    pointed = x.abs() / wide + 0.9 * down - 1
    tipped = ((kind == 1) | (kind == 4)).float() * ahead
    open_neck = (rounded + (pointed - rounded) * tipped) * 0.035
    polo = (y + 0.862).expand_as(open_neck)
    neck = torch.where(kind == 3, polo, open_neck)
    neck = torch.where(y > -0.74, 1.0, torch.where(y < -0.869, -0.05, neck))
    return torch.minimum(torch.minimum(below, sleeve), neck)


def bottom_edge(canon: Tensor, leg: Tensor, identity: Params, part: slice) -> Tensor:
    """The same for trousers and what is worn under skirts."""
    y = canon[..., 1]
    leg = leg[part]
    covered = identity["leg_cover"].clamp(min=0.12) * 0.985
    end = (column(covered) - leg) * 0.242
    waist = torch.where(column(identity["dress"]) > 0, y + 0.59, y - WAIST + 0.012)
    return torch.minimum(end, waist)


def shoe_edge(canon: Tensor, leg: Tensor, identity: Params, part: slice) -> Tensor:
    """The same for shoes."""
    return canon[..., 1].expand(len(identity["shoe"]), -1) + 0.052


def hair_edge(canon: Tensor, identity: Params) -> tuple[Tensor, Tensor]:
    """Where the cap's places (v 3) are hair (b v), and how thick it lies there, in standing heights."""
    angle, _ = cap_rays()
    angle = angle.flatten().to(canon.device)
    y = canon[:, 1]
    degrees = (angle.abs() * 180 / math.pi)[:, None]
    at = torch.tensor(_EDGE_ANGLES, device=canon.device)
    heights = torch.tensor(_EDGE_HEIGHTS, device=canon.device)
    step = at[1:] - at[:-1]
    share = ((degrees - at[:-1]) / step).clamp(0, 1)
    line = heights[0] + ((heights[1:] - heights[:-1]) * share).sum(1)
    # A fringe falls below the hair's own edge in front.
    tooth, jag = column(identity["fringe_tooth"]), column(identity["fringe_jag"])
    wave = (angle * tooth * 2.2).sin() * 0.6 + (angle * tooth * 5.1 + 1).sin() * 0.4
    fringe = HEAD[1] + HEAD_UNIT * (column(identity["fringe"]) + 0.8 * jag * wave)
    parted = column(identity["part"] * (identity["cut"] == 4))
    fringe = fringe + 0.010 * parted * (angle * 1.6).sin() - 0.006 * parted.abs()
    front = 1 - smooth_ramp(degrees[:, 0], 38.0, 66.0)
    line = torch.where(fringe > line, line + (fringe - line) * front, line.expand_as(fringe))
    shaggy = 0.0016 * (angle * 37).sin() * (1 - front) * (1 - column(identity["stubble_only"]))
    keep = line + shaggy - y
    full = HEAD_UNIT * (0.035 + 0.95 * column(identity["hair_volume"]))
    upwards = 0.75 + 0.25 * ramp(y, -0.93, -0.985)
    rooted = smooth_ramp(keep, -0.002, 0.016 + 0.01 * column(identity["hair_volume"]))
    thick = 0.0012 + full * upwards * rooted
    thick = torch.where(column(identity["stubble_only"]) > 0, torch.tensor(0.0018, device=y.device), thick)
    return torch.where(column(identity["hair_here"]) > 0, keep, -1.0), thick
