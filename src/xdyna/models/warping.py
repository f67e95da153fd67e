"""The reference moved as the person moves: a first guess of every driven frame, from keypoints alone.

A body is taken for ten rigid parts. Where a part is in a driven frame, and where it is in the reference, tells the
similarity (turn, zoom, shift) that brings the one to the other; between the parts, and towards the background, which
stays where it is, places follow the nearest. So a sleeve's latents lie where the sleeve is now, and a denoiser need not
find them by attention first. Only a guess: nothing turns in depth, and what was hidden stays so.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Part:
    """A part of the body that moves as one.

    Attributes:
        points: places in the body's 18 points, which tell how it moves.
        bones: pairs of points, whose distance tells what belongs to it.
        reach: how far it reaches from its bones, in shoulder widths.
    """

    points: tuple[int, ...]
    bones: tuple[tuple[int, int], ...]
    reach: float


PARTS = (
    Part((0, 14, 15, 16, 17), ((0, 0), (14, 15), (16, 17), (0, 16), (0, 17)), 0.45),
    Part((1, 2, 5, 8, 11), ((1, 8), (1, 11), (2, 8), (5, 11), (2, 5)), 0.3),
    *(Part(pair, (pair,), 0.22) for pair in ((2, 3), (5, 6))),
    *(Part(pair, (pair,), 0.22) for pair in ((3, 4), (6, 7))),
    *(Part(pair, (pair,), 0.25) for pair in ((8, 9), (11, 12), (9, 10), (12, 13))),
)
"""Head, torso, upper arms, forearms with hands, thighs, calves."""
LEAST_SCORE = 0.1
"""Points of a lower score are not there."""
SHOULDERS = (2, 5)
OUTSIDE = 1.5
"""Distance, in reaches, at which a place belongs as much to the background as to a part."""
SHARPNESS = 2.0
"""How quickly one part gives way to the next."""
FRAMES_AT_ONCE = 64
"""Frames whose places are reckoned at a time: it bounds the memory."""


def moved_reference(latents: Tensor, own: Tensor, body: Tensor, *, size: tuple[int, int]) -> Tensor:
    """The reference's latents where the driven person's parts are.

    Args:
        latents: (b c h w) of the reference.
        own: (b 18 3) the reference person's points: x, y in pixels and a score.
        body: (b f 18 3) the driven ones.
        size: (height, width) in pixels of the pictures that the points lie in.

    Returns:
        (b c f h w), float32: the reference itself where nobody is.
    """
    return torch.cat([_moved(latents, own, part, size) for part in body.split(FRAMES_AT_ONCE, dim=1)], 2)


def _moved(latents: Tensor, own: Tensor, body: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = latents.shape[-2:]
    found = torch.view_as_real(places(own, body, size=size, cells=(height, width)))
    grid = found / found.new_tensor([width / 2, height / 2]) - 1
    rows = latents.float().unsqueeze(1).expand(-1, body.shape[1], -1, -1, -1).flatten(0, 1)
    moved = F.grid_sample(rows, grid.flatten(0, 1), padding_mode="border", align_corners=False)
    return moved.unflatten(0, body.shape[:2]).transpose(1, 2)


def places(own: Tensor, body: Tensor, *, size: tuple[int, int], cells: tuple[int, int]) -> Tensor:
    """Where in the reference the middle of each cell of a driven frame comes from.

    Args:
        own, body, size: as of `moved_reference`.
        cells: (h, w) of the result.

    Returns:
        (b f h w) complex64: x + iy, in cells.
    """
    here, there = _placed(body, size, cells), _placed(own[:, None], size, cells)
    shown = body[..., 2] > LEAST_SCORE
    both = (shown & (own[:, None, :, 2] > LEAST_SCORE)).float()
    cell = _grid(cells, body.device)
    width = _shoulders(here, shown, cells)
    whole = (*here.shape[:2], *cells)
    logits = [both.new_full(whole, -(OUTSIDE**2))]
    targets = [cell.expand(whole)]
    for part in PARTS:
        points = list(part.points)
        known = both[..., points]
        targets.append(_carried(cell, here[..., points], there[..., points], known, spread=0.02 * width**2))
        near = _nearness(part, cell, here, shown, width)
        moves = (known.sum(-1) >= 2)[..., None, None]
        logits.append(torch.where(moves, -(near**2), -torch.inf))
    share = (SHARPNESS * torch.stack(logits)).softmax(0)
    return (share * torch.stack(targets)).sum(0)


def nearness(
    body: Tensor, *, size: tuple[int, int], cells: tuple[int, int], parts: tuple[Part, ...] = PARTS
) -> Tensor:
    """How far the middle of each cell is from the nearest part of the body.

    Args:
        body: (f 18 3) points: x, y in pixels and a score.
        size: (height, width) in pixels of the pictures that the points lie in.
        cells: (h, w) of the result.
        parts: those that count.

    Returns:
        (f h w) float32, in that part's reaches: below 1 on the body; infinite where nobody is.
    """
    return torch.cat([_nearest(some, size, cells, parts) for some in body.split(FRAMES_AT_ONCE)])


def _nearest(body: Tensor, size: tuple[int, int], cells: tuple[int, int], parts: tuple[Part, ...]) -> Tensor:
    here, shown, cell = _placed(body, size, cells), body[..., 2] > LEAST_SCORE, _grid(cells, body.device)
    width = _shoulders(here, shown, cells)
    return functools.reduce(torch.minimum, (_nearness(part, cell, here, shown, width) for part in parts))


def _nearness(part: Part, cell: Tensor, here: Tensor, shown: Tensor, width: Tensor) -> Tensor:
    """Of every cell (h w) from a part of bodies (... 18), in its reaches: (... h w), infinite where it is not seen."""
    near = here.real.new_full((*here.shape[:-1], *cell.shape), torch.inf)
    for first, second in part.bones:
        away = _distance(cell, here[..., first], here[..., second])
        seen = (shown[..., first] & shown[..., second])[..., None, None]
        near = torch.where(seen, torch.minimum(near, away), near)
    return near / (part.reach * width)[..., None, None]


def _shoulders(here: Tensor, shown: Tensor, cells: tuple[int, int]) -> Tensor:
    """Shoulder widths (...) in cells, a guess where the shoulders are not both shown."""
    right, left = SHOULDERS
    width = (here[..., right] - here[..., left]).abs()
    return torch.where(shown[..., right] & shown[..., left], width, cells[1] / 5).clamp(min=1.0)


def _placed(body: Tensor, size: tuple[int, int], cells: tuple[int, int]) -> Tensor:
    """Points (... 3) in pixels as x + iy in cells."""
    scale = body.new_tensor([cells[1] / size[1], cells[0] / size[0]], dtype=torch.float32)
    return _complex(body[..., :2].float() * scale)


def _grid(cells: tuple[int, int], device: torch.device) -> Tensor:
    """The cells' middles (h w)."""
    rows, columns = (torch.arange(side, device=device) + 0.5 for side in cells)
    return torch.complex(columns.expand(cells), rows[:, None].expand(cells))


def _carried(cell: Tensor, here: Tensor, there: Tensor, known: Tensor, *, spread: Tensor) -> Tensor:
    """Cells (h w) as the similarity carries them that brings points (b f n) from here to there, by least squares.

    Points closer together than `spread` (b f), a square, tell a shift and hardly a turn.
    """
    total = known.sum(-1, keepdim=True).clamp(min=1)
    middle, aim = ((known * points).sum(-1, keepdim=True) / total for points in (here, there))
    apart = known * (here - middle)
    turn = ((apart.conj() * (there - aim)).sum(-1) + spread) / (apart.abs().square().sum(-1) + spread)
    return turn[..., None, None] * (cell - middle[..., None]) + aim[..., None]


def _distance(cell: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Of every cell (h w) from the line between two points (b f): (b f h w)."""
    begin, along = first[..., None, None], (second - first)[..., None, None]
    share = ((cell - begin) * along.conj()).real / along.abs().clamp(min=1e-3).square()
    return (cell - begin - share.clamp(0, 1) * along).abs()


def _complex(points: Tensor) -> Tensor:
    """(... 2) -> (...) x + iy."""
    return torch.view_as_complex(points.contiguous())
