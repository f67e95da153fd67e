from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch.utils.checkpoint import checkpoint

from tests.models.networks import clip, fill, tiny_unet
from xdyna.errors import InputError, OptionError, WeightsError
from xdyna.models import XDynaUNet

TOKENS = clip(2, 9, 12, seed=7)


def test_one_frame_without_reference_is_stable_diffusion() -> None:
    """On single pictures, without our additions, diffusers' own U gives the same numbers, odd sides too."""
    ours = tiny_unet(
        block_out_channels=(8, 16, 24),
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D", "CrossAttnDownBlock3D"),
        up_block_types=("CrossAttnUpBlock3D", "UpBlock3D", "CrossAttnUpBlock3D"),
        layers_per_block=2,
        attention_head_dim=(2, 4, 3),
        image_tokens=0,
    )
    fill(ours)
    theirs = UNet2DConditionModel(
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16, 24),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=(2, 4, 3),
        cross_attention_dim=12,
        norm_num_groups=4,
    )
    names = theirs.state_dict().keys()
    theirs.load_state_dict({name: value for name, value in ours.state_dict().items() if name in names})
    sample, time = clip(2, 4, 9, 7), torch.tensor([3, 811])
    wanted = theirs(sample, time, TOKENS).sample
    got = ours(sample.unsqueeze(2), time, TOKENS, reference_scale=0.0, temporal=False)
    torch.testing.assert_close(got.squeeze(2), wanted, atol=1e-5, rtol=1e-5)


def test_a_new_network_is_the_one_without_adapter_and_motion() -> None:
    unet, sample = tiny_unet(), clip(2, 4, 4, 8, 6)
    with torch.no_grad():
        whole = unet(sample, 10, TOKENS)
        assert torch.equal(whole, unet(sample, 10, TOKENS, reference_scale=0.0))
        assert torch.equal(whole, unet(sample, 10, TOKENS, temporal=False))
        plain = tiny_unet(use_motion_modules=False)
        plain.load_state_dict({k: v for k, v in unet.state_dict().items() if "motion_modules" not in k})
        assert torch.equal(whole, plain(sample, 10, TOKENS))
        fill(unet)
        whole = unet(sample, 10, TOKENS)
        for off in ({"reference_scale": 0.0}, {"temporal": False}):
            assert (whole - unet(sample, 10, TOKENS, **off)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        ({"in_channels": 16, "out_channels": 16, "cross_attention_dim": None}, 0),
        ({"in_channels": 3, "out_channels": 6, "position_gain": 2.5, "adapter_query_init": "key"}, 9),
        (
            {
                "block_out_channels": (8, 8, 12, 16),
                "down_block_types": ("DownBlock3D", "CrossAttnDownBlock3D", "DownBlock3D", "DownBlock3D"),
                "up_block_types": ("UpBlock3D", "UpBlock3D", "CrossAttnUpBlock3D", "UpBlock3D"),
                "attention_head_dim": (1, 2, 3, 4),
                "image_tokens": 0,
            },
            5,
        ),
    ],
)
@pytest.mark.parametrize("size", [(5, 9), (8, 4)])
def test_any_width_any_latent(changes: dict, tokens: int, size: tuple[int, int]) -> None:
    unet = tiny_unet(**changes)
    fill(unet)
    sample = clip(2, unet.config.in_channels, 3, *size)
    out = unet(sample, 7, clip(2, tokens, 12) if tokens else None)
    assert out.shape == (2, unet.config.out_channels, 3, *size)
    out.square().mean().backward()
    without = [name for name, parameter in unet.named_parameters() if parameter.grad is None]
    assert without == [], "every parameter is in use"
    names = [name for name in unet.state_dict() if "attn2" in name or "transformer_blocks.0.norm2" in name]
    assert bool(names) == bool(tokens)


def test_residuals_are_added_to_the_skips_and_the_mid_block() -> None:
    unet, sample = tiny_unet(), clip(2, 4, 4, 8, 6)
    fill(unet)
    shapes = [(8, 8, 6), (8, 8, 6), (8, 4, 3), (16, 4, 3)]
    down = [torch.zeros(2, c, 4, h, w) for c, h, w in shapes]
    mid = torch.zeros(2, 16, 4, 4, 3)
    with torch.no_grad():
        plain = unet(sample, 10, TOKENS)
        assert torch.equal(plain, unet(sample, 10, TOKENS, down_residuals=down, mid_residual=mid))
        for n, residual in enumerate([*down, mid]):
            changed = [torch.full_like(r, 0.5) if r is residual else r for r in [*down, mid]]
            got = unet(sample, 10, TOKENS, down_residuals=changed[:-1], mid_residual=changed[-1])
            assert (got - plain).abs().max() > 1e-3, f"residual {n} has no effect"


def test_clips_of_a_batch_do_not_meet() -> None:
    unet, sample = tiny_unet(), clip(2, 4, 4, 8, 6)
    fill(unet)
    time = torch.tensor([5, 900])
    with torch.no_grad():
        both = unet(sample, time, TOKENS)
        for n in range(2):
            alone = unet(sample[n : n + 1], int(time[n]), TOKENS[n : n + 1])
            torch.testing.assert_close(both[n : n + 1], alone, atol=1e-5, rtol=1e-5)


def test_channels_last_gives_the_same_numbers() -> None:
    unet, sample = tiny_unet(), clip(2, 4, 4, 8, 6)
    fill(unet)
    with torch.no_grad():
        plain = unet(sample, 10, TOKENS)
        turned = unet.to(memory_format=torch.channels_last)(
            sample.contiguous(memory_format=torch.channels_last_3d), 10, TOKENS
        )
    torch.testing.assert_close(turned, plain, atol=1e-5, rtol=1e-5)


def test_bfloat16_autocast_and_weights() -> None:
    unet, sample = tiny_unet(position_gain=2.5), clip(2, 4, 4, 8, 6)
    fill(unet)
    with torch.no_grad():
        plain = unet(sample, 10, TOKENS)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = unet(sample, 10, TOKENS)
        half = unet.to(torch.bfloat16)(sample.bfloat16(), 10, TOKENS.bfloat16())
    assert half.dtype == torch.bfloat16
    for got in (mixed, half):
        assert ((got.float() - plain).abs().mean() / plain.std()) < 0.1


def test_gradient_checkpointing_changes_nothing_but_memory() -> None:
    unet, sample = tiny_unet(), clip(1, 4, 3, 8, 6)
    fill(unet)
    unet.train()

    def gradients() -> dict[str, torch.Tensor]:
        unet.zero_grad()
        unet(sample, 10, TOKENS[:1], reference_scale=torch.tensor([0.7])).square().mean().backward()
        return {name: p.grad.clone() for name, p in unet.named_parameters() if p.grad is not None}

    plain = gradients()
    calls = []

    def counted(function: Any, *args: Any) -> Any:
        calls.append(function)
        return checkpoint(function, *args, use_reentrant=False)

    unet.enable_gradient_checkpointing(counted)
    again = gradients()
    assert len(calls) == 2 * 1 + 2 * 2, "every layer of the down and up blocks"
    torch.testing.assert_close(again, plain, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_it_compiles_as_one_graph() -> None:
    unet, sample = tiny_unet(position_gain=2.5), clip(1, 4, 3, 8, 6)
    fill(unet)
    with torch.no_grad():
        compiled = torch.compile(unet, fullgraph=True, backend="eager")
        torch.testing.assert_close(
            compiled(sample, torch.tensor(10), TOKENS[:1]), unet(sample, 10, TOKENS[:1])
        )
    torch._dynamo.reset()


def test_save_and_load(tmp_path: Path) -> None:
    unet = tiny_unet(position_gain=2.5, adapter_query_init="key")
    fill(unet)
    unet.save_pretrained(tmp_path)
    loaded = XDynaUNet.from_pretrained(tmp_path)
    for name, value in unet.config.items():
        if not name.startswith("_"):
            got = loaded.config[name]
            assert (tuple(got) if isinstance(value, tuple) else got) == value
    assert loaded.state_dict().keys() == unet.state_dict().keys()
    assert all(torch.equal(value, unet.state_dict()[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": "telepathy"}, "reference: got 'telepathy', allowed are dynamics-adapter"),
        ({"adapter_query_init": "value"}, "adapter_query_init"),
        ({"attention_head_dim": 3}, "cannot be split into 3 heads"),
        ({"motion_heads": 3}, "cannot be split into 3 heads"),
        ({"norm_num_groups": 3}, "norm_num_groups"),
        ({"motion_norm_groups": 5}, "motion_norm_groups"),
        ({"attention_head_dim": (2,)}, "attention_head_dim: got 1 values for the 2 levels"),
        ({"down_block_types": ("DownBlock3D",)}, "down_block_types"),
        ({"up_block_types": ("UpBlock2D", "UpBlock3D")}, "got 'UpBlock2D', allowed are CrossAttnUpBlock3D"),
        ({"block_out_channels": (8,)}, "at least 2"),
    ],
)
def test_options_that_do_not_fit(changes: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        tiny_unet(**changes)


def test_calls_that_do_not_fit() -> None:
    unet = tiny_unet(motion_max_length=4)
    sample = clip(1, 4, 6, 8, 6)
    with pytest.raises(OptionError, match="5 frames at once, the motion modules know 4 at most"):
        unet(sample, 10, TOKENS[:1])
    assert unet(sample, 10, TOKENS[:1], temporal=False).shape == sample.shape
    with pytest.raises(InputError, match="4 image tokens"):
        unet(sample[:, :, :3], 10)
    with pytest.raises(WeightsError, match="gives 1 residuals, the denoiser has 4 skips"):
        unet(sample[:, :, :3], 10, TOKENS[:1], down_residuals=[torch.zeros(1, 8, 3, 8, 6)])
