"""Small sets of clips on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from xdyna.media import write_clip


def moving(seed: int, *, frames: int = 6, size: tuple[int, int] = (32, 40), speed: int = 2) -> np.ndarray:
    """(f h w 3) uint8: a texture of which the left half slides and the right half rests."""
    texture = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    texture = np.asarray(Image.fromarray(texture).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    half = size[1] // 2
    clip = np.repeat(texture[None], frames, 0)
    for t in range(frames):
        clip[t, :, :half] = np.roll(texture[:, :half], speed * t, axis=0)
    return clip


def write_frames(folder: Path, clip: np.ndarray, *, name: str = "{:04d}.png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(clip):
        Image.fromarray(frame).save(folder / name.format(number))
    return folder


def write_video(path: Path, clip: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_clip(clip, path, fps=8)
    return path
