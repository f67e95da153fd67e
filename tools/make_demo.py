"""Render the demo inputs that ship with the package: a person, and another one's motion.

    python tools/make_demo.py                     # writes src/xdyna/assets/demo
    python tools/make_demo.py --look 900000100 40 # a sheet of candidate seeds instead

Seeds are held out: no training run sees them.
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from xdyna import media
from xdyna.conditions.keypoints import PARTS, Keypoints
from xdyna.data.synthetic import SyntheticBatch, make_batch

PERSON_SEED, MOTION_SEED = 900_000_107, 900_000_118
SIZE, FRAMES = (256, 256), 24
FOLDER = Path(__file__).resolve().parents[1] / "src" / "xdyna" / "assets" / "demo"


def pictures(batch: SyntheticBatch, clip: int = 0) -> np.ndarray:
    """One clip's frames, reference first: (1+f h w 3) uint8."""
    frames = batch.frames[clip].permute(0, 2, 3, 1)
    return (frames.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def keypoints(batch: SyntheticBatch, frames: slice, clip: int = 0) -> Keypoints:
    """One clip's exact keypoints."""
    return Keypoints(
        **{name: getattr(batch, name)[clip, frames].float().numpy() for name in PARTS}, size=SIZE
    )


def look(first: int, count: int) -> None:
    """A sheet of the reference and the last frame for a run of seeds."""
    cells = []
    for seed in range(first, first + count):
        shown = pictures(
            make_batch(seed, 1, frames=1, size=SIZE, human_share=1.0, still_share=0.0, maps=False)
        )
        cells.append(media.sheet([[shown[0], shown[1]]], labels=[str(seed)]))
    rows = [cells[i : i + 5] for i in range(0, count, 5)]
    media.write_image("demo_candidates.png", media.sheet(rows), overwrite=True)


def main() -> None:
    """Write the assets, or a sheet to choose from."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--look", nargs=2, type=int, metavar=("FIRST", "COUNT"))
    chosen = parser.parse_args()
    if chosen.look:
        look(*chosen.look)
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    settings = {"size": SIZE, "human_share": 1.0, "still_share": 0.0, "maps": False}
    person = make_batch(PERSON_SEED, 1, frames=1, **settings)
    motion = make_batch(MOTION_SEED, 1, frames=FRAMES, **settings)
    media.write_image(FOLDER / "person.png", pictures(person)[0], overwrite=True)
    keypoints(person, slice(0, 1)).save(FOLDER / "person.npz")
    clip = media.Clip(frames=pictures(motion)[1:], fps=Fraction(8))
    media.write_clip(clip, FOLDER / "motion.mp4", overwrite=True)
    keypoints(motion, slice(1, None)).save(FOLDER / "motion.npz")


if __name__ == "__main__":
    main()
