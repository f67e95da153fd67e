"""Painting: a canvas of frames, windows into it, and the shapes that are painted there.

Lengths are in frame heights, y down; x 0 is the left edge. All shapes are functions of pixel coordinates, so
nothing here loops over people or frames. A part of a person is painted inside a window that just holds
it in every frame of the chunk; windows lie inside the frame, each frame's at its own place.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def per_pixel(values: Tensor) -> Tensor:
    """(n,) to (n 1 1), so that a value a frame meets its pixels."""
    return values[:, None, None]


def ramp(values: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """0 below `low`, 1 above `high`, linear between (either order)."""
    return ((values - low) / (high - low)).clamp(0, 1)


def smooth_ramp(values: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """Like `ramp` but with zero slope at both ends."""
    t = ramp(values, low, high)
    return t * t * (3 - 2 * t)


def bump(values: Tensor) -> Tensor:
    """A smooth bump: 1 at 0, 0 beyond 1.58; stands for exp(-values^2), which costs several times as much."""
    return (1 - 0.4 * values * values).clamp_(min=0).square_()


def coverage(level: Tensor, *, soft: float = 1.0) -> Tensor:
    """How much of each pixel lies where `level` < 0: antialiasing for any level function.

    The function is divided by its own slope per pixel, so its unit does not matter (n h w -> n h w).

    Args:
        soft: width of the edge in pixels.
    """
    inner = level[..., 1:, 1:]
    slope = (inner - level[..., 1:, :-1]).square_() + (inner - level[..., :-1, 1:]).square_()
    slope = F.pad(slope[:, None], (1, 0, 1, 0), mode="replicate")[:, 0].clamp_(min=1e-12)
    return (0.5 - level * slope.rsqrt_() / soft).clamp_(0, 1)


def bounds(points: list[Tensor], margin: Tensor) -> Tensor:
    """Boxes (n 4) round points (each (n 2) or (n k 2)), widened by a margin (n,)."""
    every = torch.cat([p[:, None] if p.dim() == 2 else p for p in points], 1)
    return torch.cat([every.amin(1) - margin[:, None], every.amax(1) + margin[:, None]], 1)


class Canvas:
    """Frames being painted, with how much of each pixel is the person.

    Args:
        background: (n 3 h w) float in [0, 1]; painted over in place.
    """

    def __init__(self, background: Tensor) -> None:
        self.image = background.contiguous()
        count, _, self.height, self.width = background.shape
        self.mask = torch.zeros(count, 1, self.height, self.width, device=background.device)

    def sees(self, boxes: Tensor) -> bool:
        """Whether any of the boxes (n 4), as for `window`, reaches into its frame."""
        right, bottom = self.width / self.height, 1.0
        inside = (boxes[:, 2] > 0) & (boxes[:, 3] > 0) & (boxes[:, 0] < right) & (boxes[:, 1] < bottom)
        return bool(inside.any())

    def window(self, boxes: Tensor) -> Window:
        """A window that holds the boxes.

        Args:
            boxes: (n 4) on the CPU: left, top, right, bottom in frame heights.
        """
        return Window(self, boxes)


class Window:
    """A part of a canvas, of one size for all frames, to paint on; `close` puts it back.

    Attributes:
        x, y: (n h w) coordinates of the pixel centres in frame heights.
        image: (n 3 h w); mask: (n 1 h w).
        pixel: size of a pixel in frame heights.
    """

    def __init__(self, canvas: Canvas, boxes: Tensor) -> None:
        self.canvas = canvas
        device = canvas.image.device
        self.pixel = 1 / canvas.height
        limits = torch.tensor([canvas.width, canvas.height], dtype=torch.float32)
        first = (boxes[:, :2] * canvas.height).floor() - 1
        last = (boxes[:, 2:] * canvas.height).ceil() + 1
        # Only the part inside the frame counts; a box outside leaves a sliver at the edge.
        first, last = torch.minimum(first.clamp(min=0), limits - 1), torch.minimum(last.clamp(min=1), limits)
        width, height = (int(n) for n in torch.minimum(((last - first).amax(0) / 4).ceil() * 4, limits))
        first = torch.minimum(first, limits - torch.tensor([width, height])).long()
        origin = first.to(device, non_blocking=True)
        columns = origin[:, :1] + torch.arange(width, device=device)
        rows = origin[:, 1:] + torch.arange(height, device=device)
        self.x = ((columns + 0.5) * self.pixel)[:, None, :].expand(-1, height, -1)
        self.y = ((rows + 0.5) * self.pixel)[:, :, None].expand(-1, -1, width)
        self._whole = height == canvas.height and width == canvas.width
        if self._whole:
            self.image, self.mask = canvas.image, canvas.mask
        else:
            self._index = (rows[:, :, None] * canvas.width + columns[:, None, :]).flatten(1)[:, None]
            self.image, self.mask = self._read(canvas.image), self._read(canvas.mask)

    def _read(self, layer: Tensor) -> Tensor:
        index = self._index.expand(-1, layer.shape[1], -1)
        return layer.flatten(2).gather(2, index).unflatten(2, self.x.shape[1:])

    def paint(
        self, alpha: Tensor, colour: Tensor, shade: Tensor | None = None, *, covers: bool = True
    ) -> None:
        """Lay a colour over the window.

        Args:
            alpha: (n h w) in [0, 1].
            colour: (n 3), or (n 3 h w).
            shade: (n h w) factor on the colour.
            covers: whether what is painted belongs to the person's outline (False saves work inside it).
        """
        layer = colour[:, :, None, None] if colour.dim() == 2 else colour
        if shade is not None:
            layer = layer * shade[:, None]
        self.image.lerp_(layer.expand_as(self.image), alpha[:, None].expand_as(self.image))
        if covers:
            self.mask.lerp_(torch.ones_like(self.mask), alpha[:, None])

    def darken(self, amount: Tensor) -> None:
        """Multiply the window by 1 - amount (n h w): shadows."""
        self.image.mul_(1 - amount[:, None])

    def close(self) -> None:
        """Put what was painted back into the canvas."""
        if not self._whole:
            for whole, part in ((self.canvas.image, self.image), (self.canvas.mask, self.mask)):
                index = self._index.expand(-1, whole.shape[1], -1)
                whole.flatten(2).scatter_(2, index, part.flatten(2))


def capsule(
    x: Tensor, y: Tensor, start: Tensor, end: Tensor, start_radius: Tensor, end_radius: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """A limb: a tapered segment with round ends.

    Args:
        x, y: (n h w) pixel coordinates.
        start, end: (n 2); start_radius, end_radius: (n,).

    Returns:
        distance to the outline (negative inside), place along the limb in [0, 1], and place across it in
        [-1, 1] (negative on the left of start -> end as seen with y down), each (n h w).
    """
    ax, ay = per_pixel(end[:, 0] - start[:, 0]), per_pixel(end[:, 1] - start[:, 1])
    px, py = x - per_pixel(start[:, 0]), y - per_pixel(start[:, 1])
    squared = ax * ax + ay * ay + 1e-8
    along = ((px * ax + py * ay) / squared).clamp(0, 1)
    radius = per_pixel(start_radius) + per_pixel(end_radius - start_radius) * along
    distance = torch.sqrt((px - ax * along) ** 2 + (py - ay * along) ** 2 + 1e-12)
    across = ((px * ay - py * ax) * torch.rsqrt(squared) / radius).clamp(-1, 1)
    return distance - radius, along, across


def limb_shade(across: Tensor, start: Tensor, end: Tensor, light: Tensor) -> Tensor:
    """Light on a round limb (n h w).

    Args:
        across: from `capsule`.
        start, end: (n 2) the limb's axis.
        light: (n 5) x, y, z of the direction towards the light, ambient part, flatness in [0, 1].
    """
    axis = end - start
    axis = axis / axis.norm(dim=1, keepdim=True).clamp(min=1e-6)
    # The normal's part in the picture points along (ay, -ax).
    side = per_pixel(light[:, 0] * axis[:, 1] - light[:, 1] * axis[:, 0])
    return lit(across * side + torch.sqrt((1 - across * across).clamp(min=0)) * per_pixel(light[:, 2]), light)


def lit(facing: Tensor, light: Tensor) -> Tensor:
    """Brightness factor about 1 from how much a surface faces the light (n h w); cartoon looks have two tones."""
    ambient, flat = per_pixel(light[:, 3]), per_pixel(light[:, 4])
    tone = ramp(facing, 0.30, 0.36) * 0.55 + 0.42
    diffuse = facing.clamp(min=0)
    return ambient + (1.12 - ambient) * (diffuse + (tone - diffuse) * flat)


def sample_texture(texture: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Periodic bilinear lookup.

    Args:
        texture: (b c t t) periodic.
        u, v: (b n h w) (or broadcastable to each other), in periods.

    Returns:
        (b c n h w)
    """
    u, v = torch.broadcast_tensors(u, v)
    tiled = F.pad(texture, (0, 1, 0, 1), mode="circular")
    # With align_corners the last column of the tiled picture is the first again: one period is [-1, 1].
    grid = torch.stack([u - u.floor(), v - v.floor()], -1) * 2 - 1
    batch, count, height, width = u.shape
    found = F.grid_sample(
        tiled,
        grid.reshape(batch, count * height, width, 2),
        mode="bilinear",
        align_corners=True,
        padding_mode="border",
    )
    return found.reshape(batch, texture.shape[1], count, height, width)


def blur(image: Tensor, sigma: Tensor, *, radius: int = 4) -> Tensor:
    """Gaussian blur with a width for each picture (n c h w); `sigma` (n,) in pixels, edges replicated."""
    if float(sigma.max()) <= 0.05:
        return image
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma.cpu()[:, None].clamp(min=0.05)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).to(image.device, non_blocking=True)[
        :, :, None, None, None
    ]
    height, width = image.shape[-2:]
    padded = F.pad(image, (0, 0, radius, radius), mode="replicate")
    image = padded[:, :, :height] * kernel[:, 0]
    for i in range(1, 2 * radius + 1):
        image.addcmul_(padded[:, :, i : i + height], kernel[:, i])
    padded = F.pad(image, (radius, radius, 0, 0), mode="replicate")
    image = padded[..., :width] * kernel[:, 0]
    for i in range(1, 2 * radius + 1):
        image.addcmul_(padded[..., i : i + width], kernel[:, i])
    return image
