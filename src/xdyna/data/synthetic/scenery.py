"""What scenes are built from: coordinates, numbers, textures, and the few things many scenes share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xdyna.data.synthetic.draws import hsv
from xdyna.data.synthetic.shapes import ramp, sample_texture

KNOBS = 320
"""How many random numbers a scene has at its disposal."""

Span = tuple[float, float]


@dataclass
class Scenery:
    """One group of clips of the same kind, being painted.

    Attributes:
        x, y: coordinates in frame heights, x 0 in the middle of the frame: (b 1 1 w) and (b 1 h 1) when the camera
            stands still, so that what depends on one of them alone costs next to nothing, else (b n h w).
        time: (b n 1 1) seconds.
        knobs: (b KNOBS) uniform numbers, used up in order by `number` and `colour`.
        wind: (b n 1 1) where the air goes and how fast at each moment: about [-1, 1], positive to the right.
        texture: (b 3 t t) periodic noise with the scene's slope, standard deviation 1.
        pixel: size of a pixel in frame heights.
    """

    x: Tensor
    y: Tensor
    time: Tensor
    wind: Tensor
    knobs: Tensor
    texture: Tensor
    pixel: float
    used: int = 0

    def number(self, low: float, high: float) -> Tensor:
        """(b 1 1 1), the next of the clips' numbers, in [low, high)."""
        value = self.knobs[:, self.used, None, None, None]
        self.used += 1
        return low + (high - low) * value

    def chance(self, probability: float) -> Tensor:
        """(b 1 1 1) float: 1 with that probability."""
        return (self.number(0, 1) < probability).float()

    def colour(self, hue: Span = (0, 1), saturation: Span = (0, 1), value: Span = (0, 1)) -> Tensor:
        """(b 1 3 1 1) a colour."""
        parts = [self.number(*span)[:, 0, 0, 0] for span in (hue, saturation, value)]
        return hsv(*parts)[:, None, :, None, None]

    def noise(self, u: Tensor, v: Tensor, channel: int = 0) -> Tensor:
        """One channel of the texture at (u, v) in periods (b n h w)."""
        return sample_texture(self.texture[:, channel : channel + 1], u, v)[:, 0]

    def colours(self, u: Tensor, v: Tensor) -> Tensor:
        """The texture as colours round 0 (b n 3 h w): mostly light and dark, as photographs are."""
        found = sample_texture(self.texture, u, v).transpose(1, 2)
        return found[:, :, :1] + 0.3 * (found - found.mean(2, keepdim=True))


def tint(hue: Tensor, saturation: Tensor | float, value: Tensor | float) -> Tensor:
    """(b 1 3 1 1) a colour from numbers (b 1 1 1)."""
    parts = [(part + 0 * hue)[:, 0, 0, 0] for part in (hue, saturation, value)]
    return hsv(parts[0], parts[1], parts[2])[:, None, :, None, None]


def mix(first: Tensor, second: Tensor, amount: Tensor) -> Tensor:
    """From the first colour (b n 3 h w) to the second one by an amount (b n h w)."""
    return torch.lerp(first, second, amount[:, :, None])


def edge(scene: Scenery, level: Tensor, soft: float | Tensor = 1.0) -> Tensor:
    """1 where a distance in frame heights is positive, antialiased."""
    return ramp(level, -soft * scene.pixel, soft * scene.pixel)


def scatter(first: Tensor, second: Tensor | float, salt: Tensor | float) -> Tensor:
    """Noise in [0, 1) for whole numbers."""
    value = (first * 12.9898 + second * 78.233 + salt).sin() * 43758.5453
    return value - value.floor()


def cells(u: Tensor, v: Tensor, salt: Tensor, *, spread: float = 0.3) -> tuple[Tensor, Tensor, Tensor]:
    """A thing in every cell of a grid, each at a place of its own: drops, sparks, bubbles.

    Args:
        u, v: places in cells (b n h w).
        salt: (b 1 1 1) makes one layer unlike another.
        spread: how far from its cell's middle a thing may be, in cells.

    Returns:
        across and down from the pixel's thing, in cells, and a number of the thing's own in [0, 1).
    """
    column, row = u.floor(), v.floor()
    seed = scatter(column, row, salt)
    # A second number from the first costs a third of another scatter.
    other = seed * 57.31
    other = other - other.floor()
    return (
        u - column - 0.5 - spread * (2 * seed - 1),
        v - row - 0.5 - spread * (2 * other - 1),
        seed,
    )


def night(scene: Scenery, value: tuple[Span, Span] = ((0.02, 0.25), (0.05, 0.45))) -> Tensor:
    """A dark gradient, blue to purple."""
    picture = mix(
        scene.colour((0.55, 0.95), (0.3, 0.9), value[0]),
        scene.colour((0.55, 1.1), (0.3, 0.9), value[1]),
        scene.y.clamp(0, 1),
    )
    return picture * (1 + 0.15 * scene.noise(scene.x * 0.6, scene.y * 0.6))[:, :, None]


def sky(scene: Scenery) -> Tensor:
    """A sky of any hour: a gradient, at times a glow, at times still clouds."""
    zenith = scene.colour((0.52, 0.70), (0.1, 0.75), (0.25, 1.0))
    horizon = scene.colour((0.0, 1.0), (0.03, 0.45), (0.6, 1.0))
    picture = mix(zenith, horizon, (scene.y * scene.number(0.8, 1.7)).clamp(0, 1) ** 0.9)
    glow_x, glow_y = scene.number(-0.6, 0.6), scene.number(0.0, 0.5)
    far = ((scene.x - glow_x) ** 2 + (scene.y - glow_y) ** 2).sqrt()
    sun = ramp(scene.number(0.03, 0.07) - far, -0.006, 0.006) * scene.chance(0.3)
    warm = scene.colour((0.05, 0.15), (0.1, 0.6), (0.95, 1.0))
    picture = mix(picture, warm, torch.exp(-far * 4) * scene.number(0, 0.6))
    clouds = ramp(scene.noise(scene.x * 0.4 + glow_x, scene.y * 0.8, 2), 0.0, 1.8) * scene.chance(0.5)
    return mix(mix(picture, torch.ones_like(zenith), clouds * 0.7), torch.ones_like(zenith), sun)


def hills(
    scene: Scenery, base: Tensor, colour: Tensor, picture: Tensor, channel: int = 0, rough: float = 0.06
) -> Tensor:
    """A ridge from a height down, with a texture of its own."""
    shift = scene.number(0, 1)
    ridge = base - rough * scene.noise(scene.x * 0.25 + shift, 0 * scene.x + shift, channel)
    grain = scene.noise(scene.x * 1.1 + shift, scene.y * 1.6, channel)
    tone = (1 + 0.13 * grain)[:, :, None] * (1.1 - 0.5 * (scene.y - ridge).clamp(0, 0.6))[:, :, None]
    return mix(picture, colour * tone, edge(scene, scene.y - ridge))


def ground(scene: Scenery, horizon: Tensor, picture: Tensor) -> Tensor:
    """A floor in perspective: boards, tiles or earth."""
    depth = 0.3 / (scene.y - horizon + 0.06).clamp(min=0.02)
    base = scene.colour((0.02, 0.18), (0.05, 0.55), (0.25, 0.85))
    grain = scene.noise(scene.x * depth * 0.6, depth * 1.2, 1)
    lines = ((scene.x * depth * scene.number(3, 9)) * 6.283).sin().abs()
    rows = ((depth * scene.number(4, 9)) * 6.283).sin().abs()
    joint = torch.maximum(ramp(lines, 0.12, 0.0), ramp(rows, 0.10, 0.0) * scene.chance(0.5)) * scene.number(
        0, 0.3
    )
    fade = 1 - 0.25 * ramp(scene.y - horizon, 0.3, 0.0)
    floor = (
        base * ((1 + 0.10 * grain) * (1 - joint * ramp(scene.y, horizon, horizon + 0.1)) * fade)[:, :, None]
    )
    return mix(picture, floor, edge(scene, scene.y - horizon))
