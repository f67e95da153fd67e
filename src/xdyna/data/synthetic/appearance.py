"""How a clip was filmed: light, colour, grain, softness and compression, fixed for all its frames.

The transform is one for the reference and every frame of a clip, and its grain stands still, so that what
does not move in the world does not move in the pictures either.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from xdyna.data.synthetic.draws import Draws, Params, onto
from xdyna.data.synthetic.shapes import blur

_BLOCK = 8  # as JPEG's


def sample_appearance(draws: Draws) -> Params:
    """Draw looks; about one clip in six is a flat drawing, one in three is left nearly as it is."""
    uniform, chance = draws.uniform, draws.chance
    strong = (0.35 + 0.65 * chance(0.65))[:, None]
    angle, lift = uniform(-2.4, -0.7), uniform(0.5, 0.95)
    flat = chance(0.16)
    direction = torch.stack(
        [angle.cos() * (1 - lift * lift).sqrt(), angle.sin() * (1 - lift * lift).sqrt(), lift], -1
    )
    ambient = torch.where(flat > 0, uniform(0.75, 0.9), uniform(0.50, 0.80))
    return {
        "light": torch.cat([direction, ambient[:, None], flat[:, None]], 1),
        "gain": 1.12 + 0.065 * strong * draws.normal(3).clamp(-2, 2) + 0.10 * strong * uniform(-1, 1, 1),
        "gamma": torch.exp(0.22 * strong[:, 0] * uniform(-1, 1) - 0.12),
        "contrast": 1 + 0.25 * strong[:, 0] * uniform(-1, 1),
        "lift": 0.06 * strong[:, 0] * uniform(-0.5, 1),
        "saturation": 1 + strong[:, 0] * torch.where(chance(0.06) > 0, -1.0, uniform(-0.35, 0.3)),
        "vignette": chance(0.5) * uniform(0.1, 0.7),
        "grain": chance(0.4) * (1 - flat) * uniform(0.003, 0.014),
        "grain_texture": draws.texture(1, uniform(0.0, 0.5)),
        "softness": torch.where(chance(0.28) > 0, uniform(0.4, 0.9), 0.0),  # pixels at 256
        "compression": chance(0.35) * uniform(0.02, 0.12),
        "depth_blur": torch.where(chance(0.4) > 0, uniform(0.6, 3.2), 0.0),  # pixels at 256
    }


def blur_background(background: Tensor, appearance: Params) -> Tensor:
    """Put the scene (b n 3 h w) out of focus behind the people."""
    batch, count, _, height, width = background.shape
    sigma = appearance["depth_blur"] * min(height, width) / 256
    if float(sigma.max()) <= 0.05:
        return background
    flat = background.flatten(0, 1)
    # Half the size costs a quarter, and what is lost is what the blur takes away.
    small = F.interpolate(flat, scale_factor=0.5, mode="bilinear", align_corners=False)
    small = blur(small, (sigma / 2).repeat_interleave(count), radius=4)
    soft = F.interpolate(small, size=(height, width), mode="bilinear", align_corners=False).unflatten(
        0, (batch, count)
    )
    return torch.where(onto(sigma > 0.5, flat.device)[:, None, None, None, None], soft, background)


def film(pictures: Tensor, appearance: Params) -> Tensor:
    """Apply the looks.

    Args:
        pictures: (b n 3 h w) float, about [0, 1].
        appearance: of `sample_appearance`, on the CPU.

    Returns:
        The same shape, in [0, 1].
    """
    batch, count, _, height, width = pictures.shape
    device = pictures.device

    def of(name: str) -> Tensor:
        return onto(appearance[name], device).reshape(batch, 1, -1, 1, 1)

    softness = appearance["softness"] * min(height, width) / 256
    picture = blur(pictures.flatten(0, 1), softness.repeat_interleave(count), radius=3).unflatten(
        0, (batch, count)
    )
    grey = picture.mean(2, keepdim=True)
    picture = grey + (picture - grey) * of("saturation")
    picture = ((picture - 0.5) * of("contrast") + 0.5) * of("gain") + of("lift")
    y = torch.linspace(-1, 1, height, device=device)[:, None]
    x = torch.linspace(-1, 1, width, device=device)[None]
    shade = 1 - of("vignette") * ((x * x + y * y) / 2) ** 1.5
    picture = (picture * shade).clamp(1e-4, 1).pow(of("gamma"))
    if float(appearance["grain"].max()) > 0:
        texture = onto(appearance["grain_texture"], device)
        rows, columns = (
            torch.arange(height, device=device) % texture.shape[-2],
            torch.arange(width, device=device) % texture.shape[-1],
        )
        grain = texture[:, :, rows][..., columns][:, None]
        picture = picture + of("grain") * grain * (0.4 + picture.mean(2, keepdim=True))
    return _compress(picture, appearance["compression"]).clamp(0, 1)


def _compress(pictures: Tensor, strength: Tensor) -> Tensor:
    """Quantise the cosine transform of 8 x 8 blocks, as JPEG does; strength (b,) is the coarsest step."""
    chosen = [i for i, value in enumerate(strength.tolist()) if value > 0]
    if not chosen:
        return pictures
    device = pictures.device
    height, width = pictures.shape[-2:]
    cosines = torch.tensor(
        [
            [
                math.sqrt((1 if k == 0 else 2) / _BLOCK) * math.cos(math.pi * (2 * i + 1) * k / (2 * _BLOCK))
                for i in range(_BLOCK)
            ]
            for k in range(_BLOCK)
        ]
    )
    basis = onto(cosines, device)
    order = torch.arange(_BLOCK, device=device)
    step = 0.25 + (order[:, None] + order[None]) / 8
    index = onto(torch.tensor(chosen), device)
    step = onto(strength[chosen], device)[:, None, None, None, None, None, None] * step
    part = pictures[index] if len(chosen) < len(pictures) else pictures
    part = F.pad(part.flatten(0, 1), (0, -width % _BLOCK, 0, -height % _BLOCK), mode="replicate")
    part = part.unflatten(0, (len(chosen), -1))
    blocks = (
        part.unflatten(-1, (-1, _BLOCK)).unflatten(-3, (-1, _BLOCK)).transpose(-3, -2)
    )  # b n 3 rows columns 8 8
    found = torch.round(basis @ blocks @ basis.T / step) * step
    part = (basis.T @ found @ basis).transpose(-3, -2).flatten(-2).flatten(-3, -2)[..., :height, :width]
    if len(chosen) == len(pictures):
        return part
    result = pictures.clone()
    result[index] = part
    return result
