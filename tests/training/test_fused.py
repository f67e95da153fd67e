from __future__ import annotations

import copy

import pytest
import torch

from xdyna.models.blocks import ClipGroupNorm
from xdyna.training.config import TrainConfig
from xdyna.training.fused import FusedGroupNorm, HalfLayerNorm, fuse_norms
from xdyna.training.networks import build_networks


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(("frames", "size"), [(1, (4, 6)), (3, (8, 8))])
def test_the_norm_and_its_gradients_are_the_plain_ones(
    frames: int, size: tuple[int, int], channels_last: bool
) -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 16, *size)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    plain, fused = ClipGroupNorm(4, 16), FusedGroupNorm(4, 16)
    torch.nn.init.normal_(plain.weight)
    torch.nn.init.normal_(plain.bias)
    fused.load_state_dict(plain.state_dict())
    outputs = [norm(x, frames=frames) for norm in (plain, fused)]
    torch.testing.assert_close(*outputs)
    towards = torch.randn(outputs[0].shape)
    gradients = [
        torch.autograd.grad((output * towards).sum(), [x, norm.weight, norm.bias])
        for output, norm in zip(outputs, (plain, fused), strict=True)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_half_precision_stays_half_under_autocast() -> None:
    x = torch.randn(2, 16, 4, 4, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert FusedGroupNorm(4, 16)(x).dtype == torch.bfloat16
        assert HalfLayerNorm(16)(x.mT.flatten(0, 1).new_zeros(3, 16)).dtype == torch.bfloat16


def test_a_network_keeps_its_parameters_and_its_function(smoke_config: TrainConfig) -> None:
    network = build_networks(smoke_config.model, seed=1).unet
    fused = copy.deepcopy(network)
    fuse_norms(fused)
    assert list(fused.state_dict()) == list(network.state_dict())
    assert not any(isinstance(m, ClipGroupNorm) for m in fused.modules())
    assert all(p.device.type == "cpu" for p in fused.parameters())
    sample = torch.randn(1, network.config.in_channels, 4, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(fused(sample, 500), network(sample, 500), atol=1e-4, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_the_compiled_norm_agrees_on_a_gpu() -> None:
    torch.manual_seed(0)
    x = torch.randn(34, 64, 16, 16, device="cuda").contiguous(memory_format=torch.channels_last)
    plain, fused = ClipGroupNorm(16, 64).cuda(), FusedGroupNorm(16, 64).cuda()
    torch.testing.assert_close(fused(x, frames=17), plain(x, frames=17), atol=1e-4, rtol=1e-4)
