"""Pools of clips, kept on the training device and refreshed as training uses them up.

Making a clip costs time, and every clip can be learned from many times (other frames, other noise): so a pool is filled
once and then refreshed at a set rate. Pictures and condition maps are kept as uint8, latents as they are computed
once by the frozen autoencoder.

A pool is a ring of chunks (`chunks.py`), so its content follows from its cursor (how many chunks were ever taken).
"""

from __future__ import annotations

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
from xdyna.training.config import LossConfig
from xdyna.training.losses import detail_weights

logger = logging.getLogger(__name__)

ENCODE_PIXELS = 4_194_304
"""Pixels encoded at a time: 64 frames of 256 x 256."""

Encoder = Callable[[torch.Tensor], torch.Tensor]


class Pool:
    """Clips of one stage.

    Attributes:
        frames: (p 1+f 3 h w) uint8, index 0 = the reference.
        conditions: (p 1+f 9 h w) uint8: pose (3), local face (3), global face (3).
        mask: (p 1+f 1 h w) uint8, the person.
        weights: (p 1+f 1 h/8 w/8) float16, the loss's weights at the latents' size.
        body: (p 1+f 18 3), hands: (p 1+f 42 3), head: (p 1+f 3), expression: (p 1+f 8), all float32 in pixels.
        human: (p,) bool.
        energy: (p,) motion energy of the background, 0..255; NaN for scattered frames.
        latents: (p 1+f c h/8 w/8), scaled, once `encode_with` was called.
        image_features: (p n e) of the references, for models that read CLIP's, or None.
        rendered: f.
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
        workers: int = 0,
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
            workers: processes that make fresh clips on the CPU, ahead of their use; 0 makes them on `device`: on a GPU
                beside the training's work, on a CPU when they are needed.
            patient: wait for fresh clips that are due; otherwise go on with the old ones until there are some.
        """
        self.source, self.chunk, self.rendered, self.refresh = chunks, chunk, frames, refresh
        self.loss, self.scatter, self.device, self.unit = loss, scatter, device, unit
        self.chunks = max(1, -(-clips // chunk))
        self.cursor, self.debt = 0, 0.0
        self.workers, self.patient = workers, patient
        self.image_features: torch.Tensor | None = None
        self._ahead: Ahead | None = None
        self._encoder: Encoder | None = None
        self._image_encoder: Encoder | None = None
        self._names: list[str] = []

    def __len__(self) -> int:
        return self.chunks * self.chunk

    def fill(self, *, cursor: int = 0, cache: Path | None = None) -> None:
        """Make clips until the pool is full, or until it stands where it stood at `cursor`.

        Args:
            cursor: a `cursor` of earlier; 0 for a fresh pool.
            cache: a file written by `save`; what it holds is not made again.
        """
        started, target = time.monotonic(), max(cursor, self.chunks)
        if cache is not None and cache.is_file():
            self._load(cache, limit=target)
        first = self.cursor
        here = self.source.on(self.device)
        for number in range(max(self.cursor, target - self.chunks), target):
            self._store(number, here[number])
            if number % 10 == 9:
                logger.info(
                    "pool: %d of %d clips", (number + 1 - first) * self.chunk, (target - first) * self.chunk
                )
        if target > first:
            seconds = time.monotonic() - started
            logger.info("pool: %d clips made in %.0f s", (target - first) * self.chunk, seconds)

    def use(self, clips: int) -> None:
        """Tell the pool that `clips` clips were trained on: it takes fresh ones as its refresh rate says."""
        self.debt += clips * self.refresh
        while self.debt >= self.chunk:
            fresh = self._fresh()
            if fresh is None:
                self.debt = float(self.chunk)
                return
            self._store(self.cursor, fresh)
            self.debt -= self.chunk

    def _fresh(self) -> Chunk | None:
        """The next chunk; None if it is late and nobody waits for it."""
        if not self.workers and self.device.type == "cpu":
            return self.source.on(self.device)[self.cursor]
        if self._ahead is None:
            self._ahead = Ahead(self.source, self.cursor, device=self.device, workers=self.workers)
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
        for number in range(self.chunks):
            self._encode(number)

    def save(self, path: Path) -> None:
        """Write what was made (not the latents) to `path`, for a later `fill`."""
        tensors = {name: getattr(self, name).cpu() for name in self._names}
        temporary = path.with_suffix(".tmp")
        save_file(
            tensors, temporary, metadata={"fingerprint": self._fingerprint(), "cursor": str(self.cursor)}
        )
        temporary.replace(path)

    def _load(self, path: Path, *, limit: int) -> None:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            cursor = int(metadata.get("cursor", 0))
            if metadata.get("fingerprint") != self._fingerprint() or cursor > limit:
                return
            self._names = list(file.keys())
            for name in self._names:
                setattr(self, name, file.get_tensor(name).to(self.device))
            self.cursor = cursor

    def _fingerprint(self) -> str:
        """Of everything that the content depends on, but the cursor."""
        parts = (self.source.fingerprint(), self.loss, self.chunks, self.unit)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    @torch.no_grad()
    def _store(self, number: int, made: Chunk) -> None:
        """Put a chunk into its place in the ring."""
        fresh = {name: value.to(self.device, non_blocking=True) for name, value in made.items()}
        weights = torch.stack(
            [
                detail_weights(mask.float() / 255, head, hands, config=self.loss)
                for mask, head, hands in zip(fresh["mask"], fresh["head"], fresh["hands"], strict=True)
            ]
        )
        small = functional.avg_pool2d(weights.flatten(0, 1), self.unit).unflatten(0, weights.shape[:2])
        fresh["weights"] = small.half()
        if "energy" not in fresh:
            fresh["energy"] = self._energy(fresh["frames"], fresh["mask"])
        if not self._names:
            self._names = list(fresh)
            for name, value in fresh.items():
                setattr(self, name, value.new_zeros((len(self), *value.shape[1:])))
        place = self._place(number)
        for name, value in fresh.items():
            getattr(self, name)[place] = value
        self.cursor = number + 1
        self._encode(number)

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
    def _encode(self, number: int) -> None:
        if self._encoder is None:
            return
        place = self._place(number)
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
