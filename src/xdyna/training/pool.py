"""Pools of rendered clips, kept on the training device and refreshed as training uses them up.

Rendering costs time, and every clip can be learned from many times (other frames, other noise): so a pool is filled
once and then refreshed at a set rate. Pictures and condition maps are kept as uint8, latents as they are computed
once by the frozen autoencoder.

A pool is a ring of chunks. Chunk `n` is rendered from seed `base + n`, so a pool's content follows from its cursor
(how many chunks were ever rendered) alone, which is what makes a resumed run equal to one that never stopped.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from xdyna.data.synthetic import HELD_OUT_SEED, make_batch
from xdyna.training.config import DataConfig, LossConfig, StageConfig
from xdyna.training.losses import detail_weights
from xdyna.training.report import background_motion

logger = logging.getLogger(__name__)

LATENT_BATCH = 64
"""Frames encoded at a time."""
RANK_SEEDS = 50_000
"""Seeds of one process: chunks it may render before it meets those of the next."""


Chunk = dict[str, torch.Tensor]


class RenderedChunks(Dataset[Chunk]):
    """Chunks of the synthetic world by number: what a `Pool` keeps, less what follows from it.

    Args:
        data: sizes and shares.
        frames: how many beside the reference.
        scatter: at random moments, or consecutive.
        base: seed of chunk 0.
        device: where to render.
    """

    def __init__(self, data: DataConfig, frames: int, scatter: bool, base: int, device: torch.device) -> None:
        self.data, self.frames, self.scatter, self.base, self.device = data, frames, scatter, base, device

    def __len__(self) -> int:
        return RANK_SEEDS

    @torch.no_grad()
    def __getitem__(self, chunk: int) -> Chunk:
        batch = make_batch(
            self.base + chunk,
            self.data.chunk,
            frames=self.frames,
            size=self.data.size,
            device=self.device,
            human_share=self.data.human_share,
            still_share=self.data.still_share,
            scatter=self.scatter,
        )
        return {
            "frames": _bytes(batch.frames),
            "conditions": _bytes(torch.cat([batch.pose, batch.face_local, batch.face_global], 2)),
            "mask": _bytes(batch.mask),
            "body": batch.body.float(),
            "hands": torch.cat([batch.left_hand, batch.right_hand], 2).float(),
            "head": batch.head.float(),
            "expression": batch.expression.float(),
            "human": batch.human,
        }


class Pool:
    """Clips of one stage.

    Attributes:
        frames: (p 1+f 3 h w) uint8, index 0 = the reference.
        conditions: (p 1+f 9 h w) uint8: pose (3), local face (3), global face (3).
        mask: (p 1+f 1 h w) uint8, the person.
        weights: (p 1+f 1 h/8 w/8) float16, the loss's weights at the latents' size.
        body: (p 1+f 18 3), hands: (p 1+f 42 3), head: (p 1+f 3), expression: (p 1+f 8), all float32 in pixels.
        human: (p,) bool.
        energy: (p,) motion energy of the background (`background_motion`), NaN for scattered frames.
        latents: (p 1+f c h/8 w/8), scaled, once `encode_with` was called; otherwise None.
    """

    def __init__(
        self,
        data: DataConfig,
        stage: StageConfig,
        *,
        loss: LossConfig,
        scatter: bool,
        seed: int,
        device: torch.device,
        unit: int,
        rank: int = 0,
        workers: int = 0,
    ) -> None:
        """
        Args:
            data: sizes and shares.
            stage: how many frames and clips, and how often they are refreshed.
            loss: weights of face, hands and person.
            scatter: frames at random moments instead of consecutive ones.
            seed: the run's seed; different runs see different clips.
            device: where the pool lives and clips are rendered.
            unit: pixels per latent.
            rank: which of several processes this is; each renders clips of its own.
            workers: processes that render fresh clips on the CPU, ahead of their use; 0 renders when they are needed,
                on `device`.
        """
        self.data, self.loss, self.scatter, self.unit, self.device = data, loss, scatter, unit, device
        self.rendered = stage.rendered or stage.frames
        self.chunks = max(1, -(-stage.pool // data.chunk))
        self.refresh = stage.refresh
        # Seeds of one pool: a range of ten million of its own, well below the held-out ones.
        self.base = 10_000_000 * (1 + seed % 70) + (5_000_000 if scatter else 0) + RANK_SEEDS * rank
        assert self.base + RANK_SEEDS <= HELD_OUT_SEED
        self.cursor, self.debt = 0, 0.0
        self.workers = workers
        self._fresh: Iterator[Chunk] | None = None
        self._vae: Any = None
        self._tensors: dict[str, torch.Tensor] = {}

    def __len__(self) -> int:
        return self.chunks * self.data.chunk

    def __getattr__(self, name: str) -> torch.Tensor:
        try:
            return self.__dict__["_tensors"][name]
        except KeyError:
            raise AttributeError(name) from None

    def fill(self, *, cursor: int = 0, cache: Path | None = None) -> None:
        """Render until the pool is full, or until it stands where it stood at `cursor`.

        Args:
            cursor: a `cursor` of earlier; 0 for a fresh pool.
            cache: a file written by `save`; what it holds is not rendered again.
        """
        started, target = time.monotonic(), max(cursor, self.chunks)
        if cache is not None and cache.is_file():
            self._load(cache, limit=target)
        first = self.cursor
        for chunk in range(max(self.cursor, target - self.chunks), target):
            self._render(chunk)
            if chunk % 10 == 9:
                logger.info(
                    "pool: %d of %d clips",
                    (chunk + 1 - first) * self.data.chunk,
                    (target - first) * self.data.chunk,
                )
        if target > first:
            logger.info(
                "pool: %d clips rendered in %.0f s",
                (target - first) * self.data.chunk,
                time.monotonic() - started,
            )

    def use(self, clips: int) -> None:
        """Tell the pool that `clips` clips were trained on: it renders fresh ones as its refresh rate says."""
        self.debt += clips * self.refresh
        while self.debt >= self.data.chunk:
            if self.workers:
                self._fresh = self._fresh or self._render_ahead()
                self._store(self.cursor, next(self._fresh))
            else:
                self._render(self.cursor)
            self.debt -= self.data.chunk

    def close(self) -> None:
        """End the processes that render ahead."""
        self._fresh = None

    def encode_with(self, vae: Any) -> None:
        """Encode every clip, and from now on every fresh one, with the frozen autoencoder `vae`."""
        self._vae = vae
        for chunk in range(self.chunks):
            self._encode(chunk)

    def save(self, path: Path) -> None:
        """Write what was rendered (not the latents) to `path`, for a later `fill`."""
        tensors = {name: value.cpu() for name, value in self._tensors.items() if name != "latents"}
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
            self._tensors = {name: file.get_tensor(name).to(self.device) for name in file.keys()}  # noqa: SIM118
            self.cursor = cursor

    def _fingerprint(self) -> str:
        """Of everything that the rendered clips depend on."""
        parts = (self.data, self.loss, self.scatter, self.rendered, self.chunks, self.base, self.unit)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def _render(self, chunk: int) -> None:
        """Render chunk number `chunk` into its place in the ring."""
        self._store(chunk, self._chunks(self.device)[chunk])

    def _render_ahead(self) -> Iterator[Chunk]:
        """Chunks from the cursor on, rendered on the CPU by other processes, in order."""
        loader = DataLoader(
            self._chunks(torch.device("cpu")),
            batch_size=None,
            sampler=range(self.cursor, RANK_SEEDS),
            num_workers=self.workers,
            prefetch_factor=1,
            pin_memory=self.device.type == "cuda",
            multiprocessing_context="spawn",
        )
        return iter(loader)

    def _chunks(self, device: torch.device) -> RenderedChunks:
        return RenderedChunks(self.data, self.rendered, self.scatter, self.base, device)

    @torch.no_grad()
    def _store(self, chunk: int, rendered: Chunk) -> None:
        """Put a chunk into its place in the ring."""
        fresh = {name: value.to(self.device, non_blocking=True) for name, value in rendered.items()}
        weights = torch.stack(
            [
                detail_weights(mask.float() / 255, head, hands, config=self.loss)
                for mask, head, hands in zip(fresh["mask"], fresh["head"], fresh["hands"], strict=True)
            ]
        )
        small = functional.avg_pool2d(weights.flatten(0, 1), self.unit).unflatten(0, weights.shape[:2])
        fresh["weights"] = small.half()
        fresh["energy"] = self._energy(fresh["frames"], fresh["mask"])
        if not self._tensors:
            self._tensors = {
                name: value.new_zeros((len(self), *value.shape[1:])) for name, value in fresh.items()
            }
        place = self._place(chunk)
        for name, value in fresh.items():
            self._tensors[name][place] = value
        self.cursor = chunk + 1
        if self._vae is not None:
            self._encode(chunk)

    def _energy(self, frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.scatter:
            return torch.full((len(frames),), torch.nan, device=self.device)
        parts = [
            background_motion(clip[None, 1:].float() / 255, person[None, 1:].float() / 255)
            for clip, person in zip(frames, mask, strict=True)
        ]
        return torch.cat(parts)

    @torch.no_grad()
    def _encode(self, chunk: int) -> None:
        assert self._vae is not None
        place = self._place(chunk)
        frames = self.frames[place]
        latents = torch.cat(
            [encode_frames(self._vae, part) for part in frames.flatten(0, 1).split(LATENT_BATCH)]
        )
        latents = latents.unflatten(0, frames.shape[:2])
        if "latents" not in self._tensors:
            self._tensors["latents"] = latents.new_zeros((len(self), *latents.shape[1:]))
        self._tensors["latents"][place] = latents

    def _place(self, chunk: int) -> slice:
        start = (chunk % self.chunks) * self.data.chunk
        return slice(start, start + self.data.chunk)


def encode_frames(vae: Any, frames: torch.Tensor) -> torch.Tensor:
    """Scaled latents, (n c h/8 w/8), of uint8 pictures (n 3 h w): the mean of the posterior, less its shift, scaled."""
    config = vae.config
    with torch.autocast(frames.device.type, dtype=torch.bfloat16, enabled=frames.device.type == "cuda"):
        mean = vae.encode(to_signed(frames)).latent_dist.mean
    return (mean.float() - (config.shift_factor or 0.0)) * config.scaling_factor


def to_signed(frames: torch.Tensor) -> torch.Tensor:
    """uint8 pixels as float32 in [-1, 1]."""
    return frames.float() / 127.5 - 1


def _bytes(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels in [0, 1] as uint8."""
    return (pixels.float().clamp(0, 1) * 255).round().to(torch.uint8)
