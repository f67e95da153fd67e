from __future__ import annotations

import copy

import pytest
import torch

from xdyna.models.norms import ClipGroupNorm
from xdyna.training.config import TrainConfig
from xdyna.training.networks import build_networks
from xdyna.training.norms import HalfGroupNorm, HalfLayerNorm, halve_norms


@pytest.mark.parametrize("frames", [1, 3])
def test_in_float32_the_norm_is_the_plain_one(frames: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 16, 4, 6).contiguous(memory_format=torch.channels_last)
    plain, half = ClipGroupNorm(4, 16), HalfGroupNorm(4, 16)
    torch.nn.init.normal_(plain.weight)
    half.load_state_dict(plain.state_dict())
    torch.testing.assert_close(half(x, frames=frames), plain(x, frames=frames))


def test_half_precision_stays_half_under_autocast() -> None:
    x = torch.randn(2, 16, 4, 4, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert HalfGroupNorm(4, 16)(x).dtype == torch.bfloat16
        assert HalfLayerNorm(16)(torch.randn(3, 16, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_a_network_keeps_its_parameters_and_its_function(smoke_config: TrainConfig) -> None:
    network = build_networks(smoke_config, seed=1).unet
    halved = copy.deepcopy(network)
    halve_norms(halved)
    assert list(halved.state_dict()) == list(network.state_dict())
    assert not any(type(m) is ClipGroupNorm for m in halved.modules())
    assert all(p.device.type == "cpu" for p in halved.parameters())
    sample = torch.randn(1, network.config.in_channels, 4, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(halved(sample, 500), network(sample, 500), atol=1e-5, rtol=1e-5)
