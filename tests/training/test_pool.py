from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from xdyna.training.ahead import Ahead
from xdyna.training.chunks import Chunk, SyntheticChunks
from xdyna.training.config import TrainConfig
from xdyna.training.pool import Pool


def make_pool(config: TrainConfig, *, refresh: float = 0.5, scatter: bool = True, seed: int = 1) -> Pool:
    return pool_of(dataclasses.replace(config, seed=seed), refresh=refresh, scatter=scatter, clips=4)


def pool_of(config: TrainConfig, *, refresh: float, scatter: bool, clips: int, workers: int = 0) -> Pool:
    chunks = SyntheticChunks(config, 2, scatter=scatter)
    return Pool(
        chunks, clips, chunk=config.data.chunk, frames=2, refresh=refresh, loss=config.loss, scatter=scatter,
        device=torch.device("cpu"), unit=8, workers=workers,
    )  # fmt: skip


def test_a_pool_holds_what_its_attributes_say(smoke_config: TrainConfig) -> None:
    pool = make_pool(smoke_config)
    pool.fill()
    assert len(pool) == 4
    assert pool.frames.shape == (4, 3, 3, 64, 64)
    assert pool.frames.dtype == pool.conditions.dtype == torch.uint8
    assert pool.conditions.shape == (4, 3, 9, 64, 64)
    assert pool.weights.shape == (4, 3, 1, 8, 8)
    assert (pool.weights >= 1).all()
    assert not pool.conditions[~pool.human].any(), "scenes have blank conditions"
    with pytest.raises(AttributeError):
        _ = pool.latents


def test_use_renders_fresh_clips_at_the_set_rate(smoke_config: TrainConfig) -> None:
    pool = make_pool(smoke_config, refresh=0.5)
    pool.fill()
    before = pool.frames.clone()
    pool.use(3)
    assert torch.equal(pool.frames, before), "1.5 clips are owed: less than a chunk"
    pool.use(1)
    assert not torch.equal(pool.frames[:2], before[:2])
    assert torch.equal(pool.frames[2:], before[2:])


def test_where_it_stands_brings_a_pool_back(smoke_config: TrainConfig, tmp_path: Path) -> None:
    pool = make_pool(smoke_config)
    pool.fill()
    pool.save(tmp_path / "early.safetensors")
    pool.use(4)
    pool.save(tmp_path / "late.safetensors")
    for cache in (None, tmp_path / "early.safetensors", tmp_path / "late.safetensors"):
        other = make_pool(smoke_config)
        other.fill(pool.standing, cache=cache)
        assert torch.equal(other.frames, pool.frames)
        assert torch.equal(other.conditions, pool.conditions)


def test_another_pools_cache_is_not_taken(smoke_config: TrainConfig, tmp_path: Path) -> None:
    pool, other = make_pool(smoke_config), make_pool(smoke_config, seed=2)
    pool.fill()
    pool.save(tmp_path / "pool.safetensors")
    other.fill(cache=tmp_path / "pool.safetensors")
    assert not torch.equal(pool.frames, other.frames)


def test_clips_rendered_ahead_by_other_processes_are_the_same(smoke_config: TrainConfig) -> None:
    def used(workers: int) -> Pool:
        made = pool_of(smoke_config, refresh=1.0, scatter=True, clips=2, workers=workers)
        made.fill()
        for _ in range(2):
            made.use(smoke_config.data.chunk)
        made.close()
        return made

    here, ahead = used(0), used(1)
    assert here.standing.cursor == ahead.standing.cursor == here.chunks + 2
    assert torch.equal(here.frames, ahead.frames)
    assert torch.equal(here.weights, ahead.weights)


def test_chunks_made_ahead_by_a_thread_are_the_same(smoke_config: TrainConfig) -> None:
    source = SyntheticChunks(smoke_config, 2, scatter=True)
    ahead = Ahead(source, 3, device=torch.device("cpu"), workers=0)
    for number in (3, 4):
        made = ahead.take(wait=True)
        assert made is not None
        assert torch.equal(made["frames"], source[number]["frames"])
    ahead.close()


def test_an_impatient_pool_goes_on_with_old_clips(smoke_config: TrainConfig) -> None:
    pool = make_pool(smoke_config, refresh=1.0)
    pool.patient = False
    pool.fill()
    before, cursor, chunk = pool.frames.clone(), pool.standing.cursor, pool.source[pool.standing.cursor]
    late = Late()
    pool._ahead = late  # type: ignore[assignment]
    pool.workers = 1
    for _ in range(50):
        pool.use(2)
    assert torch.equal(pool.frames, before)
    late.chunk = chunk
    pool.use(1)
    assert pool.standing.cursor == cursor + 1, "what was owed meanwhile is one chunk, not fifty"
    assert torch.equal(pool.frames[:2], chunk["frames"])


class Late:
    """Stands for an `Ahead` whose chunk comes when the test says so."""

    chunk: Chunk | None = None

    def take(self, *, wait: bool) -> Chunk | None:
        assert not wait
        made, self.chunk = self.chunk, None
        return made


def test_what_fails_beside_the_training_is_heard_of(smoke_config: TrainConfig) -> None:
    class Broken(SyntheticChunks):
        def __getitem__(self, chunk: int) -> Chunk:
            raise ValueError("no such clip")

        def on(self, device: torch.device) -> SyntheticChunks:
            return self

    ahead = Ahead(Broken(smoke_config, 2, scatter=True), 0, device=torch.device("cpu"), workers=0)
    with pytest.raises(ValueError, match="no such clip"):
        ahead.take(wait=True)
    ahead.close()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_makes_clips_beside_other_work(smoke_config: TrainConfig) -> None:
    device = torch.device("cuda", 0)
    source = SyntheticChunks(smoke_config, 2, scatter=True, device=device)
    ahead = Ahead(source, 0, device=device, workers=0)
    work = torch.randn(2048, 2048, device=device)
    for number in range(3):
        for _ in range(50):
            work = work @ work / 2048
        made = ahead.take(wait=True)
        assert made is not None
        assert torch.equal(made["frames"], source[number]["frames"])
    ahead.close()
