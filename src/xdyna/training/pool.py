"""Pools of clips, kept on the training device and refreshed as training uses them up.

Making a clip costs time, and every clip can be learned from many times (other frames, other noise): so a pool is filled
once and then refreshed at a set rate. Pictures and condition maps are kept as uint8, latents as they are computed
once by the frozen autoencoder.

A pool is a ring of chunks (`chunks.py`), so what it keeps follows from its cursor (how many chunks were ever taken).
How that is shown, if clips are varied (`variation.py`), follows from one number for each place of the ring.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save_file
from torch.nn import functional

from xdyna.evaluation.scene_motion import background_motion
from xdyna.training.ahead import Ahead
from xdyna.training.chunks import Chunk, Chunks
from xdyna.training.closeups import close_up
from xdyna.training.config import LossConfig
from xdyna.training.losses import detail_weights
from xdyna.training.variation import vary

logger = logging.getLogger(__name__)

ENCODE_PIXELS = 4_194_304
"""Pixels encoded at a time: 64 frames of 256 x 256."""

Encoder = Callable[[torch.Tensor], torch.Tensor]


@dataclasses.dataclass
class Standing:
    """Where a pool stands, and all that its content depends on beside its settings.

    Attributes:
        cursor: how many chunks were ever taken.
        debt: fresh clips that are due.
        unvaried: kept clips that are due to be varied anew.
        turn: chunks ever varied anew; the ring's next place is this one's.
        shown: chunks ever shown, fresh or anew, which is the next one's seed.
        seeds: of what each place shows.
    """

    cursor: int = 0
    debt: float = 0.0
    unvaried: float = 0.0
    turn: int = 0
    shown: int = 0
    seeds: list[int] = dataclasses.field(default_factory=list)


class Pool:
    """Clips of one stage.

    Attributes:
        frames: (p 1+f 3 h w) uint8, index 0 = the reference.
        conditions: (p 1+f 9 h w) uint8: pose (3), local face (3), global face (3).
        mask: (p 1+f 1 h w) uint8, the person.
        weights: (p 1+f 1 h/8 w/8) float16, the loss's weights at the latents' size.
        body: (p 1+f 18 3), hands: (p 1+f 42 3), head: (p 1+f 3), expression: (p 1+f 8), all float32 in pixels;
            face: (p 1+f 68 3), only where landmarks are drawn into the pose maps.
        human: (p,) bool.
        energy: (p,) motion energy of the background, 0..255; NaN for scattered frames.
        latents: (p 1+f c h/8 w/8), scaled, once `encode_with` was called.
        image_features: (p n e) of the references, for models that read CLIP's, or None.
        rendered: f.
        standing: where it stands; the clips it was made of are kept apart where they are varied.
    """

    frames: torch.Tensor
    conditions: torch.Tensor
    mask: torch.Tensor
    weights: torch.Tensor
    body: torch.Tensor
    hands: torch.Tensor
    head: torch.Tensor
    expression: torch.Tensor
    human: torch.Tensor
    energy: torch.Tensor
    latents: torch.Tensor

    def __init__(
        self,
        chunks: Chunks,
        clips: int,
        *,
        chunk: int,
        frames: int,
        refresh: float,
        loss: LossConfig,
        scatter: bool,
        device: torch.device,
        unit: int,
        vary: float = 0.0,
        close_ups: float = 0.0,
        workers: int = 0,
        both: bool = False,
        patient: bool = True,
    ) -> None:
        """
        Args:
            chunks: where clips come from.
            clips: how many to hold; rounded up to whole chunks.
            chunk: clips of one chunk.
            frames: frames of a clip beside the reference.
            refresh: fresh clips for each that was trained on.
            loss: weights of face, hands and person.
            scatter: the frames are of random moments.
            device: where the pool lives and synthetic clips are rendered.
            unit: pixels per latent.
            vary: kept clips that are varied anew for each that was trained on; 0 shows all as they were made.
            close_ups: share of the clips with a person that show the head alone, where it is small; with `vary`.
            workers: processes that make fresh clips on the CPU, ahead of their use; 0 makes them on `device`: on a GPU
                beside the training's work, on a CPU when they are needed.
            both: with `workers`, make some on `device` too, in no certain order.
            patient: wait for fresh clips that are due; otherwise go on with the old ones until there are some.
        """
        self.source, self.chunk, self.rendered, self.refresh = chunks, chunk, frames, refresh
        self.loss, self.scatter, self.device, self.unit = loss, scatter, device, unit
        self.chunks = max(1, -(-clips // chunk))
        self.standing = Standing()
        self.vary, self.workers, self.both, self.patient = vary, workers, both, patient
        self.close_ups = close_ups
        self.image_features: torch.Tensor | None = None
        self._ahead: Ahead | None = None
        self._encoder: Encoder | None = None
        self._image_encoder: Encoder | None = None
        self._made: Chunk = {}

    def __len__(self) -> int:
        return self.chunks * self.chunk

    def fill(self, standing: Standing | None = None, *, cache: Path | None = None) -> None:
        """Make clips until the pool is full, or until it stands where it stood.

        Args:
            standing: a `standing` of earlier; None for a fresh pool.
            cache: a file written by `save`; what it holds is not made again.
        """
        started = time.monotonic()
        aim = standing or Standing(cursor=self.chunks, shown=self.chunks)
        seeds = list(aim.seeds) if len(aim.seeds) == self.chunks else list(range(self.chunks))
        self.standing = dataclasses.replace(aim, cursor=0, seeds=seeds)
        if cache is not None and cache.is_file():
            self._load(cache, limit=aim.cursor)
        first = max(self.standing.cursor, aim.cursor - self.chunks)
        here = self.source.on(self.device)
        for number in range(first, aim.cursor):
            self._keep(number, here[number])
            done = number + 1 - first
            if done % 10 == 0:
                logger.info("pool: %d of %d clips", done * self.chunk, (aim.cursor - first) * self.chunk)
        for place in range(self.chunks):
            self._show(place)
        if aim.cursor > first:
            seconds = time.monotonic() - started
            logger.info("pool: %d clips made in %.0f s", (aim.cursor - first) * self.chunk, seconds)

    def use(self, clips: int) -> None:
        """Tell the pool that `clips` clips were trained on: it takes fresh ones, and varies those that it has, as its
        rates say."""
        standing = self.standing
        standing.debt += clips * self.refresh
        while standing.debt >= self.chunk:
            fresh = self._fresh()
            if fresh is None:
                standing.debt = float(self.chunk)
                break
            place = standing.cursor % self.chunks
            self._keep(standing.cursor, fresh)
            self._show_anew(place)
            standing.debt -= self.chunk
        standing.unvaried += clips * self.vary
        while standing.unvaried >= self.chunk:
            self._show_anew(standing.turn % self.chunks)
            standing.turn += 1
            standing.unvaried -= self.chunk

    def _fresh(self) -> Chunk | None:
        """The next chunk; None if it is late and nobody waits for it."""
        if not self.workers and self.device.type == "cpu":
            return self.source.on(self.device)[self.standing.cursor]
        if self._ahead is None:
            self._ahead = Ahead(
                self.source,
                self.standing.cursor,
                device=self.device,
                workers=self.workers,
                both=self.both,
            )
        return self._ahead.take(wait=self.patient)

    def close(self) -> None:
        """End what makes clips ahead."""
        if self._ahead is not None:
            self._ahead.close()
        self._ahead = None

    def encode_with(self, encoder: Encoder, *, image_encoder: Encoder | None = None) -> None:
        """Encode every clip, and from now on every fresh one.

        Args:
            encoder: uint8 pictures (n 3 h w) -> scaled latents (n c h/8 w/8).
            image_encoder: uint8 references (n 3 h w) -> CLIP's features (n m e).
        """
        self._encoder, self._image_encoder = encoder, image_encoder
        for place in range(self.chunks):
            self._encode(place)

    def save(self, path: Path) -> None:
        """Write what was made (as it was made, without latents) to `path`, for a later `fill`."""
        tensors = {name: value.cpu() for name, value in self._made.items()}
        temporary = path.with_suffix(".tmp")
        cursor = str(self.standing.cursor)
        save_file(tensors, temporary, metadata={"fingerprint": self._fingerprint(), "cursor": cursor})
        temporary.replace(path)

    def _load(self, path: Path, *, limit: int) -> None:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            cursor = int(metadata.get("cursor", 0))
            if metadata.get("fingerprint") != self._fingerprint() or cursor > limit:
                return
            self._made = {name: file.get_tensor(name).to(self.device) for name in file.keys()}  # noqa: SIM118
            self.standing.cursor = cursor

    def _fingerprint(self) -> str:
        """Of everything that the content depends on, but where the pool stands."""
        parts = ("made", self.source.fingerprint(), self.chunks, self.unit)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    @torch.no_grad()
    def _keep(self, number: int, made: Chunk) -> None:
        """Put the chunk of that number into its place in the ring."""
        fresh = {name: value.to(self.device, non_blocking=True) for name, value in made.items()}
        if "energy" not in fresh:
            fresh["energy"] = self._energy(fresh["frames"], fresh["mask"])
        place = self._place(number)
        for name, value in fresh.items():
            if name not in self._made:
                self._made[name] = value.new_zeros((len(self), *value.shape[1:]))
            self._made[name][place] = value
        self.standing.cursor = number + 1

    def _show_anew(self, place: int) -> None:
        self.standing.seeds[place] = self.standing.shown
        self.standing.shown += 1
        self._show(place)

    @torch.no_grad()
    def _show(self, place: int) -> None:
        """Take what is kept at that place of the ring to train on, varied if that is wanted."""
        where = self._place(place)
        shown = {name: value[where] for name, value in self._made.items()}
        if self.vary:
            seed = self.standing.seeds[place]
            if self.close_ups:
                shown = close_up(shown, seed, share=self.close_ups, scatter=self.scatter)
            shown = vary(shown, seed)
        weights = torch.stack(
            [
                detail_weights(mask.float() / 255, head, hands, config=self.loss)
                for mask, head, hands in zip(shown["mask"], shown["head"], shown["hands"], strict=True)
            ]
        )
        small = functional.avg_pool2d(weights.flatten(0, 1), self.unit).unflatten(0, weights.shape[:2])
        shown["weights"] = small.half()
        for name, value in shown.items():
            if not hasattr(self, name):
                as_made = not self.vary and name in self._made
                whole = self._made[name] if as_made else value.new_zeros((len(self), *value.shape[1:]))
                setattr(self, name, whole)
            if self.vary or name not in self._made:
                getattr(self, name)[where] = value
        self._encode(place)

    def _energy(self, frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Of filmed clips: how much changes outside the person."""
        if self.scatter:
            return torch.full((len(frames),), torch.nan, device=self.device)
        parts = [
            background_motion(clip[None, 1:].float() / 255, person[None, 1:].float() / 255)
            for clip, person in zip(frames, mask, strict=True)
        ]
        return torch.cat(parts)

    @torch.no_grad()
    def _encode(self, ring_place: int) -> None:
        if self._encoder is None:
            return
        place = self._place(ring_place)
        frames = self.frames[place]
        at_once = max(1, ENCODE_PIXELS // (frames.shape[-1] * frames.shape[-2]))
        latents = torch.cat([self._encoder(part) for part in frames.flatten(0, 1).split(at_once)])
        latents = latents.unflatten(0, frames.shape[:2])
        if not hasattr(self, "latents"):
            self.latents = latents.new_zeros((len(self), *latents.shape[1:]))
        self.latents[place] = latents
        if self._image_encoder is not None:
            features = self._image_encoder(frames[:, 0]).half()
            if self.image_features is None:
                self.image_features = features.new_zeros((len(self), *features.shape[1:]))
            self.image_features[place] = features

    def _place(self, number: int) -> slice:
        start = (number % self.chunks) * self.chunk
        return slice(start, start + self.chunk)


def to_signed(frames: torch.Tensor) -> torch.Tensor:
    """uint8 pixels as float32 in [-1, 1]."""
    return frames.float() / 127.5 - 1
