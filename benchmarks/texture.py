"""How the network behind `dtfvd[synth]` reads held-out clips, and what moves its Frechet distance.

    python -m benchmarks.texture [--clips 960] [--size 256] [--network FILE] [-o OUT.json]

Clips are of seeds that no training sees, rendered at --size. Half of them are the truth, the other half are measured
against it: as they are, and spoiled in the ways that DTFVD is there to notice. On one core, 960 clips take ten minutes.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch

from xdyna import media
from xdyna.data.synthetic import HELD_OUT_SEED
from xdyna.evaluation.frechet import frechet_distance, frechet_with_interval
from xdyna.evaluation.networks.texture import (
    ASSET,
    FRAMES,
    KINDS,
    PARTS,
    TEMPOS,
    Part,
    TextureNet,
    load_texture_net,
    prepare_clip,
)
from xdyna.training.texture import CHUNK, render_textures

logger = logging.getLogger(__name__)

SEED = HELD_OUT_SEED + 40_000_000

# The same permutation for all clips: no frame stays where it was, none follows its neighbour.
SHUFFLE = np.array([9, 3, 14, 6, 0, 11, 2, 13, 7, 15, 4, 10, 1, 8, 12, 5])

SPOILED = ("true", "frozen", "shuffled", "backwards", "half speed", "blurred 2 px", "blurred 4 px")


def spoil(frames: np.ndarray, how: str) -> np.ndarray:
    """A clip (f h w 3) with one thing wrong. Blurs are Gaussian, their pixels those of a 256 px picture."""
    orders = {
        "true": np.arange(FRAMES), "frozen": np.zeros(FRAMES, int), "shuffled": SHUFFLE,
        "backwards": np.arange(FRAMES)[::-1], "half speed": np.arange(FRAMES) // 2,
    }  # fmt: skip
    if how in orders:
        return frames[orders[how]]
    sigma = float(how.split()[1]) * frames.shape[1] / 256
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames])


@dataclass
class Reading:
    """What the network said about one clip, in all parts and spoiled versions.

    Attributes:
        kind, human, still: the truth, as of `SyntheticBatch`; person: the person's share of the picture.
        features: by part and way of spoiling, (96,).
        said: by part and way, the winning kind and tempo.
    """

    kind: int
    human: bool
    still: bool
    person: float
    features: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    said: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)


@torch.no_grad()
def read_held_out(net: TextureNet, clips: int, *, size: int) -> list[Reading]:
    """Readings of held-out clips; masks are those of the clips as they were."""
    readings: list[Reading] = []
    start = time.monotonic()
    for chunk in range(-(-clips // CHUNK)):
        batch = render_textures(SEED + chunk, size=size)
        frames = (batch.frames.clamp(0, 1) * 255).round().byte().permute(0, 1, 3, 4, 2).numpy()
        masks = batch.mask[:, :, 0].numpy()
        for place in range(CHUNK):
            reading = Reading(
                int(batch.scene[place]), bool(batch.human[place]), bool(batch.still[place]),
                float((masks[place] >= 0.5).mean()),
            )  # fmt: skip
            parts: tuple[Part, ...] = PARTS if reading.human else ("all",)
            ways = [(part, how) for how in SPOILED for part in parts]
            spoiled = {how: spoil(frames[place], how) for how in SPOILED}
            ready = [prepare_clip(spoiled[how], mask=masks[place], part=part) for part, how in ways]
            output = net(torch.stack(ready))
            for row, way in enumerate(ways):
                reading.features[way] = output.features[row].double().numpy()
                reading.said[way] = int(output.kinds[row].argmax()), int(output.tempos[row].argmax())
            readings.append(reading)
        if chunk % 10 == 9:
            logger.info("%d clips, %.0f s", len(readings), time.monotonic() - start)
    return readings[:clips]


def accuracies(readings: Sequence[Reading]) -> dict[str, dict[str, float]]:
    """Top-1 shares: the kind by what is shown, the tempo by how the clip was spoiled."""
    people = [reading for reading in readings if reading.human]
    scenes = [reading for reading in readings if not reading.human]
    person = KINDS.index("person")
    right = {
        "kind, scenes alone": [r.said["all", "true"][0] == r.kind for r in scenes],
        "kind, people in front": [r.said["all", "true"][0] == r.kind for r in people],
        "kind, people cut out": [r.said["bg", "true"][0] == r.kind for r in people],
        "kind, people alone": [r.said["fg", "true"][0] == person for r in people],
    }
    right["kind, all of these"] = [value for values in right.values() for value in values]
    moving = [r for r in scenes if not r.still]
    for how, tempo in (("true", "plays"), ("frozen", "still"), ("shuffled", "shuffled")):
        wanted = TEMPOS.index(tempo)
        right[f"tempo, moving scenes, {how}"] = [r.said["all", how][1] == wanted for r in moving]
        right[f"tempo, people alone, {how}"] = [r.said["fg", how][1] == wanted for r in people]
    return {what: {"share": float(np.mean(values)), "n": len(values)} for what, values in right.items()}


def confusions(readings: Sequence[Reading], count: int = 8) -> list[dict[str, object]]:
    """The pairs of kinds most often taken for another, of whole clips, with their counts."""
    table = np.zeros((len(KINDS), len(KINDS)), int)
    for reading in readings:
        table[reading.kind, reading.said["all", "true"][0]] += 1
    totals = table.sum(1)
    wrong = table - np.diag(np.diag(table))
    worst = np.argsort(-wrong, axis=None)[:count]
    pairs = [divmod(int(place), len(KINDS)) for place in worst]
    return [
        {"shown": KINDS[a], "said": KINDS[b], "count": int(wrong[a, b]), "of": int(totals[a])}
        for a, b in pairs
        if wrong[a, b]
    ]


def distances(readings: Sequence[Reading], *, resamples: int = 100) -> list[dict[str, object]]:
    """Frechet distances between the first half, untouched, and the second half, spoiled.

    "same" is the distance of the spoiled clips from themselves before: what a method loses that animates the very
    clips it is measured against. Still scenes are the second half's clips of scenes that stand still, against the
    first half's that move; "moving scenes" is that comparison's floor, between moving ones of as great a number.
    """
    half = len(readings) // 2
    rows: list[dict[str, object]] = []

    def add(
        part: str,
        what: str,
        truth: list[np.ndarray],
        other: list[np.ndarray],
        as_they_were: list[np.ndarray] | None = None,
    ) -> None:
        if min(len(truth), len(other)) < 3:
            return
        result = frechet_with_interval(np.stack(truth), np.stack(other), resamples=resamples)
        same = None if as_they_were is None else frechet_distance(np.stack(as_they_were), np.stack(other))
        rows.append(
            {"part": part, "what": what, "value": result.value, "low": result.low, "high": result.high,
             "n": list(result.samples), "same": same}
        )  # fmt: skip

    for part in PARTS:
        truth = [r.features[part, "true"] for r in readings[:half] if (part, "true") in r.features]
        others = [r for r in readings[half:] if (part, "true") in r.features]
        unspoiled = [r.features[part, "true"] for r in others]
        for how in SPOILED:
            add(part, how, truth, [r.features[part, how] for r in others], unspoiled)
        for quarter in (1, 2):
            frozen = np.random.default_rng(0).permutation(len(others)) % 4 < quarter
            mixed = [
                r.features[part, "frozen" if stop else "true"] for r, stop in zip(others, frozen, strict=True)
            ]
            add(part, f"{quarter} of 4 frozen", truth, mixed, unspoiled)
    moving = [r.features["all", "true"] for r in readings[:half] if not r.human and not r.still]
    second = [r for r in readings[half:] if not r.human]
    still = [r.features["all", "true"] for r in second if r.still]
    add(
        "all",
        "moving scenes",
        moving,
        [r.features["all", "true"] for r in second if not r.still][: len(still)],
    )
    add("all", "still scenes", moving, still)
    return rows


def measure(net: TextureNet, clips: int, *, size: int) -> dict[str, object]:
    """All figures of a network on held-out clips."""
    readings = read_held_out(net, clips, size=size)
    people = [reading.person for reading in readings if reading.human]
    return {
        "clips": clips, "size": size, "seed": SEED, "frames": FRAMES,
        "person_share": float(np.mean(people)), "accuracy": accuracies(readings), "confusions": confusions(readings),
        "distances": distances(readings),
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.texture", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--clips", type=int, default=960)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--network", type=Path, default=ASSET)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr
    )
    report = measure(load_texture_net(given.network), given.clips, size=given.size)
    if given.output:
        media.write_json(given.output, report, overwrite=True)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
