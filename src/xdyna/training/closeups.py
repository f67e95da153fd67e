"""Close-ups: clips whose window follows a small head, as the second pass over heads sees them (`xdyna.closeup`).

Heads that are large from the start are few, sharp and of people who stand near; a close-up's pixels are as soft as what
they were cut from, and its window moves with the head. A model that sees some of them learns both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from xdyna.data.synthetic.controls import draw_pose_maps

if TYPE_CHECKING:
    from xdyna.training.chunks import Chunk

REACH = (3.6, 6.0)
"""Sides of the window, in half heights of the head. What varies clips afterwards zooms in by a third at most."""
LEAST = 1.25
"""Windows that would enlarge by less are not cut: such a head is large already."""
SMALLEST = 8.0
"""Half height in pixels below which a head has no face to learn from."""
WANDER = 0.06
"""How far the head may be from the window's middle, in window sides."""
SMOOTHING = 5
"""Frames over which the window's way is averaged."""


def close_up(chunk: Chunk, seed: int, *, share: float, scatter: bool) -> Chunk:
    """A chunk in which some clips with a small head show that head's surroundings, enlarged to the whole picture.

    Args:
        chunk: a pool's chunk (see `Pool`), on any device; p clips.
        seed: of the choice; the same one gives the same chunk.
        share: of the clips with a person.
        scatter: the frames are of random moments, so each window lies round its own head.

    Returns:
        new tensors of the same shapes and dtypes. Pose maps are drawn anew, in the lines' own widths; the scene's
        energy is not known of such a clip (NaN).
    """
    dice = torch.Generator().manual_seed(seed)
    head = chunk["head"].cpu()
    wanted = torch.rand(len(head), generator=dice) < share
    reach = REACH[0] + (REACH[1] - REACH[0]) * torch.rand(len(head), generator=dice)
    away = WANDER * (2 * torch.rand(len(head), 2, generator=dice) - 1)
    height, width = chunk["frames"].shape[-2:]
    # the clip's head and the reference's may differ in size; each window suits its own
    half = torch.cat(
        [head[:, :1, 2], head[:, 1:, 2].median(1, keepdim=True).values.expand(-1, head.shape[1] - 1)], 1
    )
    sides = half * reach[:, None]
    inside = (head[..., 0] > 0) & (head[..., 0] < width) & (head[..., 1] > 0) & (head[..., 1] < height)
    small = (sides * LEAST < min(height, width)).all(1) & (half > SMALLEST).all(1)
    chosen = (wanted & small & inside.all(1) & chunk["human"].cpu()).nonzero().flatten().tolist()
    if not chosen:
        return chunk
    made = {name: value.clone() for name, value in chunk.items()}
    for clip in chosen:
        middle = head[clip, :, :2] + away[clip] * sides[clip, :, None]
        if not scatter:
            middle = torch.cat([middle[:1], _smoothed(middle[1:])])
        _enlarge(made, clip, middle, sides[clip])
    rows = torch.tensor(chosen, device=made["body"].device)
    hands = made["hands"][rows].flatten(0, 1).cpu()
    points = {
        "body": made["body"][rows].flatten(0, 1).cpu(),
        "left_hand": hands[:, :21],
        "right_hand": hands[:, 21:],
    }
    landmarks = "face" in made
    if landmarks:
        points["face"] = made["face"][rows].flatten(0, 1).cpu()
    device = made["frames"].device
    pose = draw_pose_maps(points, (height, width), device, landmarks=landmarks)
    made["conditions"][rows, :, :3] = _bytes(pose.unflatten(0, (len(chosen), -1)))
    made["energy"][rows] = torch.nan
    return made


def _smoothed(way: Tensor) -> Tensor:
    """A way (f 2) averaged over some frames."""
    size = min(SMOOTHING, len(way) - (len(way) + 1) % 2)
    padded = functional.pad(way.T[None], (size // 2, size // 2), mode="replicate")
    return functional.avg_pool1d(padded, size, 1)[0].T


def _enlarge(chunk: Chunk, clip: int, middle: Tensor, sides: Tensor) -> None:
    """Show windows of a clip, in place.

    Args:
        middle: (1+f 2) in pixels, moved so that the windows lie in the picture.
        sides: (1+f) in pixels of the picture's shorter side.
    """
    height, width = chunk["frames"].shape[-2:]
    part = sides / min(height, width)
    spans = torch.stack([part * width, part * height], -1)
    middle = torch.minimum(torch.maximum(middle, spans / 2), torch.tensor([width, height]) - spans / 2)
    theta = torch.zeros(len(part), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = part
    theta[:, :, 2] = 2 * middle / torch.tensor([width, height]) - 1
    names = ("frames", "conditions", "mask")
    together = torch.cat([chunk[name][clip] for name in names], 1).float()
    grid = functional.affine_grid(theta.to(together.device), [*together.shape], align_corners=False)
    shown = functional.grid_sample(together, grid, mode="bicubic", padding_mode="border", align_corners=False)
    widths = [chunk[name].shape[2] for name in names]
    for name, pixels in zip(names, shown.split(widths, 1), strict=True):
        chunk[name][clip] = pixels.clamp(0, 255).round().to(torch.uint8)
    low, part = ((middle - spans / 2).to(together.device), part.to(together.device))
    for name in ("body", "hands", "head", "face"):
        if name not in chunk:
            continue
        points = chunk[name][clip]
        rows = (-1,) + (1,) * (points.dim() - 2)
        moved = (points[..., :2] - low.view(*rows, 2)) / part.view(*rows, 1)
        chunk[name][clip, ..., :2] = torch.where(points[..., 2:] == 0, points[..., :2], moved)
    chunk["head"][clip, :, 2] /= part


def _bytes(pictures: Tensor) -> Tensor:
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8)
