from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from tests.tiny import tiny_components
from xdyna.errors import ResourceError
from xdyna.sampling import decode_latents, decode_stream


@pytest.fixture(scope="module")
def vae() -> torch.nn.Module:
    return tiny_components()["vae"]


def test_a_stream_is_its_parts(vae: torch.nn.Module) -> None:
    latents = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    parts = list(decode_stream(vae, latents.split(2)))
    assert [len(part) for part in parts] == [2, 2, 1]
    assert parts[0].dtype == np.uint8
    assert parts[0].shape == (2, 64, 64, 3)
    for part, given in zip(parts, latents.split(2), strict=True):
        np.testing.assert_array_equal(part, decode_latents(vae, given))


def test_what_leaves_half_precision_is_decoded_in_float32(
    vae: torch.nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    """An autoencoder whose inside exceeds 65,504, and whose last norm brings it back."""
    large = copy.deepcopy(vae)
    with torch.no_grad():
        large.decoder.conv_in.weight *= 1e6
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    wanted = decode_latents(large, latents)
    half = copy.deepcopy(large).half()
    with torch.no_grad():  # 1e6 times a weight is beyond float16 itself
        half.decoder.conv_in.weight.copy_(large.decoder.conv_in.weight.clamp(-6e4, 6e4))
        large.decoder.conv_in.weight.copy_(half.decoder.conv_in.weight.float())
    wanted = decode_latents(large, latents)
    found = decode_latents(half, latents)
    assert "float32" in caplog.text
    assert next(half.parameters()).dtype == torch.float16
    assert np.abs(found.astype(int) - wanted).mean() < 3


def test_numbers_that_are_not_finite_are_told(vae: torch.nn.Module) -> None:
    latents = torch.full((1, 4, 8, 8), torch.nan)
    with pytest.raises(ResourceError, match="not finite"):
        decode_latents(vae, latents)
