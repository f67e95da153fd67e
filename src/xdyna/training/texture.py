"""`python -m xdyna.training.texture -o FILE`: train the network behind `dtfvd[synth]` on the synthetic world.

First a pool of clips is rendered to a folder (`--pool`, kept and used again), then the network learns from it. The same
arguments on the same machine give the same file. The shipped file's command, time and figures are in
docs/evaluation-texture.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from xdyna.data.synthetic import HELD_OUT_SEED, SyntheticBatch, render, sample_params
from xdyna.errors import InputError, OptionError, XdynaError
from xdyna.evaluation.networks.texture import (
    FRAMES,
    KINDS,
    SIDE,
    TEMPOS,
    TextureNet,
    TextureReading,
    change_of,
    save_texture_net,
)

logger = logging.getLogger(__name__)

CHUNK = 12
"""Clips of one seed."""
SIZES = (64, 96, 128, 64, 96, 160)
"""At which sizes chunks are rendered, in turn, before they are brought to the network's: what is small in a picture
looks different when a larger one is shrunk."""
SEED_BASE = 800_000_000
"""First seed of the pool; another network's training (`training.chunks`) has other ones."""
STILL_SCENE_SHARE = 0.25
MODELLED_SHARE = 0.2

_STILL, _PLAYS, _SHUFFLED = range(len(TEMPOS))
_PERSON = KINDS.index("person")
_FROZEN_SHARE, _SHUFFLED_SHARE, _CROPPED_SHARE = 0.15, 0.15, 0.5
_SMALLEST_CROP = 44


@dataclass(frozen=True)
class TextureTraining:
    """How to train.

    Attributes:
        clips: of the pool; seed: of the pool and of all chance in training.
        steps, batch: updates, and clips each.
        rate, decay: AdamW's learning rate at its peak and weight decay; the rate rises for 5 % of the steps, then
            falls to 0 along a cosine.
    """

    clips: int = 3600
    seed: int = 0
    steps: int = 1300
    batch: int = 64
    rate: float = 3e-3
    decay: float = 0.03

    def __post_init__(self) -> None:
        for name in ("clips", "steps", "batch"):
            if getattr(self, name) < 1:
                raise OptionError(name, f"{getattr(self, name)} is too few", "Give at least 1")
        if not 0 <= self.seed < 90:
            raise OptionError(
                "seed", f"{self.seed} is outside 0..89", "Each has a million of the pool's seeds"
            )
        if self.clips > CHUNK * 1_000_000:
            raise OptionError("clips", f"{self.clips} are more than a seed has", "Give at most 12,000,000")


def render_textures(seed: int, *, size: int) -> SyntheticBatch:
    """A chunk of 12 clips of 16 frames: half with a person, every fourth scene a still kind, people or not.

    Args:
        seed: of the world; see `HELD_OUT_SEED`.
        size: of the square pictures.
    """
    params = sample_params(
        seed,
        CHUNK,
        frames=FRAMES,
        human_share=1.0,
        still_share=STILL_SCENE_SHARE,
        modelled_share=MODELLED_SHARE,
    )
    # Every other clip has a person: clips of any scene are found with and without one.
    human = torch.arange(CHUNK) % 2 == 0
    return render(
        params.identity, params.motion, params.foreign, params.scene, params.times[:, 1:], (size, size),
        human=human, company=params.company, modelled=params.modelled, maps=False,
    )  # fmt: skip


@dataclass
class TexturePool:
    """Rendered clips.

    Attributes:
        frames: (n 16 64 64 3) uint8; masks: (n 16 64 64) uint8, the person's share in 0..255.
        kinds: (n,) int64 places in `KINDS`; human, still: (n,) bool, as of `SyntheticBatch`.
    """

    frames: np.ndarray
    masks: np.ndarray
    kinds: np.ndarray
    human: np.ndarray
    still: np.ndarray

    def __len__(self) -> int:
        return len(self.kinds)


_FILES = ("frames", "masks", "kinds", "human", "still")


def open_pool(folder: Path, training: TextureTraining) -> TexturePool:
    """The pool in a folder; what is missing of it is rendered.

    Raises:
        InputError: the folder holds another pool.
    """
    about = {"clips": training.clips, "seed": training.seed, "sizes": list(SIZES), "version": 1}
    note, done = folder / "pool.json", folder / "done"
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {"frames": (SIDE, SIDE, 3), "masks": (SIDE, SIDE)}
    files: dict[str, np.ndarray] = {}
    if note.is_file():
        if json.loads(note.read_text(encoding="utf-8")) != about:
            raise InputError(folder, "it holds the pool of another training", "Give another folder to --pool")
        files = {name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="r+") for name in _FILES}
    else:
        for name in _FILES:
            shape = (training.clips, *((FRAMES, *shapes[name]) if name in shapes else ()))
            kind = np.uint8 if name in shapes else np.int64 if name == "kinds" else np.bool_
            files[name] = np.lib.format.open_memmap(
                folder / f"{name}.npy", mode="w+", dtype=kind, shape=shape
            )
        done.write_text("0", encoding="utf-8")
        note.write_text(json.dumps(about), encoding="utf-8")
    start, first = time.monotonic(), int(done.read_text(encoding="utf-8"))
    for chunk in range(first, math.ceil(training.clips / CHUNK)):
        seed = SEED_BASE + training.seed * 1_000_000 + chunk
        assert seed < HELD_OUT_SEED
        batch = render_textures(seed, size=SIZES[chunk % len(SIZES)])
        place = slice(chunk * CHUNK, min((chunk + 1) * CHUNK, training.clips))
        _keep(files, batch, place)
        if chunk % 50 == 49:
            logger.info("rendered %d clips in %.0f s", place.stop, time.monotonic() - start)
            done.write_text(str(chunk + 1), encoding="utf-8")
    done.write_text(str(math.ceil(training.clips / CHUNK)), encoding="utf-8")
    return TexturePool(**files)


def _keep(files: dict[str, np.ndarray], batch: SyntheticBatch, place: slice) -> None:
    count = place.stop - place.start
    pixels = torch.cat([batch.frames, batch.mask], 2)[:count].flatten(0, 1)
    if pixels.shape[-1] != SIDE:
        pixels = functional.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True)
    whole = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).unflatten(0, (count, FRAMES)).numpy()
    files["frames"][place] = whole[:, :, :3].transpose(0, 1, 3, 4, 2)
    files["masks"][place] = whole[:, :, 3]
    files["kinds"][place] = batch.scene[:count].numpy()
    files["human"][place] = batch.human[:count].numpy()
    files["still"][place] = batch.still[:count].numpy()


@dataclass
class TextureLesson:
    """A batch.

    Attributes:
        clips: (b 3 16 64 64) float in [0, 1].
        kinds, tempos: (b,) int64 places in `KINDS` and `TEMPOS`.
    """

    clips: Tensor
    kinds: Tensor
    tempos: Tensor


def draw_lesson(pool: TexturePool, chance: np.random.Generator, batch: int) -> TextureLesson:
    """Clips as the evaluation shows them: whole, the person cut out, or the person alone, what is left out black.

    A third of the scenes without people get a hole of another clip's person. 15 % of the clips stand still (one
    frame again and again; at times the mask moves on), 15 % have their frames out of order; the rest plays. Half are
    cropped and brought back to size, half mirrored.
    """
    people = np.flatnonzero(pool.human)
    clips, kinds, tempos = [], [], []
    for index in chance.integers(len(pool), size=batch):
        frames, mask = pool.frames[index], pool.masks[index]
        kind, moves, part = int(pool.kinds[index]), not pool.still[index], "all"
        if pool.human[index]:
            part = str(chance.choice(["all", "bg", "fg"], p=[0.4, 0.35, 0.25]))
            moves = moves or part != "bg"
        elif len(people) and chance.random() < 1 / 3:
            mask, part = pool.masks[chance.choice(people)], "bg"
        fate = chance.random()
        order = np.arange(FRAMES)
        if fate < _FROZEN_SHARE:
            order[:] = chance.integers(FRAMES)
            moves = False
        elif fate < _FROZEN_SHARE + _SHUFFLED_SHARE:
            order = chance.permutation(FRAMES)
        # the truth's moving masks laid over a frozen picture, as the evaluation does
        moves_on = fate < _FROZEN_SHARE and part != "all" and chance.random() < 0.5
        holes = np.arange(FRAMES) if moves_on else order
        clip = torch.from_numpy(frames[order]).permute(3, 0, 1, 2).float() / 255
        if part != "all":
            share = torch.from_numpy(mask[holes]).float() / 255
            clip = clip * (share if part == "fg" else 1 - share)
        if chance.random() < _CROPPED_SHARE:
            side = int(chance.integers(_SMALLEST_CROP, SIDE))
            top, left = chance.integers(SIDE - side + 1, size=2)
            crop = clip[..., top : top + side, left : left + side]
            clip = functional.interpolate(crop, (SIDE, SIDE), mode="bilinear")
        clips.append(clip.flip(-1) if chance.random() < 0.5 else clip)
        kinds.append(_PERSON if part == "fg" else kind)
        shuffled = moves and _FROZEN_SHARE <= fate < _FROZEN_SHARE + _SHUFFLED_SHARE
        tempos.append(_SHUFFLED if shuffled else _PLAYS if moves else _STILL)
    return TextureLesson(torch.stack(clips), torch.tensor(kinds), torch.tensor(tempos))


def texture_loss(reading: TextureReading, lesson: TextureLesson) -> Tensor:
    """Cross entropies of kind and tempo (half), and the smooth L1 of the change from frame to frame."""
    return (
        functional.cross_entropy(reading.kinds, lesson.kinds, label_smoothing=0.05)
        + 0.5 * functional.cross_entropy(reading.tempos, lesson.tempos)
        + functional.smooth_l1_loss(reading.energy, change_of(lesson.clips))
    )


def train_texture(pool: TexturePool, training: TextureTraining) -> TextureNet:
    """A network trained on a pool, on the CPU in bfloat16 arithmetic with float32 weights, in evaluation mode."""
    torch.manual_seed(training.seed)
    net = TextureNet()
    heavy = [value for value in net.parameters() if value.ndim > 1]
    light = [value for value in net.parameters() if value.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": heavy, "weight_decay": training.decay}, {"params": light, "weight_decay": 0.0}],
        training.rate,
    )
    warm = max(1, training.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * min(1.0, step / training.steps))),
    )
    start, seen = time.monotonic(), []
    for step, lesson in enumerate(_lessons(pool, training)):
        with torch.autocast("cpu", torch.bfloat16):
            reading = net(lesson.clips)
        loss = texture_loss(TextureReading(*(part.float() for part in reading)), lesson)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        kind = (reading.kinds.argmax(1) == lesson.kinds).float().mean().item()
        tempo = (reading.tempos.argmax(1) == lesson.tempos).float().mean().item()
        seen.append((loss.item(), kind, tempo))
        if (step + 1) % 50 == 0 or step + 1 == training.steps:
            mean = np.mean(seen[-50:], 0)
            spent = time.monotonic() - start
            logger.info("step %d: loss %.3f, kind %.3f, tempo %.3f, %.0f s", step + 1, *mean, spent)
    return net.eval()


def _lessons(pool: TexturePool, training: TextureTraining) -> Iterator[TextureLesson]:
    chance = np.random.default_rng(training.seed)
    for _ in range(training.steps):
        yield draw_lesson(pool, chance, training.batch)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and write the file; 0 when it went well, 2 after a user's mistake."""
    plain = TextureTraining()
    parser = argparse.ArgumentParser(prog="python -m xdyna.training.texture", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument(
        "--pool", type=Path, help="folder of the rendered clips, 262 kB each; by default OUTPUT.pool"
    )
    parser.add_argument("--clips", type=int, default=plain.clips, help="clips to render (%(default)s)")
    parser.add_argument("--steps", type=int, default=plain.steps, help="updates (%(default)s)")
    parser.add_argument("--batch", type=int, default=plain.batch, help="clips an update (%(default)s)")
    parser.add_argument("--rate", type=float, default=plain.rate, help="learning rate (%(default)s)")
    parser.add_argument("--seed", type=int, default=plain.seed, help="0 to 89 (%(default)s)")
    given = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout
    )
    try:
        training = TextureTraining(
            clips=given.clips, seed=given.seed, steps=given.steps, batch=given.batch, rate=given.rate
        )
        pool = open_pool(given.pool or given.output.with_suffix(".pool"), training)
        net = train_texture(pool, training)
        given.output.parent.mkdir(parents=True, exist_ok=True)
        save_texture_net(net, given.output, about=asdict(training))
    except XdynaError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 2
    logger.info("%s: %d bytes", given.output, given.output.stat().st_size)
    return 0


if __name__ == "__main__":
    sys.exit(main())
