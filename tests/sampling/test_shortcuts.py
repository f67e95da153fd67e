"""Deep features reused across steps, and guidance in an interval: what runs, what is reused, what comes out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.tiny import tiny_components
from xdyna.models import XDynaUNet
from xdyna.sampling import (
    Controls,
    Networks,
    Shortcuts,
    Tokens,
    WindowPlan,
    denoise,
    make_scheduler,
    set_timesteps,
    start_latents,
)
from xdyna.sampling import controls as signals
from xdyna.sampling import shortcuts as module

FRAMES, SIDE, STEPS = 7, 8, 6


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    return tiny_components()


@contextmanager
def counted(*networks: nn.Module) -> Iterator[list[list[int]]]:
    """How many clips or pictures each call of some modules got."""
    calls: list[list[int]] = [[] for _ in networks]
    hooks = [
        network.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(len(given[0])))
        for network, seen in zip(networks, calls, strict=True)
    ]
    yield calls
    for hook in hooks:
        hook.remove()


def run(parts: dict[str, Any], *, steps: int = STEPS, loop: str = "closed", **changes: Any) -> Tensor:
    scheduler = make_scheduler(None, parts["scheduler"])
    set_timesteps(scheduler, steps, torch.device("cpu"))
    generator = torch.Generator().manual_seed(3)
    reference = torch.randn(1, 4, SIDE, SIDE, generator=generator)
    latents = start_latents(reference, FRAMES, scheduler, generator=generator)
    pictures = {
        channels: torch.rand(1, FRAMES, channels, 8 * SIDE, 8 * SIDE, generator=generator)
        for channels in (3, 6)
    }
    settings: dict[str, Any] = {
        "controls": Controls(lambda picks: pictures[3][:, picks], lambda picks: pictures[6][:, picks]),
        "plan": WindowPlan(4, 1, loop),
        "generator": generator,
    }
    networks = Networks(parts["unet"], parts["pose_controlnet"], parts["face_controlnet"])
    with torch.inference_mode():
        return denoise(networks, scheduler, reference=reference, latents=latents, **(settings | changes))


def test_a_pass_over_kept_features_of_the_same_clip_is_the_whole_pass(parts: dict[str, Any]) -> None:
    unet = parts["unet"]
    sample, time = torch.randn(1, 4, 5, SIDE, SIDE), torch.tensor(400)
    with torch.inference_mode():
        down = [
            0.1 * torch.randn(1, 16, 5, SIDE >> int(place > 1), SIDE >> int(place > 1)) for place in range(4)
        ]
        mid = 0.1 * torch.randn(1, 16, 5, SIDE // 2, SIDE // 2)
        whole = unet(sample, time, down_residuals=down, mid_residual=mid)
        again, deep = unet(sample, time, down_residuals=down, mid_residual=mid, keep_deep=True)
        reused = unet(sample, time, down_residuals=down[: unet.outer_skips], deep=deep)
    assert torch.equal(whole, again)
    assert deep.shape == (5, 16, SIDE // 2, SIDE // 2)
    torch.testing.assert_close(reused, whole)


def test_features_reach_every_depth_of_network() -> None:
    torch.manual_seed(0)
    unet = XDynaUNet(
        block_out_channels=(8, 16, 16), down_block_types=("CrossAttnDownBlock3D",) * 2 + ("DownBlock3D",),
        up_block_types=("UpBlock3D",) + ("CrossAttnUpBlock3D",) * 2, attention_head_dim=2, layers_per_block=2,
        cross_attention_dim=None, image_tokens=0, norm_num_groups=4, motion_heads=2, motion_norm_groups=4,
    ).eval()  # fmt: skip
    sample, time = torch.randn(1, 4, 3, 9, 7), torch.tensor(400)  # odd sides
    with torch.inference_mode(), counted(unet.mid_block) as (deep_calls,):
        whole, deep = unet(sample, time, keep_deep=True)
        torch.testing.assert_close(unet(sample, time, deep=deep), whole)
        assert not torch.allclose(unet(sample, time, deep=torch.zeros_like(deep)), whole, atol=1e-3)
    assert len(deep_calls) == 1


@pytest.mark.parametrize("loop", ["closed", "open"])
@pytest.mark.parametrize(("every", "whole_steps"), [(1, 6), (2, 3), (3, 2), (4, 2)])
def test_the_whole_network_runs_in_every_nth_step(
    parts: dict[str, Any], every: int, whole_steps: int, loop: str
) -> None:
    with counted(parts["unet"].mid_block, parts["unet"], parts["pose_controlnet"]) as (deep, all_, control):
        run(parts, loop=loop, shortcuts=Shortcuts(cache=every), offsets=[0, 1, 2, 3, 0, 1])
    windows = len(all_) // STEPS if loop == "closed" else 2
    assert len(all_) >= STEPS * 2
    if loop == "closed":
        assert len(deep) == whole_steps * windows
    else:
        assert whole_steps * 2 <= len(deep) <= len(all_) * whole_steps / STEPS + 2
    assert sum(control) == whole_steps * FRAMES, "ControlNets run in whole steps only, once a frame"


def test_the_default_is_the_exact_loop(parts: dict[str, Any]) -> None:
    plain = run(parts)
    assert torch.equal(plain, run(parts, shortcuts=Shortcuts()))
    assert torch.equal(plain, run(parts, shortcuts=Shortcuts(guidance_interval=(0.2, 0.3)))), (
        "one half as it is"
    )
    assert torch.equal(run(parts, steps=1), run(parts, steps=1, shortcuts=Shortcuts(cache=3)))


def test_reuse_changes_little_and_more_reuse_more(parts: dict[str, Any]) -> None:
    exact = run(parts, steps=12)
    errors = [
        ((run(parts, steps=12, shortcuts=Shortcuts(cache=every)) - exact).norm() / exact.norm()).item()
        for every in (2, 4)
    ]
    assert 0 < errors[0] < errors[1] < 0.5


def test_windows_keep_their_places_while_features_are_reused() -> None:
    cache = module.DeepCache(3, skips=2, batch=1)
    assert [cache.begin(step, offset=10 + step, halves=1) for step in range(7)] == [
        10,
        10,
        10,
        13,
        13,
        13,
        16,
    ]


def test_features_beyond_a_limit_lie_in_main_memory_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ON_DEVICE", 100)
    cache = module.DeepCache(2, skips=1, batch=1)
    cache.begin(0, offset=0, halves=2)
    deep, down = torch.randn(6, 4, 2, 2), [torch.randn(2, 4, 3, 4, 4), torch.randn(2, 4, 3, 2, 2)]
    keep = cache.keeper(0, down)
    assert keep is not None
    keep(deep)
    cache.begin(1, offset=3, halves=1)
    found = cache.recall(0, torch.device("cpu"))
    assert found is not None
    assert found.down is not None
    assert torch.equal(found.deep, deep[3:]), "the conditional half is the last"
    assert [value.shape for value in found.down] == [(1, 4, 3, 4, 4)]
    cache.begin(2, offset=3, halves=2)
    cache.begin(3, offset=3, halves=2)
    assert cache.reuses


def test_guidance_runs_both_halves_inside_its_interval_only(parts: dict[str, Any]) -> None:
    empty = Tokens()
    with counted(parts["unet"]) as (calls,):
        run(parts, guidance=3.0, negative=empty, shortcuts=Shortcuts(guidance_interval=(0.4, 0.8)))
    windows = len(calls) // STEPS
    # steps begin at shares 1, 5/6, 4/6, 3/6, 2/6, 1/6 of the schedule
    expected = [1, 1, 2, 2, 1, 1]
    assert calls == [clips for clips in expected for _ in range(windows)]


def test_an_interval_of_all_noise_levels_is_guidance_as_it_is(parts: dict[str, Any]) -> None:
    everywhere = run(parts, guidance=3.0, negative=Tokens())
    found = run(parts, guidance=3.0, negative=Tokens(), shortcuts=Shortcuts(guidance_interval=(0.0, 1.0)))
    assert torch.equal(everywhere, found)


def test_both_together(parts: dict[str, Any]) -> None:
    """A half that has nothing kept makes its step a whole one."""
    with counted(parts["unet"].mid_block.resnets[0], parts["unet"]) as (deep, calls):
        out = run(
            parts, guidance=3.0, negative=Tokens(), shortcuts=Shortcuts(cache=2, guidance_interval=(0.0, 0.9))
        )
    windows = len(calls) // STEPS
    assert calls == [clips for clips in [1, 2, 2, 2, 2, 2] for _ in range(windows)]
    frames = 5  # of a window, and its reference
    whole = [1, 2, 2, 2]  # steps 0, 1 (the second half is new), 2, 4
    assert deep == [clips * frames for clips in whole for _ in range(windows)]
    assert out.isfinite().all()


def test_halves_that_run_one_by_one_keep_and_reuse_the_same(
    parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {
        "guidance": 3.0, "negative": Tokens(), "shortcuts": Shortcuts(cache=2, guidance_interval=(0.0, 0.9)),
    }  # fmt: skip
    together = run(parts, **settings)
    monkeypatch.setattr(signals, "PIXELS_AT_ONCE", 1)
    torch.testing.assert_close(run(parts, **settings), together, atol=1e-4, rtol=1e-4)
