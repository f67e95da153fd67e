"""Doubling in phases against nearest neighbours and the convolution itself."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from tests.models.networks import clip, fill, tiny_unet
from xdyna.models import fusing, upsampling
from xdyna.models.blocks import Upsample
from xdyna.models.fusing import FusedUpsample, fuse
from xdyna.models.upsampling import PhasedUpsample, doubled, phase_kernel
from xdyna.weights.compact import hold


def fused_pair(layer: nn.Module) -> tuple[Any, Any]:
    """A layer of random weights, and the same fused."""
    parent = nn.ModuleList([layer])
    fill(parent)
    made = copy.deepcopy(parent)
    fuse(made, "always")
    return layer, made[0]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What is given to `doubled`, which still does its work."""
    given: list[Tensor] = []
    for place in (upsampling, fusing):
        monkeypatch.setattr(place, "doubled", lambda x, *rest: given.append(x) or doubled(x, *rest))
    return given


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("size", [(4, 6), (5, 3), (1, 1), (1, 7)])
def test_phases_are_the_enlarged_maps_convolution(
    size: tuple[int, int], biased: bool, layout: torch.memory_format
) -> None:
    x = clip(3, 6, *size).double().contiguous(memory_format=layout)
    weight = clip(5, 6, 3, 3, seed=3).double().contiguous(memory_format=layout)
    bias = clip(5, seed=4).double() if biased else None
    found = doubled(x, weight, bias)
    assert found.is_contiguous(memory_format=torch.channels_last)
    wanted = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, bias, padding=1)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    weight = clip(8, 16, 3, 3).to(dtype)
    for row in range(2):
        kernel = phase_kernel(weight, row)
        assert kernel.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(kernel, phase_kernel(weight.float(), row).to(dtype))


def test_nothing_as_large_as_the_result_is_held_between(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, convolve = [], F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda *v, **o: [m := convolve(*v, **o), sizes.append(m.numel())][0])
    found = doubled(clip(1, 4, 20, 30), clip(4, 4, 3, 3), clip(4))
    assert 0 < max(sizes) < 0.55 * found.numel()


@pytest.mark.parametrize("size", [(10, 8), (9, 8), (10, 7), (5, 4), (20, 16)])
@pytest.mark.parametrize("held", ["full", "int8"])
def test_a_fused_layer_doubles_in_phases_and_reaches_other_sizes(
    held: str, size: tuple[int, int], calls: list[Tensor]
) -> None:
    layer, made = fused_pair(Upsample(32))
    for one in (layer, made):
        hold(one, held)
    x = clip(2, 32, 5, 4)
    with torch.no_grad():
        torch.testing.assert_close(made(x, size=size), layer(x, size=size), atol=1e-5, rtol=1e-5)
    assert len(calls) == (size == (10, 8))


def test_gradients_autocast_adapters_and_half_fusing_on_a_cpu_go_the_plain_way(calls: list[Tensor]) -> None:
    layer, made = fused_pair(Upsample(32))
    x, size = clip(2, 32, 5, 4), (10, 8)
    wanted = layer(x, size=size)
    wanted.sum().backward()
    made(x, size=size).sum().backward()
    torch.testing.assert_close(made.conv.weight.grad, layer.conv.weight.grad)
    with torch.no_grad():
        with torch.autocast("cpu"):
            made(x, size=size)
        for made.fusing in ("half", "never"):
            made(x, size=size)
        made.fusing, made.conv = "always", nn.Sequential(made.conv)
        torch.testing.assert_close(made(x, size=size), wanted)
    assert not calls


@pytest.mark.parametrize(("side", "phased"), [(8, True), (7, False)])
def test_a_denoiser_keeps_its_names_and_numbers(side: int, phased: bool, calls: list[Tensor]) -> None:
    network, made = fused_pair(tiny_unet())
    assert type(made.up_blocks[0].upsamplers[0]) is PhasedUpsample
    assert list(made.state_dict()) == list(network.state_dict())
    x, tokens = clip(1, 4, 4, side, side), clip(1, 4, 12)
    with torch.inference_mode():
        found, wanted = made(x, 500, tokens), network(x, 500, tokens)
    torch.testing.assert_close(found, wanted, atol=1e-4 * wanted.abs().max().item(), rtol=1e-4)
    assert bool(calls) == phased


@pytest.mark.parametrize(("size", "phased"), [(None, True), ((10, 8), True), ((9, 8), False)])
def test_the_autoencoders_layer_doubles_in_phases(size: Any, phased: bool, calls: list[Tensor]) -> None:
    layer, made = fused_pair(Upsample2D(8, use_conv=True))
    assert isinstance(made, FusedUpsample)
    x = clip(2, 8, 5, 4)
    with torch.no_grad():
        torch.testing.assert_close(made(x, size), layer(x, size), atol=1e-5, rtol=1e-5)
    assert bool(calls) == phased
