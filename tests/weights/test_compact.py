from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tests.tiny import tiny_components
from xdyna.errors import OptionError, WeightsError
from xdyna.models.fusing import fuse
from xdyna.weights.compact import bytes_of, hold
from xdyna.weights.storage import dequantise, quantise


@pytest.mark.parametrize(("kind", "most"), [("int8", 0.02), ("fp8", 0.08)])
def test_a_network_in_eight_bits_is_nearly_the_same_in_less_memory(kind: str, most: float) -> None:
    network = tiny_components()["unet"]
    made = copy.deepcopy(network)
    hold(made, kind)
    assert next(made.parameters()).dtype == torch.float32
    assert bytes_of(made) < 0.7 * bytes_of(network)
    x = torch.randn(1, 4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted, found = network(x, 500), made(x, 500)
        fuse(made, "half")
    error = ((found - wanted).norm() / wanted.norm()).item()
    assert 0 < error < most


def test_int8_weights_are_those_of_int8_files() -> None:
    layer = nn.Linear(64, 64)
    stored = dequantise(*quantise(layer.weight), torch.float32)
    hold(layer, "int8")
    assert torch.equal(layer.weight, stored)
    again = copy.deepcopy(layer)
    assert torch.equal(again.weight, stored)


def test_eight_bits_of_a_floating_kind_keep_their_relative_error() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(64, 64, 3).half()
    with torch.no_grad():
        layer.weight[0] = 0
        layer.weight[1] *= 1e-4
    before = layer.weight.detach().float()
    hold(layer, "fp8")
    assert layer.weight.dtype == torch.float16
    layer.to(torch.float16)  # a cast of the network leaves the bytes alone
    after = layer.weight.float()
    assert not after[0].any()
    for channel in (1, 2):
        error = (after[channel] - before[channel]).norm() / before[channel].norm()
        assert 0.01 < error < 0.05


def test_full_changes_nothing_and_others_are_refused() -> None:
    layer = nn.Linear(64, 64)
    before = layer.weight
    hold(layer, "full")
    assert layer.weight is before
    with pytest.raises(OptionError, match="int8"):
        hold(layer, "int4")
    with torch.no_grad():
        layer.weight[0, 0] = torch.nan
    with pytest.raises(WeightsError, match="NaN"):
        hold(layer, "int8")
