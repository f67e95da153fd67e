"""What both guidance halves have in common is computed once, and the numbers stay."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from tests.models.networks import clip, fill, tiny_unet
from tests.sampling.test_recorded import Tape
from xdyna.machine import Lent, LentNetwork
from xdyna.models import XDynaUNet
from xdyna.sampling import (
    Networks,
    Recorded,
    Shortcuts,
    Tokens,
    WindowPlan,
    denoise,
    loop,
    make_scheduler,
    set_timesteps,
)
from xdyna.sampling import controls as signals

SIDE, FRAMES, STEPS = 8, 7, 4
WAYS = ("dynamics-adapter", "reference-net", "ip-adapter")


def denoiser(reference: str = "dynamics-adapter", **changes: Any) -> XDynaUNet:
    """In float64, where batches of other sizes are rounded alike as far as float32 can tell."""
    unet = tiny_unet(layers_per_block=2, reference=reference, **changes)
    fill(unet)
    return unet.double()


def features(unet: XDynaUNet, clips: int = 1) -> list[Tensor] | None:
    """What a ReferenceNet might have seen."""
    if not unet.reads_features:
        return None
    shapes = [
        (SIDE * SIDE >> 2 * (width > 8), width)
        for width in (
            module.norm.num_channels for name, module in unet.named_modules() if has_attention(name)
        )
    ]
    return [clip(clips, *shape, seed=place) for place, shape in enumerate(shapes)]


def has_attention(name: str) -> bool:
    return name.split(".")[-2:-1] == ["attentions"]


def both_tokens(clips: int = 1) -> list[Tensor]:
    return [clip(clips, 9, 12, seed=seed).double() for seed in (7, 8)]


def residuals(clips: int = 1) -> list[Tensor]:
    """One for each skip of `denoiser()`."""
    shapes = [(8, SIDE)] * 3 + [(8, SIDE // 2)] + [(16, SIDE // 2)] * 2
    return [clip(clips, width, 5, side, side, seed=9).double() for width, side in shapes]


@contextmanager
def counted(unet: XDynaUNet) -> Iterator[list[int]]:
    """How many pictures each call of the first self-attention got."""
    calls: list[int] = []
    first = unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1
    hook = first.register_forward_pre_hook(lambda _, given: calls.append(len(given[0])))
    yield calls
    hook.remove()


def run(unet: Any, **changes: Any) -> Tensor:
    """A few steps of the loop with two halves that read different tokens."""
    scheduler = make_scheduler("ddim", noise_schedule())
    set_timesteps(scheduler, STEPS, torch.device("cpu"))
    settings: dict[str, Any] = {
        "tokens": Tokens(clip(1, 5, 12, seed=3), clip(1, 4, 12, seed=4)),
        "negative": Tokens(clip(1, 5, 12, seed=3), clip(1, 4, 12, seed=5)),
        "guidance": 3.0, "plan": WindowPlan(4, 1, "closed"), "offsets": [0, 1, 2, 3],
    }  # fmt: skip
    store = changes.pop("store", None)
    with torch.inference_mode():
        return denoise(
            Networks(unet, store=store), scheduler, reference=clip(1, 4, SIDE, SIDE),
            latents=clip(1, 4, FRAMES, SIDE, SIDE, seed=6), reference_features=features(unet),
            **(settings | changes),
        )  # fmt: skip


def noise_schedule() -> DDIMScheduler:
    return DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Halves go one after the other."""
    monkeypatch.setattr(signals, "PIXELS_AT_ONCE", 1)


def without_sharing(monkeypatch: pytest.MonkeyPatch, *given: Any, **named: Any) -> Tensor:
    with monkeypatch.context() as patch:
        patch.setattr(XDynaUNet, "begins_alike", False)
        return run(*given, **named)


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_the_numbers_stay_and_half_the_calls_go(
    way: str, strength: float, one_by_one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if one_by_one:
        monkeypatch.setattr(signals, "PIXELS_AT_ONCE", 1)
    unet = denoiser(way)
    with counted(unet) as calls:
        wanted = without_sharing(monkeypatch, unet, reference_scale=strength)
    with counted(unet) as fewer:
        found = run(unet, reference_scale=strength)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)
    assert torch.equal(found, wanted) or not one_by_one
    assert 2 * sum(fewer) == sum(calls)
    assert len(fewer) * (2 if one_by_one else 1) == len(calls)


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize(
    "shortcuts",
    [Shortcuts(2), Shortcuts(1, (0.3, 0.8)), Shortcuts(2, (0.3, 1.0))],
    ids=["cache", "interval", "both"],
)
def test_shortcuts_share_too(shortcuts: Shortcuts, one_by_one: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if one_by_one:
        monkeypatch.setattr(signals, "PIXELS_AT_ONCE", 1)
    unet = denoiser()
    with counted(unet) as calls:
        wanted = without_sharing(monkeypatch, unet, shortcuts=shortcuts)
    with counted(unet) as fewer:
        found = run(unet, shortcuts=shortcuts)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)
    assert sum(calls) > sum(fewer) >= sum(calls) / 2


def test_one_half_alone_is_as_before(apart: None, monkeypatch: pytest.MonkeyPatch) -> None:
    unet = denoiser()
    with counted(unet) as calls:
        found = run(unet, guidance=1.0)
    assert torch.equal(found, without_sharing(monkeypatch, unet, guidance=1.0))
    assert len(calls) == 3 * STEPS


def test_motion_of_each_half_begins_apart(apart: None, monkeypatch: pytest.MonkeyPatch) -> None:
    unet = denoiser(motion_condition=True)
    with counted(unet) as calls:
        same = run(unet, motion=2.0)
    assert len(calls) == 3 * STEPS, "one energy for all: shared"
    torch.testing.assert_close(same, without_sharing(monkeypatch, unet, motion=2.0), atol=1e-6, rtol=1e-6)
    with counted(unet) as calls:
        differs = run(unet, motion=torch.tensor([0.0, 2.0]))
    assert len(calls) == 2 * 3 * STEPS
    assert not torch.allclose(differs, same, atol=1e-3)
    monkeypatch.setattr(signals, "PIXELS_AT_ONCE", 1 << 17)
    torch.testing.assert_close(run(unet, motion=torch.tensor([0.0, 2.0])), differs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("one_by_one", [False, True])
def test_several_clips_and_a_strength_for_each(one_by_one: bool) -> None:
    unet, clips = denoiser(), 3
    sample, tokens = clip(clips, 4, 5, SIDE, SIDE).double(), both_tokens(clips)
    skips, strength = residuals(clips), torch.tensor([0.0, 0.5, 1.0])
    with torch.no_grad():
        found = unet.halves(
            sample, 400, tokens, together=not one_by_one, down_residuals=skips, reference_scale=strength
        )
        for half, rows in zip(tokens, found.chunk(2), strict=True):
            wanted = unet(sample, 400, half, down_residuals=skips, reference_scale=strength)
            torch.testing.assert_close(rows, wanted, atol=1e-5, rtol=1e-5)
        # each half a strength of its own: nothing is shared, and the rows find theirs
        found = unet.halves(
            sample, 400, tokens, together=not one_by_one, reference_scale=torch.cat([strength, 1 - strength])
        )
        for half, rows, scale in zip(tokens, found.chunk(2), (strength, 1 - strength), strict=True):
            torch.testing.assert_close(
                rows, unet(sample, 400, half, reference_scale=scale), atol=1e-5, rtol=1e-5
            )


def test_with_gradients_nothing_is_shared() -> None:
    unet = denoiser()
    sample, tokens = clip(1, 4, 5, SIDE, SIDE).double(), both_tokens()
    with counted(unet) as calls:
        made = unet.halves(sample, 400, tokens, together=False)
    assert len(calls) == 2
    made.sum().backward()
    assert unet.conv_in.weight.grad is not None


def test_a_first_level_without_attention_shares_nothing(apart: None) -> None:
    unet = denoiser(
        down_block_types=("DownBlock3D", "CrossAttnDownBlock3D"),
        up_block_types=("CrossAttnUpBlock3D", "UpBlock3D"),
    )
    assert not unet.begins_alike
    assert run(unet).isfinite().all()


def test_what_is_begun_stays_as_it_is_and_goes_with_its_last_use() -> None:
    unet, sample, tokens = denoiser(), clip(1, 4, 5, SIDE, SIDE).double(), both_tokens()[0]
    with torch.inference_mode():
        begun = unet.begin(sample, 400)
        copies = [value.clone() for value in begun]
        first = unet(sample, 400, tokens, down_residuals=residuals(), begun=[*begun])
        assert all(torch.equal(value, copy) for value, copy in zip(begun, copies, strict=True))
        assert torch.equal(first, unet(sample, 400, tokens, down_residuals=residuals()))
        gone = [weakref.ref(value) for value in begun]
        alive: list[int] = []

        def look(*_: Any) -> None:
            gc.collect()
            alive.append(sum(one() is not None for one in gone))

        hook = unet.down_blocks[0].motion_modules[0].register_forward_pre_hook(look)
        last = unet(sample, 400, tokens, down_residuals=residuals(), begun=begun)
        hook.remove()
    assert torch.equal(last, first)
    assert begun == []
    assert alive == [0]


def test_recorded_halves_are_one_recording(apart: None) -> None:
    unet, tape = denoiser(), Tape()
    wanted = run(unet)
    assert torch.equal(run(Recorded(unet, tape)), wanted)
    assert tape.recorded == 1, "windows of one shape, both halves at once"
    shortcuts = Shortcuts(2, (0.3, 1.0))
    wanted = run(unet, shortcuts=shortcuts)
    assert torch.equal(run(Recorded(unet, tape), shortcuts=shortcuts), wanted)


def test_lent_networks_are_there_and_share_nothing(apart: None, monkeypatch: pytest.MonkeyPatch) -> None:
    unet, lent = denoiser(), Lent(torch.device("cpu"))
    taken: list[Any] = []
    monkeypatch.setattr(lent, "take", taken.extend)
    with counted(unet) as calls:
        found = run(LentNetwork(unet, lent), store=torch.device("cpu"))
    assert torch.equal(found, run(unet))
    assert taken == [unet] * 3 * STEPS
    assert len(calls) == 2 * 3 * STEPS


def test_predict_is_told_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[bool] = []
    original = loop.predict

    def watched(*given: Any, **named: Any) -> Tensor:
        shares.append(named["share"])
        return original(*given, **named)

    monkeypatch.setattr(loop, "predict", watched)
    unet = denoiser()
    run(unet)
    run(unet, store=torch.device("cpu"))
    assert shares == [True] * 3 * STEPS + [False] * 3 * STEPS
