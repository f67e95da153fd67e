from __future__ import annotations

import dataclasses

import pytest
import torch

from xdyna.conditions.draw import draw_pose
from xdyna.conditions.keypoints import Keypoints
from xdyna.errors import OptionError
from xdyna.training.chunks import Chunk
from xdyna.training.closeups import REACH, close_up
from xdyna.training.config import TrainConfig
from xdyna.training.config_file import build_config, to_dict
from xdyna.training.pool import Pool

SIZE = 128


def walk(*, clips: int = 12, half: float = 10.0, frames: int = 5) -> Chunk:
    """Clips of 128 x 128 in which a bright disc, the head, walks to the right."""
    moments = torch.arange(frames + 1)
    across = 50 + 2.0 * moments
    head = torch.stack([across, torch.full_like(across, 60), torch.full_like(across, half)], -1)
    line = torch.arange(SIZE) + 0.5
    disc = ((line - across[:, None, None]) ** 2 + (line[:, None] - 60) ** 2 < half**2).to(torch.uint8) * 255
    pictures = disc[:, None].expand(clips, frames + 1, 3, SIZE, SIZE)
    body = torch.cat([head[:, None, :2].expand(-1, 18, -1), torch.ones(frames + 1, 18, 1)], -1).clone()
    body[:, 2:8, 1] += 25.0
    body[:, 2:5, 0] -= 12.0
    body[:, 5:8, 0] += 12.0
    body[:, 10:] = 0
    return {
        "frames": pictures,
        "conditions": pictures.repeat(1, 1, 3, 1, 1),
        "mask": pictures[:, :, :1],
        "body": body.expand(clips, -1, -1, -1),
        "hands": torch.zeros(clips, frames + 1, 42, 3),
        "head": head.expand(clips, -1, -1),
        "expression": torch.rand(clips, frames + 1, 8),
        "human": torch.ones(clips).bool(),
        "energy": torch.full((clips,), 2.0),
    }


def test_points_and_pixels_go_together_and_the_head_is_large_and_near_the_middle() -> None:
    chunk = walk()
    near = close_up(chunk, 3, share=1.0, scatter=False)
    assert all(
        near[name].shape == value.shape and near[name].dtype == value.dtype for name, value in chunk.items()
    )
    head, line = near["head"], torch.arange(SIZE) + 0.5
    weight = near["mask"][:, :, 0].float()
    places = torch.stack([(weight * line).sum((2, 3)), (weight * line[:, None]).sum((2, 3))], -1)
    places = places / weight.sum((2, 3))[..., None]
    assert torch.allclose(places, head[..., :2], atol=0.7)
    radius = (weight.sum((2, 3)) / 255 / torch.pi).sqrt()
    assert torch.allclose(radius, head[..., 2], rtol=0.03)
    assert (head[..., 2] >= SIZE / REACH[1] - 0.01).all()
    assert (head[..., 2] <= SIZE / REACH[0] + 0.01).all()
    assert len(head[:, 0, 2].round().unique()) > 5, "windows differ in size"
    assert ((head[..., :2] - SIZE / 2).abs() < 0.2 * SIZE).all()
    assert torch.equal(near["body"][:, :, 0, :2], head[..., :2])
    assert not near["body"][:, :, 10:].any(), "points that are not there stay so"
    assert near["energy"].isnan().all()
    assert torch.equal(near["expression"], chunk["expression"])


def test_poses_are_drawn_anew_where_the_points_are() -> None:
    near = close_up(walk(), 3, share=1.0, scatter=False)
    hands = torch.zeros(6, 21, 3).numpy()
    for clip in (0, 7):
        points = Keypoints(
            body=near["body"][clip].numpy(), left_hand=hands, right_hand=hands,
            face=torch.zeros(6, 68, 3).numpy(), size=(SIZE, SIZE),
        )  # fmt: skip
        for frame in (0, 3):
            drawn = torch.from_numpy(draw_pose(points, frame)).permute(2, 0, 1)
            made = near["conditions"][clip, frame, :3]
            assert (drawn.float() - made.float()).abs().mean() < 1.0
            assert made.any()


def test_landmarks_are_drawn_anew_too() -> None:
    chunk = walk()
    bare = close_up(chunk, 3, share=1.0, scatter=False)
    face = torch.cat(
        [chunk["head"][:, :, None, :2].expand(-1, -1, 68, -1), torch.ones(12, 6, 68, 1)], -1
    ).clone()
    face[..., 0] += torch.linspace(-6, 6, 68)
    near = close_up({**chunk, "face": face}, 3, share=1.0, scatter=False)
    spread = near["face"][..., 0].amax(2) - near["face"][..., 0].amin(2)
    assert torch.allclose(spread, 12 * near["head"][..., 2] / 10, rtol=1e-3)
    added = (near["conditions"][:, :, :3] != bare["conditions"][:, :, :3]).any(2)
    for clip, frame in ((0, 0), (5, 3), (11, 5)):
        places = near["face"][clip, frame, :, :2].floor().long()
        assert added[clip, frame, places[:, 1], places[:, 0]].float().mean() > 0.9
    assert torch.equal(bare["frames"], near["frames"])


def test_windows_follow_scattered_moments_one_by_one() -> None:
    chunk = walk(frames=6)
    order = torch.tensor([0, 6, 1, 5, 2, 4, 3])
    shuffled = {name: value[:, order] if value.dim() > 1 else value for name, value in chunk.items()}
    near = close_up(shuffled, 1, share=1.0, scatter=True)["head"]
    assert torch.allclose(near[:, 1:, :2], near[:, 1:2, :2].expand_as(near[:, 1:, :2]), atol=0.05)


def test_what_has_no_small_head_stays() -> None:
    large, tiny, empty = walk(half=40.0), walk(half=4.0), walk()
    empty["human"] = torch.zeros(12).bool()
    gone = walk()
    gone["head"] = gone["head"].clone()
    gone["head"][:, 4, 0] = 140.0
    for chunk in (large, tiny, empty, gone):
        assert close_up(chunk, 1, share=1.0, scatter=False) is chunk
    some = close_up(walk(clips=40), 5, share=0.5, scatter=False)
    assert 8 < int(some["energy"].isnan().sum()) < 32
    assert torch.equal(
        some["frames"][~some["energy"].isnan()], walk(clips=40)["frames"][~some["energy"].isnan()]
    )


def test_the_seed_says_it_all() -> None:
    one, same, other = (close_up(walk(), seed, share=0.7, scatter=False) for seed in (1, 1, 2))
    assert torch.equal(one["frames"], same["frames"])
    assert not torch.equal(one["frames"], other["frames"])


def test_a_pool_shows_close_ups(smoke_config: TrainConfig) -> None:
    class Source:
        def on(self, device: torch.device) -> Source:
            return self

        def __getitem__(self, number: int) -> Chunk:
            return walk(clips=2, frames=2)

        def fingerprint(self) -> str:
            return "walk"

    def shown(close_ups: float) -> Pool:
        pool = Pool(
            Source(), 4, chunk=2, frames=2, refresh=0.0, loss=smoke_config.loss, scatter=False,  # type: ignore[arg-type]
            device=torch.device("cpu"), unit=8, vary=0.5, close_ups=close_ups,
        )  # fmt: skip
        pool.fill()
        return pool

    assert (shown(1.0).head[..., 2] > 20).all()
    assert (shown(0.0).head[..., 2] < 20).all()


def test_close_ups_need_variation(smoke_config: TrainConfig) -> None:
    data = dataclasses.replace(smoke_config.data, close_up=0.5, vary=0.0)
    with pytest.raises(OptionError, match="close_up of synthetic clips needs"):
        build_config(to_dict(dataclasses.replace(smoke_config, data=data)), source="test")
