"""Taking a picture of posed meshes: which surface a pixel shows, its colour, light and shadow, and smooth edges."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from xdyna.data.synthetic.modelled.layers import Layers
from xdyna.data.synthetic.modelled.paint import Painter
from xdyna.data.synthetic.modelled.raster import Visible, rasterise
from xdyna.data.synthetic.modelled.skin import normals
from xdyna.data.synthetic.shapes import Canvas, ramp

SUPERSAMPLING = 2
_LARGEST_PICTURE, _LARGEST_CPU_PICTURE = 48_000_000, 1_600_000  # supersampled pixels of frames drawn together
SHADOW_SIZE = 160
"""Pixels of the picture that is taken from the light to find what lies in shadow."""


@dataclass(frozen=True)
class Posed:
    """Meshes as the camera sees them, n frames of clips of `count` each.

    Attributes:
        points: (n v 3) in frame heights.
        keep: (n v) see `raster.rasterise`.
        light: (n 5) of `sample_appearance`.
        count: frames of a clip.
    """

    points: Tensor
    keep: Tensor
    light: Tensor
    count: int


def take_picture(canvas: Canvas, layers: Layers, painter: Painter, posed: Posed) -> None:
    """Paint the meshes over the canvas, some frames at a time, so that memory does not grow with their number."""
    area = canvas.height * canvas.width * SUPERSAMPLING**2
    together = max(
        1, (_LARGEST_CPU_PICTURE if canvas.image.device.type == "cpu" else _LARGEST_PICTURE) // area
    )
    for first in range(0, len(posed.points), together):
        _take_some(canvas, layers, painter, posed, slice(first, first + together))


def _take_some(canvas: Canvas, layers: Layers, painter: Painter, whole: Posed, frames: slice) -> None:
    posed = Posed(whole.points[frames], whole.keep[frames], whole.light[frames], whole.count)
    points = posed.points
    height, width = canvas.height * SUPERSAMPLING, canvas.width * SUPERSAMPLING
    screen = torch.cat([points[..., :2] * height, points[..., 2:]], -1)
    seen = rasterise(screen, layers.triangles, posed.keep, (height, width), behind=layers.behind)
    outward = normals(points, layers.triangles, layers.around)
    found = seen.at(torch.cat([outward, points], -1))
    fixed = (torch.cat([layers.canon, layers.openness[:, None]], 1)[layers.triangles[seen.triangle]]
             * seen.shares[..., None]).sum(1)  # fmt: skip
    normal = found[:, :3] / found[:, :3].norm(dim=1, keepdim=True).clamp(min=1e-6)
    # What is seen from behind faces the other way.
    back = (layers.layer[seen.triangle] > 0) & (normal[:, 2] < 0)
    normal = torch.where(back[:, None], -normal, normal)
    shadow = _lit_share(layers, posed, seen, found[:, 3:] + 0.004 * normal)
    frame = seen.frame + frames.start
    person = torch.div(frame, posed.count, rounding_mode="floor")
    looks = painter.paint(seen.triangle, fixed[:, :3], person, frame)
    # Insides of cloth and hair lie deep.
    openness = fixed[:, 3] * torch.where(back, 0.25, 1.0)
    shadow = torch.where(back, 0.3 * shadow, shadow)
    lit = light_up(looks, normal, openness, shadow, posed.light[seen.frame])
    picture = torch.zeros(len(points) * height * width, 4, device=lit.device)
    picture[seen.pixel] = torch.cat([lit, torch.ones_like(lit[:, :1])], 1)
    picture = picture.view(len(points), height, width, 4).permute(0, 3, 1, 2)
    picture = F.avg_pool2d(picture, SUPERSAMPLING)
    cover = picture[:, 3:]
    canvas.image[frames] = canvas.image[frames] * (1 - cover) + picture[:, :3]
    canvas.mask[frames] = torch.maximum(canvas.mask[frames], cover)


def light_up(
    looks: tuple[Tensor, Tensor, Tensor, Tensor],
    normal: Tensor,
    openness: Tensor,
    shadow: Tensor,
    lamp: Tensor,
) -> Tensor:
    """Colours (p 3) of lit pixels: a lamp with its shadow, light from all sides, gloss."""
    colour, gloss, relief, fleshy = looks
    facing, flat = (normal * lamp[:, :3]).sum(1), lamp[:, 4]
    wrap = 0.22 * fleshy
    diffuse = ((facing + wrap) / (1 + wrap)).clamp(min=0)
    tone = ramp(facing, 0.30, 0.36) * 0.55 + 0.42
    diffuse = (diffuse + (tone - diffuse) * flat) * shadow
    ambient = lamp[:, 3] * (0.90 - 0.14 * normal[:, 1]) * (0.30 + 0.70 * openness)
    lit = colour * ((ambient + (1.20 - lamp[:, 3]) * diffuse) * relief)[:, None]
    # Light that went under the skin comes out red where the shadow begins.
    red = fleshy * 0.10 * torch.exp(-(((facing * shadow - 0.05) / 0.25) ** 2)) * (1 - flat)
    lit = lit * (1 + red[:, None] * torch.tensor([1.0, -0.1, -0.25], device=lit.device))
    half = lamp[:, :3] + torch.tensor([0.0, 0.0, 1.0], device=lit.device)
    half = half / half.norm(dim=1, keepdim=True)
    shine = gloss * (normal * half).sum(1).clamp(min=0) ** 22 * (1 - flat) * (0.4 + 0.6 * shadow)
    return lit + shine[:, None]


def _lit_share(layers: Layers, posed: Posed, seen: Visible, places: Tensor) -> Tensor:
    """How much of the lamp reaches each place (p 3), in [0, 1], by a picture taken from the lamp."""
    way = posed.light[:, :3]
    up = torch.tensor([0.0, 1.0, 0.0], device=way.device)
    side = torch.linalg.cross(up.expand_as(way) + 1e-4 * way, way)
    side = side / side.norm(dim=1, keepdim=True).clamp(min=1e-5)
    axes = torch.stack([side, torch.linalg.cross(way, side), way], -1)  # columns
    turned = posed.points @ axes
    # Only what is in the picture, or just outside of it, is looked at.
    inside = ((posed.points[..., :2] > -0.3).all(-1) & (posed.points[..., 1] < 1.3) & (posed.keep > 0))[
        ..., None
    ]
    low = torch.where(inside, turned, torch.full_like(turned, 9.0))[..., :2].amin(1)
    high = torch.where(inside, turned, torch.full_like(turned, -9.0))[..., :2].amax(1)
    span = (high - low).amax(1).clamp(1e-3, 4.0)[:, None]
    scale = (SHADOW_SIZE - 2) / span
    screen = torch.cat([(turned[..., :2] - low[:, None]) * scale[:, None] + 1, turned[..., 2:]], -1)
    size = (SHADOW_SIZE, SHADOW_SIZE)
    shown = rasterise(screen, layers.triangles, posed.keep, size, behind=layers.behind)
    depth = torch.full((len(screen) * SHADOW_SIZE * SHADOW_SIZE,), -9.0, device=screen.device)
    depth[shown.pixel] = shown.at(screen[..., 2:])[:, 0]
    own = (places[:, None] @ axes[seen.frame])[:, 0]
    spot = (own[:, :2] - low[seen.frame]) * scale[seen.frame] + 0.5
    slack = 0.006 + 1.2 * span[seen.frame, 0] / SHADOW_SIZE
    base = spot.floor()
    share = spot - base
    free = torch.zeros_like(slack)
    for dx in (0, 1):
        for dy in (0, 1):
            x = (base[:, 0] + dx).clamp(0, SHADOW_SIZE - 1).long()
            y = (base[:, 1] + dy).clamp(0, SHADOW_SIZE - 1).long()
            over = depth[(seen.frame * SHADOW_SIZE + y) * SHADOW_SIZE + x] - own[:, 2]
            weight = (share[:, 0] if dx else 1 - share[:, 0]) * (share[:, 1] if dy else 1 - share[:, 1])
            free = free + weight * ramp(over, 2.0 * slack, slack)
    return free
