"""Control pictures in torch: poses as `conditions.draw` draws them, faces as `conditions.face` cuts them."""

from __future__ import annotations

import torch
from torch import Tensor

from xdyna.conditions.draw import (
    HAND_EDGE_COLOURS,
    HAND_EDGES,
    HAND_POINT_COLOUR,
    JOINT_COLOURS,
    JOINTS,
    LANDMARK_COLOUR,
    LIMB_COLOURS,
    LIMBS,
    stroke_widths,
)
from xdyna.conditions.face import CENTRE_POINTS
from xdyna.data.synthetic.draws import Params, onto
from xdyna.data.synthetic.shapes import Canvas, Window, bounds, per_pixel


def draw_pose_maps(
    points: Params, size: tuple[int, int], device: torch.device, *, landmarks: bool = False
) -> Tensor:
    """Pose maps (n 3 h w) in [0, 1], the same picture as `conditions.draw.draw_pose` makes of the same keypoints.

    Args:
        points: `body` (n 18 3), `left_hand` and `right_hand` (n 21 3) on the CPU: x, y in pixels, score; with
            `landmarks` also `face` (n 68 3).
        size: (height, width).
        device: where to draw.
        landmarks: also draw the face's landmarks.
    """
    height, width = size
    widths = stroke_widths(size)
    canvas = Canvas(torch.zeros(len(points["body"]), 3, height, width, device=device))

    def ends(part: Tensor, pair: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        start, end = part[:, pair[0]], part[:, pair[1]]
        return start[:, :2], end[:, :2], ((start[:, 2] > 0) & (end[:, 2] > 0)).float()

    def window(used: list[Tensor], seen: Tensor, margin: float) -> Window:
        # What is not drawn needs no room: its box shrinks to the frame's corner.
        box = bounds([point / height for point in used], torch.full((len(seen),), (margin + 1.5) / height))
        return canvas.window(box * (seen > 0)[:, None])

    def mix(place: Window, distance: Tensor, colour: tuple[int, int, int], seen: Tensor) -> None:
        alpha = (0.5 - distance).clamp(0, 1) * per_pixel(onto(seen, device))
        tone = onto(torch.tensor(colour, dtype=torch.float32), device).expand(len(distance), 3) / 255
        place.paint(alpha, tone, covers=False)

    body = points["body"]
    for pair, colour in zip(LIMBS, LIMB_COLOURS, strict=True):
        start, end, seen = ends(body, pair)
        if not bool(seen.any()):
            continue
        place = window([start, end], seen, widths.limb)
        mix(place, _ellipse(place, height, onto(start, device), onto(end, device), widths.limb), colour, seen)
        place.close()
    for joint, colour in zip(JOINTS, JOINT_COLOURS, strict=True):
        point, seen = body[:, joint, :2], (body[:, joint, 2] > 0).float()
        place = window([point], seen, widths.joint)
        mix(place, _disc(place, height, onto(point, device), widths.joint), colour, seen)
        place.close()
    for name in ("left_hand", "right_hand"):
        hand = points[name]
        seen = (hand[..., 2] > 0).all(1).float()
        if not bool(seen.any()):
            continue
        place = window([hand[..., :2]], seen, widths.hand_point)
        moved = onto(hand, device)
        for pair, colour in zip(HAND_EDGES, HAND_EDGE_COLOURS, strict=True):
            start, end, both = ends(moved, pair)
            mix(place, _capsule(place, height, start, end, widths.hand_edge), colour, both)
        # The points share one colour and lie over all lines, so their order does not matter.
        nearest = torch.stack(
            [_disc(place, height, moved[:, i, :2], widths.hand_point) for i in range(hand.shape[1])]
        ).amin(0)
        mix(place, nearest, HAND_POINT_COLOUR, seen)
        place.close()
    if landmarks:
        face = points["face"]
        seen = (face[..., 2] > 0).float()
        if bool(seen.any()):
            place = window([face[..., :2]], seen.amax(1), widths.landmark)
            moved, shown = face.to(device), seen.to(device)
            # One colour, mixed in again and again where discs overlap: what shines through is a product.
            through = torch.ones((), device=device)
            for i in range(face.shape[1]):
                cover = (0.5 - _disc(place, height, moved[:, i, :2], widths.landmark)).clamp(0, 1)
                through = through * (1 - cover * per_pixel(shown[:, i]))
            tone = (
                torch.tensor(LANDMARK_COLOUR, device=device, dtype=torch.float32).expand(len(face), 3) / 255
            )
            place.paint(1 - through, tone, covers=False)
            place.close()
    return canvas.image


def _offsets(place: Window, height: int, centre: Tensor) -> tuple[Tensor, Tensor]:
    return place.x * height - per_pixel(centre[:, 0]), place.y * height - per_pixel(centre[:, 1])


def _disc(place: Window, height: int, centre: Tensor, radius: float) -> Tensor:
    x, y = _offsets(place, height, centre)
    return (x * x + y * y).sqrt() - radius


def _capsule(place: Window, height: int, start: Tensor, end: Tensor, radius: float) -> Tensor:
    x, y = _offsets(place, height, start)
    ax, ay = per_pixel(end[:, 0] - start[:, 0]), per_pixel(end[:, 1] - start[:, 1])
    along = ((x * ax + y * ay) / (ax * ax + ay * ay).clamp(min=1e-9)).clamp(0, 1)
    return ((x - along * ax) ** 2 + (y - along * ay) ** 2).sqrt() - radius


def _ellipse(place: Window, height: int, start: Tensor, end: Tensor, half_width: float) -> Tensor:
    x, y = _offsets(place, height, (start + end) / 2)
    axis = end - start
    length = axis.norm(dim=1).clamp(min=1e-6)
    ax, ay = per_pixel(axis[:, 0] / length), per_pixel(axis[:, 1] / length)
    long = per_pixel((length / 2).clamp(min=0.5))
    u, v = (x * ax + y * ay) / long, (y * ax - x * ay) / half_width
    k = (u * u + v * v).sqrt()
    slope = ((u / long) ** 2 + (v / half_width) ** 2).sqrt()
    return torch.where(slope > 0, k * (k - 1) / slope.clamp(min=1e-9), torch.full_like(k, -half_width))


def face_boxes(face: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Where faces are cut, by `conditions.face`'s formulas (spec.md 4.1) with its default way of clipping patches.

    Args:
        face: (n 68 3) landmarks in pixels.
        size: (height, width).

    Returns:
        box (n 4) and patches (n 3 4): left, top, right, bottom in whole pixels, clipped to the frame; all 0
        where the score is 0.
    """
    height, width = size
    low, high = face[..., :2].amin(1), face[..., :2].amax(1)
    centre, side = (low + high) / 2, (high - low).amax(1).clamp(min=1)
    reach = torch.tensor([-1.35, -1.25, 1.35, 1.45])
    whole = (centre.repeat(1, 2) + reach * side[:, None]).trunc()
    half = ((whole[:, 2:] - whole[:, :2]) / 512 * 64).trunc()
    middles = torch.stack([face[:, part, :2].mean(1).round() for part in CENTRE_POINTS], 1)
    patches = torch.cat([middles - half[:, None], middles + half[:, None]], -1)
    limits = torch.tensor([width, height, width, height], dtype=torch.float32)
    seen = (face[:, :, 2] > 0).any(1).float()
    box = torch.minimum(whole.clamp(min=0), limits) * seen[:, None]
    return box, torch.minimum(patches.clamp(min=0), limits) * seen[:, None, None]


def keep_boxes(pictures: Tensor, boxes: Tensor) -> Tensor:
    """The pictures (n 3 h w), black outside of the boxes (n k 4) in pixels."""
    height, width = pictures.shape[-2:]
    boxes = onto(boxes, pictures.device)
    columns = torch.arange(width, device=pictures.device)
    rows = torch.arange(height, device=pictures.device)
    across = (columns >= boxes[..., 0, None]) & (columns < boxes[..., 2, None])
    down = (rows >= boxes[..., 1, None]) & (rows < boxes[..., 3, None])
    kept = (down[:, :, :, None] & across[:, :, None, :]).any(1)
    return pictures * kept[:, None]
