"""Clips varied: the same clip turned, zoomed, shifted and in other colours, so that few clips teach as more would.

A model sees a pool's clips many times before fresh ones take their places, and learns them by heart. Variation costs a
thousandth of what making a clip does.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from xdyna.training.chunks import Chunk

TURN = 0.12
"""Largest angle, in radians, to either side."""
ZOOM = 1.35
"""Largest zoom, evenly drawn in its logarithm; below 1 the picture's edges would show."""
HUE = 0.35
"""Spread of the angle by which hues turn, in radians."""
SWAPPED = 0.15
"""Share of clips whose red, green and blue change places."""


def vary(chunk: Chunk, seed: int) -> Chunk:
    """A chunk with every clip varied on its own; the same for the same `seed`.

    A quarter of the clips keeps its place, a quarter its colours. A clip's reference, frames, masks, conditions and
    points move together, and what stands still still does. A pose map keeps its colours, and a blank condition stays
    blank. Faces of the S-Face patches take colours of their own: they are other people's.

    Args:
        chunk: a pool's chunk (see `Pool`), on any device; p clips.
        seed: of this variation.

    Returns:
        new tensors of the same shapes and dtypes. `energy` follows the contrast, not the zoom; expressions stay.
    """
    dice = torch.Generator().manual_seed(seed)
    frames = chunk["frames"]
    clips, _, _, height, width = frames.shape
    maps, points = _places(clips, (height, width), dice)
    colours, faces = _colours(clips, dice), _colours(clips, dice)
    device = frames.device
    varied = dict(chunk)
    pixels: dict[str, list[Tensor]] = {"frames": [], "conditions": [], "mask": []}
    moved, recoloured = maps.to(device), [part.to(device) for part in (*colours, *faces)]
    for clip in range(clips):
        parts = [chunk[name][clip].float() / 255 for name in pixels]
        together = torch.cat(parts, 1)
        grid = functional.affine_grid(
            moved[clip].expand(len(together), 2, 3), [*together.shape], align_corners=False
        )
        placed = functional.grid_sample(together, grid, padding_mode="border", align_corners=False)
        picture, pose, face, mask = placed.split([3, 3, placed.shape[1] - 7, 1], 1)
        own, own_power, other, other_power = (part[clip] for part in recoloured)
        picture = _recolour(picture, own, own_power)
        # local and global patches, three channels each; models without them have none
        face = _recolour(face.unflatten(1, (-1, 3)).flatten(0, 1), other, other_power).unflatten(
            0, (len(face), -1)
        )
        for name, part in (
            ("frames", picture),
            ("conditions", torch.cat([pose, face.flatten(1, 2)], 1)),
            ("mask", mask),
        ):
            pixels[name].append((part * 255).round().to(torch.uint8))
    varied |= {name: torch.stack(parts) for name, parts in pixels.items()}
    turned = points.to(device)
    for name in ("body", "hands", "face"):
        if name in chunk:
            varied[name] = _move(chunk[name], turned, (height, width), third=1.0)
    varied["head"] = _move(chunk["head"], turned, (height, width), third=turned[:, 2, 2])
    if "energy" in chunk:
        varied["energy"] = chunk["energy"] * recoloured[0].sum(-1).mean(-1)
    return varied


def _places(clips: int, size: tuple[int, int], dice: torch.Generator) -> tuple[Tensor, Tensor]:
    """Where pixels come from, (p 2 3) for `affine_grid`, and where points go, (p 3 3).

    The second holds [rotation times zoom | shift] in pixels from the picture's centre, and the zoom in its corner.
    """
    height, width = size
    angle = TURN * (2 * torch.rand(clips, generator=dice) - 1)
    zoom = (math.log(ZOOM) * torch.rand(clips, generator=dice)).exp()
    kept = torch.rand(clips, generator=dice) < 0.25
    angle = angle.masked_fill(kept, 0)
    cos, sin = angle.cos(), angle.sin()
    # the window that is shown must lie inside the picture
    across, down = cos + sin.abs() * height / width, cos + sin.abs() * width / height
    zoom = torch.maximum(zoom, torch.maximum(across, down)).masked_fill(kept, 1)
    shift_x = (2 * torch.rand(clips, generator=dice) - 1) * (1 - across / zoom).clamp(min=0) * width / 2
    shift_y = (2 * torch.rand(clips, generator=dice) - 1) * (1 - down / zoom).clamp(min=0) * height / 2
    maps = torch.stack(
        [
            torch.stack([cos / zoom, sin / zoom * height / width, 2 * shift_x / width], -1),
            torch.stack([-sin / zoom * width / height, cos / zoom, 2 * shift_y / height], -1),
        ],
        1,
    )
    # the inverse: a point at q from the centre goes to zoom * R^T (q - shift)
    back_x = zoom * (cos * -shift_x - sin * -shift_y)
    back_y = zoom * (sin * -shift_x + cos * -shift_y)
    points = torch.stack(
        [
            torch.stack([zoom * cos, -zoom * sin, back_x], -1),
            torch.stack([zoom * sin, zoom * cos, back_y], -1),
            torch.stack([torch.zeros(clips), torch.zeros(clips), zoom], -1),
        ],
        1,
    )
    return maps, points


def _move(points: Tensor, maps: Tensor, size: tuple[int, int], *, third: float | Tensor) -> Tensor:
    """Points (p ... 3), x and y in pixels, moved; their third number times `third` (a number or (p,)).

    Points at the corner (0, 0) with a third number of 0 stand for "none" and stay.
    """
    shape = (len(points), *(1,) * (points.dim() - 2))
    centre = points.new_tensor([size[1] / 2, size[0] / 2])
    x, y = (points[..., :2] - centre).unbind(-1)
    rows = [[maps[:, row, column].view(shape) for column in range(3)] for row in range(2)]
    new = torch.stack([a * x + b * y + shift for a, b, shift in rows], -1) + centre
    factor = third.view(shape) if isinstance(third, Tensor) else third
    moved = torch.cat([new, (points[..., 2] * factor)[..., None]], -1)
    return torch.where(points[..., 2:] == 0, points, moved)


def _colours(clips: int, dice: torch.Generator) -> tuple[Tensor, Tensor]:
    """Matrices (p 3 3) and exponents (p,): hue, saturation, contrast and exposure. Black stays black."""

    def spread(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(clips, generator=dice)

    angle = HUE * torch.randn(clips, generator=dice)
    kept, swapped = (torch.rand(clips, generator=dice) < share for share in (0.25, SWAPPED))
    orders = torch.stack([torch.randperm(3, generator=dice) for _ in range(clips)])
    grey = torch.full((3, 3), 1 / 3)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    # Rodrigues' rotation about the grey axis, then towards or away from grey, then brighter or darker
    cos, sin = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    turn = cos * torch.eye(3) + sin * cross + (1 - cos) * grey
    saturation, gain = spread(0.6, 1.4).view(-1, 1, 1), spread(0.8, 1.2).view(-1, 1, 1)
    matrix = gain * ((saturation * torch.eye(3) + (1 - saturation) * grey) @ turn)
    matrix = torch.where(swapped.view(-1, 1, 1), matrix[torch.arange(clips)[:, None], orders], matrix)
    power = spread(math.log(0.8), math.log(1.25)).exp()
    return torch.where(kept.view(-1, 1, 1), torch.eye(3), matrix), power.masked_fill(kept, 1)


def _recolour(pixels: Tensor, matrix: Tensor, power: Tensor) -> Tensor:
    """Pixels (n 3 h w) in [0, 1]."""
    if not len(pixels):
        return pixels
    return torch.einsum("ij,njhw->nihw", matrix, pixels).clamp(0, 1) ** power
