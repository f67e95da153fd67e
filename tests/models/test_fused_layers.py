"""What norms add before and after, and sums with a bias: kernels as in test_fused.py, and the layers that use them."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from tests.models.test_fused import (
    DEVICE,
    DTYPES,
    TOLERANCE,
    compare,
    needs_kernels,
    numbers,
    picture,
    plain_clip_norm,
)
from tests.models.test_fusing import filled
from xdyna.models import fused, fused_layers, gated
from xdyna.models.blocks import Resnet
from xdyna.models.fused_layers import FusedConv2d, add_maps, unbiased
from xdyna.models.fusing import fuse
from xdyna.models.norms import ClipGroupNorm, TokenNorm


def close(found: Tensor, wanted: Tensor, *, slack: float = 1.0) -> None:
    """`wanted` is float64."""
    error = (found.double() - wanted).abs().max() / wanted.abs().max()
    assert error < slack * TOLERANCE[found.dtype], f"{error:.1e}"


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize(
    ("shape", "frames", "groups"), [((4, 32, 4, 5), 2, 8), ((9, 240, 7, 3), 3, 16), ((3, 48, 40, 30), 1, 8)]
)
def test_clip_norm_of_shifted_channels(
    shape: tuple[int, ...], frames: int, groups: int, each: bool, dtype: torch.dtype
) -> None:
    """One shift for each clip, or one for all."""
    x, channels = picture(*shape, dtype=dtype), shape[1]
    weight, bias = numbers(channels, seed=1), numbers(channels, seed=2)
    before = (9 * numbers(*([shape[0] // frames] if each else []), channels, seed=3)).to(dtype)
    with torch.no_grad():
        found = fused.clip_norm(
            x, weight, bias, groups=groups, eps=1e-5, frames=frames, silu=True, before=before
        )
        of_pictures = before.repeat_interleave(frames, 0)[:, :, None, None] if each else before[:, None, None]
        wanted = plain_clip_norm(
            x.double() + of_pictures.double(), weight.double(), bias.double(),
            groups=groups, frames=frames, silu=True,
        )  # fmt: skip
    assert found.stride() == x.stride()
    close(found, wanted, slack=2)


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 7, 64), (3, 700, 160), (11, 16, 320), (1, 1, 8)])
def test_token_norm_adds_before_and_after(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, channels = numbers(*shape, dtype=dtype), shape[-1]
    weight, bias = numbers(channels, seed=1), numbers(channels, seed=2)
    before, code = 3 * numbers(channels, seed=3), numbers(*shape[1:], seed=4)
    with torch.no_grad():
        found = fused.token_norm(x, weight, bias, eps=1e-5, before=before, code=code)
        normed = F.layer_norm(x.double() + before.double(), shape[-1:], weight.double(), bias.double(), 1e-5)
    close(found, normed + code.double())


@needs_kernels
def test_gradients_pass_a_code_and_stop_what_comes_before() -> None:
    code = numbers(7, 64, seed=4)
    compare(
        lambda x, w, b: fused.token_norm(x, w, b, eps=1e-5, code=code),
        lambda x, w, b: F.layer_norm(x, (64,), w, b, 1e-5) + code.double(),
        numbers(5, 7, 64), numbers(64, seed=1), numbers(64, seed=2),
    )  # fmt: skip
    before, weight = numbers(64), numbers(64, seed=1).requires_grad_()
    x = picture(2, 64, 3, 3, dtype=torch.float32)
    with pytest.raises(RuntimeError, match="has no gradient"):
        fused.clip_norm(x, weight, before, groups=8, eps=1e-5, before=before)
    with pytest.raises(RuntimeError, match="has no gradient"):
        fused.token_norm(numbers(2, 3, 64), weight, before, eps=1e-5, before=before)


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 8, 9, 11), (2, 3, 5, 4), (2, 160, 6, 6), (1, 32, 70, 50)])
def test_add_residual(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    compare(
        fused_layers.add_residual, lambda x, b, r: x + b[:, None, None] + r,
        picture(*shape, dtype=dtype), numbers(shape[1]), picture(*shape, dtype=dtype, seed=3),
    )  # fmt: skip


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 7, 64), (2, 300, 240), (3, 20)])
def test_geglu_adds_a_bias_first(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, bias = 2 * numbers(*shape, dtype=dtype), numbers(shape[-1], seed=3)
    value, gate = (x.double() + bias.double()).chunk(2, dim=-1)
    close(gated.geglu(x, bias), value * F.gelu(gate))
    with pytest.raises(RuntimeError, match="has no gradient"):
        gated.geglu(x.requires_grad_(), bias)


@needs_kernels
def test_operators_are_what_pytorch_expects() -> None:
    x, residual = (picture(2, 16, 4, 4, dtype=torch.float32, seed=seed).requires_grad_() for seed in (0, 1))
    vector, tokens, code = numbers(16), numbers(3, 4, 16), numbers(4, 16)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(gated._geglu, (tokens, vector), test_utils=checks)
    torch.library.opcheck(fused_layers._add_residual, (x, vector, residual), test_utils=checks)
    torch.library.opcheck(
        fused_layers._add_bias_within, (x.detach().clone(), vector, True), test_utils=checks
    )
    torch.library.opcheck(
        fused._clip_norm, (x.detach(), vector, vector, 4, 1e-5, 2, True, vector), test_utils=checks
    )
    torch.library.opcheck(fused._token_norm, (tokens, vector, vector, 1e-5, vector, code), test_utils=checks)


class Calls:
    """Counts calls of the kernels by name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        kernels = fused.load_kernels()
        monkeypatch.setattr(fused, "load_kernels", lambda: self)
        self._kernels = kernels

    def __getattr__(self, name: str) -> object:
        self.names.append(name)
        return getattr(self._kernels, name)


@needs_kernels
@pytest.mark.parametrize("out", [32, 48])
def test_a_resnet_adds_each_map_once(out: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another width there is a shortcut, whose bias joins the other one."""
    block = filled(Resnet(32, out, time_channels=8, groups=8, eps=1e-5)).to(DEVICE)
    block.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    made = copy.deepcopy(block)
    fuse(made, "always")
    x, time = picture(6, 32, 5, 4, dtype=torch.float32), numbers(2, 8)
    wanted = block(x, time, frames=3)
    calls = Calls(monkeypatch)
    with torch.no_grad():
        found = made(x, time, frames=3)
    assert calls.names == ["clip_norm", "clip_norm", "add_bias"]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(made(x, time, frames=3), wanted, atol=1e-4, rtol=1e-4)


@needs_kernels
@pytest.mark.parametrize("time_channels", [8, None])
def test_a_block_of_diffusers_adds_each_map_once(
    time_channels: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = ResnetBlock2D(in_channels=16, out_channels=24, temb_channels=time_channels, groups=8)
    plain = filled(block).to(DEVICE).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    made = nn.ModuleList([copy.deepcopy(plain)])
    fuse(made, "always")
    x = picture(3, 16, 5, 4, dtype=torch.float32)
    time = None if time_channels is None else numbers(3, time_channels)
    calls = Calls(monkeypatch)
    with torch.no_grad():
        found, wanted = made[0](x, time), plain(x, time)
    assert calls.names == ["clip_norm", "clip_norm", "add_bias"]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@needs_kernels
def test_a_bias_is_left_only_where_no_gradient_is_wanted() -> None:
    conv = FusedConv2d(4, 6, 3, padding=1).to(DEVICE)
    conv.fusing = "always"
    x, other = picture(2, 4, 5, 5, dtype=torch.float32), picture(2, 6, 5, 5, dtype=torch.float32)
    wanted = other + F.conv2d(x, conv.weight, conv.bias, padding=1)
    for learns in (False, True):
        with torch.set_grad_enabled(learns):
            made, bias = unbiased(conv, x)
            assert (bias is None) == learns
            torch.testing.assert_close(add_maps((other, None), (made, bias)), wanted)


@needs_kernels
@pytest.mark.parametrize("silu", [False, True])
def test_a_bias_is_added_in_place_only_where_no_gradient_is_wanted(silu: bool) -> None:
    x, bias = picture(2, 24, 9, 7, dtype=torch.float32), numbers(24)
    wanted = x + bias[:, None, None]
    wanted = F.silu(wanted) if silu else wanted
    for learns in (True, False):
        with torch.set_grad_enabled(learns):
            found = fused_layers.biased(x, bias, fusing="always", silu=silu)
        assert (found.data_ptr() == x.data_ptr()) is not learns
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


# -- what needs no kernels ------------------------------------------------------------------------------------------


def test_norms_add_before_and_after_by_themselves() -> None:
    x, tokens = torch.randn(6, 8, 4, 5), torch.randn(3, 4, 8)
    norm, layer = ClipGroupNorm(2, 8), TokenNorm(8)
    for shift in (torch.randn(8), torch.randn(2, 8)):
        of_pictures = shift.expand(2, 8).repeat_interleave(3, 0)[:, :, None, None]
        found = norm(x, frames=3, silu=True, before=shift)
        torch.testing.assert_close(found, norm(x + of_pictures, frames=3, silu=True))
        with torch.no_grad():
            assert torch.equal(norm(x, frames=3, silu=True, before=shift), found)
    before, code = torch.randn(8), torch.randn(4, 8)
    torch.testing.assert_close(layer(tokens, before=before, code=code), layer(tokens + before) + code)


def test_a_plain_convolution_keeps_its_bias() -> None:
    conv, x = nn.Conv2d(4, 6, 1), torch.randn(2, 4, 3, 3)
    with torch.no_grad():
        made, bias = unbiased(conv, x)
        assert bias is None
        assert torch.equal(made, conv(x))
        assert torch.equal(add_maps((made, None), (made, None)), made + made)
        torch.testing.assert_close(
            add_maps((made, torch.ones(6)), (made.contiguous(), 2 * torch.ones(6))), 2 * made + 3
        )
