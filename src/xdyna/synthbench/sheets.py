"""What the benchmark shows besides numbers: contact sheets, short videos, and the curve of the knob."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from xdyna import media
from xdyna.data.synthetic.params import STEP
from xdyna.evaluation.figures import Figure
from xdyna.synthbench.cases import to_bytes

COLUMNS = 8
"""Frames of a clip on a contact sheet."""
CELL = 256
"""Largest height of a picture on sheets and in videos."""
_INK, _GRID, _COLOURS = (40, 40, 40), (225, 225, 225), ((200, 60, 40), (40, 90, 190), (30, 140, 70))


def write_sheet(path: Path, rows: Mapping[str, torch.Tensor]) -> None:
    """Clips (f 3 h w) below each other by name, `COLUMNS` frames of each; a clip of one frame is shown once."""
    strips = []
    for clip in rows.values():
        picks = torch.linspace(0, len(clip) - 1, min(COLUMNS, len(clip))).round().long()
        strips.append(list(to_bytes(clip[picks.to(clip.device)])))
    height = min(CELL, strips[0][0].shape[0])
    media.write_image(path, media.sheet(strips, labels=list(rows), height=height), overwrite=True)


def write_movie(path: Path, columns: Mapping[str, torch.Tensor]) -> None:
    """Clips (f 3 h w) side by side by name, as an mp4 that plays twice; a clip of one frame stands still."""
    pictures = [to_bytes(clip) for clip in columns.values()]
    count = max(len(clip) for clip in pictures)
    height = max(64, min(CELL, pictures[0].shape[1]))
    frames = [
        media.compare_frame([clip[min(i, len(clip) - 1)] for clip in pictures], list(columns), height=height)
        for i in range(count)
    ]
    media.write_clip(iter(frames * 2), path, fps=1 / Fraction(STEP), overwrite=True)


def write_curve(path: Path, panels: Mapping[str, Mapping[str, Sequence[tuple[float, Figure]]]]) -> None:
    """Panels beside each other, in each some curves with their intervals: panel -> label -> (x, figure)."""
    parts = [_panel(title, curves) for title, curves in panels.items()]
    media.write_image(path, np.concatenate(parts, 1), overwrite=True, ai_generated=False)


def _panel(title: str, curves: Mapping[str, Sequence[tuple[float, Figure]]]) -> np.ndarray:
    width, height, left, right, top, bottom = 460, 340, 62, 16, 62, 34
    picture = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    points = [point for curve in curves.values() for point in curve]
    ends = [v for _, found in points for v in (found.value, found.high) if math.isfinite(v)]
    ceiling, reach = 1.08 * max(ends, default=1.0) or 1.0, max((x for x, _ in points), default=1.0) or 1.0

    def place(x: float, value: float) -> tuple[float, float]:
        return (
            left + (width - left - right) * x / reach,
            height - bottom - (height - top - bottom) * min(max(value / ceiling, 0), 1),
        )

    draw.text((left, 6), title, fill=_INK, font=ImageFont.load_default(15))
    step = _round_step(ceiling)
    for line in range(int(ceiling / step) + 1):
        y = place(0, line * step)[1]
        draw.line((left, y, width - right, y), fill=_GRID)
        draw.text((left - 8, y), f"{line * step:g}", fill=_INK, font=font, anchor="rm")
    for x in sorted({x for x, _ in points}):
        draw.text((place(x, 0)[0], height - bottom + 6), f"{x:g}", fill=_INK, font=font, anchor="ma")
    for number, (label, curve) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        draw.text((left + number * 135, 28), label, fill=colour, font=font)
        known = [(x, found) for x, found in curve if math.isfinite(found.value)]
        draw.line([place(x, found.value) for x, found in known], fill=colour, width=2)
        for x, found in known:
            (px, py), radius = place(x, found.value), 3
            draw.ellipse((px - radius, py - radius, px + radius, py + radius), fill=colour)
            if math.isfinite(found.low) and math.isfinite(found.high):
                draw.line((*place(x, found.low), *place(x, found.high)), fill=colour)
    return np.array(picture)


def _round_step(ceiling: float) -> float:
    """A round distance of grid lines, so that there are three to eight of them."""
    power = 10.0 ** math.floor(math.log10(ceiling))
    return next(power * share for share in (0.2, 0.5, 1.0, 2.0) if ceiling / (power * share) <= 8)
