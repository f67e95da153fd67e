"""Networks whose layers were replaced: the same names, the same function."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import nn

from tests import tiny
from xdyna.errors import OptionError
from xdyna.models.fusing import (
    FusedConv2d,
    FusedLinear,
    FusedResnet,
    FusedUpsample,
    PackedEmbedding,
    fuse,
    packed,
    packed_weight,
    packing_taps,
)
from xdyna.models.norms import ClipGroupNorm, TokenNorm


def filled(network: nn.Module) -> nn.Module:
    """Without layers of zeros, whose output would hide what comes before."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        else:
            nn.init.normal_(parameter, mean=0.5, std=0.5)
    return network


def test_packing_is_pixel_unshuffling() -> None:
    x = torch.randn(2, 3, 6, 8)
    assert torch.equal(packed(x), F.pixel_unshuffle(x, 2))
    assert packed(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [3, 6, 8])
def test_a_packed_convolution_is_the_plain_one(channels: int, stride: int) -> None:
    x = torch.randn(2, channels, 8, 12, dtype=torch.float64).requires_grad_()
    weight = torch.randn(5, channels, 3, 3, dtype=torch.float64).requires_grad_()
    plain = F.conv2d(x, weight, padding=1, stride=stride)
    found = F.conv2d(packed(x), packed_weight(weight, packing_taps(stride)), padding=1)
    found = F.pixel_shuffle(found, 2) if stride == 1 else found
    torch.testing.assert_close(found, plain)
    gradient = torch.randn_like(plain)
    for one, other in zip(
        torch.autograd.grad(found, (x, weight), gradient),
        torch.autograd.grad(plain, (x, weight), gradient),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_a_packed_kernel_holds_the_weights_themselves() -> None:
    """Also in half precision, where a true sum would be rounded."""
    weight = torch.randn(4, 3, 3, 3).bfloat16()
    for stride, times in ((1, 4), (2, 1)):
        spread = packed_weight(weight, packing_taps(stride))
        assert spread.dtype == torch.bfloat16
        values = spread[spread != 0].sort().values
        assert torch.equal(values, weight.flatten().repeat(times).sort().values)


@pytest.mark.parametrize("size", [(32, 48), (18, 20)])
@pytest.mark.parametrize("channels", [3, 6])
def test_the_packed_embedding_is_diffusers(channels: int, size: tuple[int, int]) -> None:
    """Of the second size, the maps of the third and fourth convolution are odd, and not packed."""
    plain = filled(ControlNetConditioningEmbedding(24, channels, (8, 16, 48)))
    made = PackedEmbedding(copy.deepcopy(plain))
    made.fusing = "always"
    assert list(made.state_dict()) == list(plain.state_dict())
    pictures = torch.rand(2, channels, *size)
    found, wanted = made(pictures), plain(pictures)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    gradient = torch.randn_like(wanted)
    of_plain = torch.autograd.grad(wanted, list(plain.parameters()), gradient)
    of_made = torch.autograd.grad(found, list(made.parameters()), gradient)
    for (name, _), one, other in zip(plain.named_parameters(), of_made, of_plain, strict=True):
        torch.testing.assert_close(
            one, other, atol=1e-3, rtol=1e-4, msg=lambda said, name=name: f"{name}: {said}"
        )
    made.fusing = "never"
    torch.testing.assert_close(made(pictures), wanted, atol=0, rtol=0)


@pytest.mark.parametrize("name", ["unet", "vae", "pose_controlnet", "face_controlnet"])
def test_a_fused_network_keeps_its_names_and_its_function(name: str) -> None:
    network = filled(tiny.tiny_components()[name]).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    made = copy.deepcopy(network)
    parameters = {key: id(value) for key, value in made.named_parameters()}
    fuse(made, "always")
    assert {key: id(value) for key, value in made.named_parameters()} == parameters
    assert list(made.state_dict()) == list(network.state_dict())
    kinds = {type(module) for module in made.modules()}
    assert not kinds & {nn.Conv2d, nn.Linear, nn.GroupNorm, nn.LayerNorm, ResnetBlock2D, Upsample2D, GEGLU}
    assert {FusedConv2d, ClipGroupNorm} <= kinds
    if name != "unet":
        assert FusedResnet in kinds
    assert (PackedEmbedding in kinds) == name.endswith("controlnet")
    assert (FusedUpsample in kinds) == (name == "vae")
    assert all(module.fusing == "always" for module in made.modules() if isinstance(module, FusedConv2d))

    def run(one: nn.Module) -> list[torch.Tensor]:
        torch.manual_seed(1)
        if name == "vae":
            return [one(torch.rand(2, 3, 32, 48)).sample]
        latents = one.config.in_channels
        if name == "unet":
            tokens = torch.randn(1, one.config.image_tokens, one.config.cross_attention_dim or 1)
            return [one(torch.randn(1, latents, 4, 8, 12), 500, tokens if one.reads_tokens else None)]
        side = 8 * 2 ** (len(one.config.conditioning_embedding_out_channels) - 1)
        pictures = torch.rand(3, one.config.conditioning_channels, side, side)
        down, mid = one(torch.randn(3, latents, 8, 8), 500, None, pictures, return_dict=False)
        return [*down, mid]

    found, wanted = run(made), run(network)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4 * other.abs().max().item(), rtol=1e-4)
    sum(value.square().sum() for value in found).backward()
    sum(value.square().sum() for value in wanted).backward()
    for (key, one), other in zip(made.named_parameters(), network.parameters(), strict=True):
        if other.grad is None:
            assert one.grad is None, key
            continue
        assert one.grad is not None, key
        scale = other.grad.abs().max().item()
        torch.testing.assert_close(
            one.grad,
            other.grad,
            atol=2e-3 * scale + 1e-4,
            rtol=1e-3,
            msg=lambda said, key=key: f"{key}: {said}",
        )


def test_activations_join_their_norms() -> None:
    network = nn.Sequential(nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 4, 1), nn.SiLU())
    made = copy.deepcopy(network)
    fuse(made)
    assert isinstance(made[1], nn.Identity)
    assert isinstance(made[3], nn.SiLU)
    x = torch.randn(2, 8, 3, 3)
    torch.testing.assert_close(made(x), network(x))
    fuse(made)
    torch.testing.assert_close(made(x), network(x))


def test_what_cannot_be_replaced_stays() -> None:
    blocks = nn.ModuleList(
        [
            ResnetBlock2D(in_channels=8, temb_channels=4, groups=2, time_embedding_norm="scale_shift"),
            ResnetBlock2D(in_channels=8, temb_channels=4, groups=2, dropout=0.1),
            ResnetBlock2D(in_channels=8, temb_channels=4, groups=2, non_linearity="gelu"),
            Upsample2D(8, use_conv=False),
        ]
    )
    fuse(blocks)
    assert [type(block) for block in blocks] == [ResnetBlock2D] * 3 + [Upsample2D]


def test_layers_keep_their_options() -> None:
    layers = nn.Sequential(
        nn.Conv2d(4, 8, (3, 1), stride=2, padding=(1, 0), dilation=2, groups=2, bias=False),
        nn.LayerNorm(5, eps=1e-3, bias=False),
        nn.Linear(5, 3, bias=False),
        nn.GroupNorm(2, 8, eps=1e-2, affine=False),
    ).eval()
    x = torch.randn(2, 4, 9, 9)
    wanted = layers(x)
    fuse(layers, "always")
    assert [type(layer) for layer in layers] == [FusedConv2d, TokenNorm, FusedLinear, ClipGroupNorm]
    assert not any(layer.training for layer in layers)
    torch.testing.assert_close(layers(x), wanted)


def test_an_unknown_way_is_told() -> None:
    with pytest.raises(OptionError, match="never, half, always"):
        fuse(nn.Linear(2, 2), "quick")
