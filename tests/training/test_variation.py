from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from xdyna.training.chunks import Chunk, SyntheticChunks
from xdyna.training.config import TrainConfig
from xdyna.training.pool import Pool, Standing
from xdyna.training.variation import vary


@pytest.fixture
def chunk(smoke_config: TrainConfig) -> Chunk:
    """Two rendered clips."""
    data = dataclasses.replace(smoke_config.data, chunk=2)
    made = SyntheticChunks(dataclasses.replace(smoke_config, data=data), 3, scatter=False)[0]
    return dict(made)


def spot(x: float, y: float, *, clips: int = 40) -> Chunk:
    """Clips of 64 x 48 (w x h) with a white disc at (x, y), and everything that points at it."""
    down, across = torch.meshgrid(torch.arange(48) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    disc = ((across - x) ** 2 + (down - y) ** 2 < 9).to(torch.uint8) * 255
    pictures = disc.expand(clips, 2, 3, 48, 64)
    point = torch.tensor([x, y, 1.0])
    return {
        "frames": pictures,
        "conditions": pictures.repeat(1, 1, 3, 1, 1),
        "mask": pictures[:, :, :1],
        "body": point.expand(clips, 2, 18, 3),
        "hands": point.expand(clips, 2, 42, 3),
        "head": torch.tensor([x, y, 3.0]).expand(clips, 2, 3),
        "expression": torch.zeros(clips, 2, 8),
        "human": torch.ones(clips).bool(),
        "energy": torch.full((clips,), 2.0),
    }


def centre(mask: torch.Tensor) -> torch.Tensor:
    """(n h w) uint8 -> (n 2) centres x, y of what is bright."""
    weight = mask.float()
    down, across = torch.meshgrid(
        torch.arange(weight.shape[1]) + 0.5, torch.arange(weight.shape[2]) + 0.5, indexing="ij"
    )
    total = weight.sum((1, 2))
    return torch.stack([(weight * across).sum((1, 2)) / total, (weight * down).sum((1, 2)) / total], -1)


def test_points_move_with_the_pixels_that_they_point_at() -> None:
    varied = vary(spot(30, 22), 7)
    places = centre(varied["mask"][:, 0, 0])
    assert torch.allclose(places, varied["body"][:, 0, 3, :2], atol=0.15)
    assert torch.equal(varied["body"][..., :2][:, :, 0], varied["head"][..., :2])
    assert torch.equal(varied["body"][:, :, 0], varied["hands"][:, :, 5])
    assert (places - torch.tensor([30.0, 22.0])).norm(dim=1).max() > 2, "none moved"
    areas = (varied["mask"][:, 0, 0].float().sum((1, 2)) / varied["mask"][:, 0, 0].amax().float()).sqrt()
    grown = varied["head"][:, 0, 2] / 3
    assert torch.allclose(areas / areas.min(), grown / grown.min(), atol=0.1)
    assert grown.min() == 1
    assert grown.max() > 1.2


def test_what_stands_still_still_does_and_all_frames_go_together(chunk: Chunk) -> None:
    still = {
        name: value[:, :1].expand_as(value) if value.dim() > 1 else value for name, value in chunk.items()
    }
    varied = vary(still, 3)
    for name in ("frames", "conditions", "mask", "body", "head"):
        assert torch.equal(varied[name][:, 0], varied[name][:, -1]), name
    assert not torch.equal(varied["frames"], still["frames"])


def test_pose_colours_and_blank_conditions_stay(chunk: Chunk) -> None:
    lonely = {**chunk, "conditions": torch.zeros_like(chunk["conditions"])}
    assert not vary(lonely, 1)["conditions"].any()
    clips = spot(32, 24)
    clips["conditions"] = clips["conditions"] // 2
    varied = vary(clips, 1)
    pose, faces = varied["conditions"][:, 0, :3], varied["conditions"][:, 0, 3:]
    assert (pose.amax((1, 2, 3)) >= 126).all(), "a pose map keeps its brightness"
    assert (pose.amax((1, 2, 3)) <= 127).all()
    assert torch.equal(faces[:, :3], faces[:, 3:]), "both patches are of one face"
    assert len(faces.amax((1, 2, 3)).unique()) > 5


def test_a_seed_says_it_all_and_types_stay(chunk: Chunk) -> None:
    one, same, other = vary(chunk, 1), vary(chunk, 1), vary(chunk, 2)
    for name, value in chunk.items():
        assert one[name].shape == value.shape
        assert one[name].dtype == value.dtype
        assert torch.equal(one[name].nan_to_num(), same[name].nan_to_num())
    assert not torch.equal(one["frames"], other["frames"])


def test_the_window_never_leaves_the_picture() -> None:
    full = spot(32, 24, clips=60)
    outside = torch.zeros_like(full["mask"])
    outside[..., :1, :] = 255
    shown = vary({**full, "mask": outside}, 5)["mask"].float().mean((1, 2, 3, 4))
    assert shown.max() <= 255 / 48 * 1.5, "the border row is never smeared over more than itself"


def pool(config: TrainConfig, *, vary: float) -> Pool:
    return Pool(
        SyntheticChunks(config, 2, scatter=True), 4, chunk=config.data.chunk, frames=2, refresh=0.25,
        loss=config.loss, scatter=True, device=torch.device("cpu"), unit=8, vary=vary,
    )  # fmt: skip


def test_a_pool_shows_its_clips_anew_at_the_set_rate(smoke_config: TrainConfig) -> None:
    one = pool(smoke_config, vary=0.5)
    one.refresh = 0.0
    one.fill()
    one.encode_with(lambda frames: frames[..., ::8, ::8].float())
    before = one.frames.clone()
    one.use(2)
    assert torch.equal(one.frames, before)
    one.use(2)
    assert not torch.equal(one.frames[:2], before[:2])
    assert torch.equal(one.frames[2:], before[2:])
    assert torch.equal(one.latents, one.frames[..., ::8, ::8].float())


def test_where_a_varied_pool_stands_brings_it_back(smoke_config: TrainConfig, tmp_path: Path) -> None:
    one = pool(smoke_config, vary=0.5)
    one.fill()
    for _ in range(7):
        one.use(2)
    one.save(tmp_path / "pool.safetensors")
    standing = Standing(**dataclasses.asdict(one.standing))
    for cache in (None, tmp_path / "pool.safetensors"):
        other = pool(smoke_config, vary=0.5)
        other.fill(standing, cache=cache)
        assert other.standing == one.standing
        for name in ("frames", "conditions", "weights", "body", "head"):
            assert torch.equal(getattr(other, name), getattr(one, name)), name


def test_without_variation_clips_are_shown_as_made(smoke_config: TrainConfig) -> None:
    one = pool(smoke_config, vary=0.0)
    one.fill()
    assert torch.equal(one.frames[:2], one.source[0]["frames"])
    assert one.frames.data_ptr() == one._made["frames"].data_ptr(), "kept once only"
