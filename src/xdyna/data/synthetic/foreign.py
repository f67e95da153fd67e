"""The foreign heads of the face maps: another person at the same place, with the same pose and expression."""

from __future__ import annotations

import torch
from torch import Tensor

from xdyna.data.synthetic.draws import Draws, Params, onto, to_device
from xdyna.data.synthetic.face import FacePainter
from xdyna.data.synthetic.hair import paint_back_hair, paint_front_hair
from xdyna.data.synthetic.head import HeadShape, head_look, landmarks
from xdyna.data.synthetic.shapes import (
    Canvas,
    Window,
    blur,
    bounds,
    capsule,
    coverage,
    limb_shade,
    per_pixel,
    sample_texture,
)


def foreign_heads(draws: Draws) -> Params:
    """Draw how the face maps differ from the person's own face: size, place, light, colour, softness, background."""
    return {
        "map_size": torch.exp(draws.uniform(-0.12, 0.12)),
        "map_shift": 0.08 * draws.normal(2).clamp(-2, 2),
        "map_gain": 1 + 0.15 * draws.normal(3).clamp(-2, 2) + 0.15 * draws.uniform(-1, 1, 1),
        "map_gamma": torch.exp(0.3 * draws.uniform(-1, 1)),
        "map_blur": torch.where(draws.chance(0.5) > 0, draws.uniform(0.4, 1.3), 0.0),
        "map_first": draws.colour((0, 1), (0, 0.5), (0.02, 1.0)),
        "map_second": draws.colour((0, 1), (0, 0.5), (0.02, 1.0)),
        "map_noise": draws.chance(0.6) * draws.uniform(0.03, 0.2),
        "map_light": draws.uniform(-2.6, -0.5),
        "map_lift": draws.uniform(0.5, 0.95),
    }


def paint_foreign(
    foreign: Params, state: Params, hung: Params, joints: Params, texture: Tensor, size: tuple[int, int],
    device: torch.device,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The foreign heads: same place, pose and expression, another person, light and background.

    Args:
        foreign, state, hung, joints: one row a frame (n), on the CPU; the last three are the driven person's.
        texture: (b c t t), one a clip.

    Returns:
        pictures (n 3 h w) in [0, 1] and landmarks (n 68 3) in pixels.
    """
    height, width = size
    unit = joints["head_radius"] * foreign["map_size"]
    posed = {
        "head": joints["head"] + foreign["map_shift"] * unit[:, None],
        "neck": joints["neck"], "head_radius": unit, "head_roll": joints["head_roll"],
    }  # fmt: skip
    shape = HeadShape(foreign, state, posed)
    points = landmarks(shape)
    middle = points.mean(1)
    inside = (middle[:, 0] > 0) & (middle[:, 0] < width / height) & (middle[:, 1] > 0) & (middle[:, 1] < 1)
    scored = torch.cat([points * height, inside[:, None, None].expand(-1, 68, 1).float()], -1)

    canvas = Canvas(torch.zeros(len(unit), 3, height, width, device=device))
    low, high = points.amin(1), points.amax(1)
    reach = 1.5 * (high - low).amax(1)
    box = bounds([(low + high) / 2], reach)
    window = canvas.window(box)
    angle, lift = foreign["map_light"], foreign["map_lift"]
    flat_part = (1 - lift * lift).sqrt()
    light = torch.stack([angle.cos() * flat_part, angle.sin() * flat_part, lift, 0.5 + 0 * lift, 0 * lift], 1)
    light = onto(light, device)
    look = to_device(head_look(shape, foreign, state, hung), device)
    texture = onto(texture, device)
    moved = to_device(posed, device)

    slope = (window.y - window.y.mean((1, 2), keepdim=True)) * 1.5 + 0.5
    first, second = look["map_first"][:, :, None, None], look["map_second"][:, :, None, None]
    grain = sample_texture(
        texture[:, :1],
        window.x.unflatten(0, (len(texture), -1)),
        window.y.unflatten(0, (len(texture), -1)),
    )
    grain = grain.flatten(0, 2)[:, None] * look["map_noise"][:, None, None, None]
    window.image.copy_((first + (second - first) * slope.clamp(0, 1)[:, None] + grain).clamp(0, 1))
    paint_back_hair(window, shape, look)
    _bust(window, moved, look, light)
    window.close()
    FacePainter(canvas, shape, points, look, light, texture, covers=False).paint()
    window = canvas.window(box)
    paint_front_hair(window, shape, look, light, texture)
    picture = blur(window.image, foreign["map_blur"] * min(size) / 256, radius=3)
    gain, gamma = look["map_gain"][:, :, None, None], look["map_gamma"][:, None, None, None]
    window.image.copy_((picture * gain).clamp(1e-4, 1).pow(gamma))
    window.close()
    return canvas.image, scored


def _bust(window: Window, joints: Params, look: Params, light: Tensor) -> None:
    """Neck and shoulders below a foreign head."""
    head, unit = joints["head"], joints["head_radius"]
    below = torch.stack([0 * unit, 1.6 * unit], 1)
    base = head + below
    level = (
        ((window.x - per_pixel(base[:, 0])) / per_pixel(1.9 * unit)) ** 2
        + ((window.y - per_pixel(base[:, 1]) - per_pixel(0.35 * unit)) / per_pixel(0.75 * unit)) ** 2
        + 1e-6
    ).sqrt() - 1
    window.paint(coverage(level), look["top"], covers=False)
    distance, along, across = capsule(window.x, window.y, base, head, unit * 0.42, unit * 0.38)
    shade = limb_shade(across, base, head, light) * (0.97 - 0.3 * along)
    window.paint((0.5 - distance / window.pixel).clamp(0, 1), look["skin"], shade, covers=False)
