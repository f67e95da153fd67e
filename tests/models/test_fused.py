"""The fused kernels against the same computed plainly in float64: on a GPU, or by Triton's interpreter on a CPU.

    TRITON_INTERPRET=1 PYTHONPATH=<where triton is>:... pytest tests/models/test_fused.py

Without either, what needs no kernels is tested alone.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from xdyna.models import fused, gated, short_attention

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLD = "needs CUDA and triton, or triton's interpreter"
TOLERANCE = {torch.float32: 2e-6 if DEVICE == "cpu" else 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}
"""Largest error as a share of the largest value: half a unit of the last place, and a little; a GPU's own exponential
function is less exact than float32."""
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# the interpreter multiplies matrices of bfloat16 bit patterns as if they were whole numbers
MATRIX_DTYPES = DTYPES if DEVICE == "cuda" else DTYPES[:2]


def needs_kernels(test: Callable[..., None]) -> Callable[..., None]:
    """Skipped without kernels; with those of a GPU one of the tests that `-m gpu` picks."""
    test = pytest.mark.gpu(test) if DEVICE == "cuda" else test
    return pytest.mark.skipif(not fused.kernels_available(DEVICE), reason=TOLD)(test)


def numbers(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator).to(DEVICE, dtype)


def picture(*shape: int, dtype: torch.dtype, seed: int = 0, mean: float = 0.0) -> Tensor:
    """Channels last in memory."""
    values = (2 * numbers(*shape, seed=seed) + mean).to(dtype)
    return values.contiguous(memory_format=torch.channels_last)


def plain_clip_norm(
    x: Tensor, weight: Tensor, bias: Tensor, *, groups: int, frames: int, silu: bool
) -> Tensor:
    clip = x.unflatten(0, (-1, frames)).transpose(1, 2)
    y = F.group_norm(clip, groups, weight, bias, 1e-5).transpose(1, 2).flatten(0, 1)
    return F.silu(y) if silu else y


def compare(
    fast: Callable[..., Tensor], plain: Callable[..., Tensor], *inputs: Tensor, slack: float = 1.0
) -> None:
    """Results and gradients of both, the plain ones in float64; `slack` times the tolerance."""
    mine = [value.detach().clone().requires_grad_() for value in inputs]
    theirs = [value.detach().double().requires_grad_() for value in inputs]
    found, wanted = fast(*mine), plain(*theirs)
    assert found.dtype == inputs[0].dtype
    assert found.stride() == inputs[0].stride() or found.shape != inputs[0].shape
    gradient = numbers(*found.shape, seed=7).to(found.dtype)
    gradients = torch.autograd.grad(found, mine, gradient)
    true = torch.autograd.grad(wanted, theirs, gradient.double())
    for name, value, truth in zip(
        ["result", *map(str, range(9))], (found, *gradients), (wanted, *true), strict=False
    ):
        error = (value.double() - truth).abs().max() / truth.abs().max()
        assert error < slack * TOLERANCE[value.dtype], f"{name}: {error:.1e}"


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize(
    ("shape", "frames", "groups"),
    [((4, 32, 4, 5), 2, 8), ((2, 64, 8, 8), 1, 16), ((17, 160, 3, 3), 17, 32), ((3, 480, 5, 7), 3, 16),
     ((6, 240, 7, 3), 1, 16), ((2, 40, 1, 1), 1, 8), ((1, 32, 40, 90), 1, 8)],
)  # fmt: skip
def test_clip_norm(shape: tuple[int, ...], frames: int, groups: int, silu: bool, dtype: torch.dtype) -> None:
    channels = shape[1]
    compare(
        lambda x, w, b: fused.clip_norm(x, w, b, groups=groups, eps=1e-5, frames=frames, silu=silu),
        lambda x, w, b: plain_clip_norm(x, w, b, groups=groups, frames=frames, silu=silu),
        picture(*shape, dtype=dtype, mean=5.0), numbers(channels, seed=1), numbers(channels, seed=2),
    )  # fmt: skip


@needs_kernels
def test_a_large_mean_does_not_eat_the_deviation() -> None:
    x = picture(2, 32, 9, 9, dtype=torch.float32, mean=3000.0)
    ones, zeros = torch.ones(32, device=DEVICE), torch.zeros(32, device=DEVICE)
    found = fused.clip_norm(x, ones, zeros, groups=8, eps=1e-5)
    wanted = F.group_norm(x.double(), 8, eps=1e-5)
    assert (found - wanted).abs().max() < 2e-3, (
        "float32 itself holds 3000 to 1e-4, a deviation of 2 to 5e-5 of it"
    )


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 7, 64), (3, 700, 160), (2, 3, 320), (1, 1, 8)])
def test_token_norm(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    compare(
        lambda x, w, b: fused.token_norm(x, w, b, eps=1e-5),
        lambda x, w, b: F.layer_norm(x, shape[-1:], w, b, 1e-5),
        3 + numbers(*shape, dtype=dtype), numbers(shape[-1], seed=1), numbers(shape[-1], seed=2),
    )  # fmt: skip


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("shape", [(3, 8, 9, 11), (2, 3, 5, 4), (2, 160, 6, 6), (1, 32, 70, 50)])
def test_add_bias(shape: tuple[int, ...], silu: bool, dtype: torch.dtype) -> None:
    def plain(x: Tensor, bias: Tensor) -> Tensor:
        value = x + bias[:, None, None]
        return F.silu(value) if silu else value

    compare(
        lambda x, b: fused.add_bias(x, b, silu=silu), plain, picture(*shape, dtype=dtype), numbers(shape[1])
    )


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 7, 64), (2, 300, 240), (3, 20)])
def test_geglu(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    def plain(x: Tensor) -> Tensor:
        value, gate = x.chunk(2, dim=-1)
        return value * F.gelu(gate)

    compare(gated.geglu, plain, 2 * numbers(*shape, dtype=dtype))


@needs_kernels
def test_sums_over_places_of_a_large_map() -> None:
    x = picture(3, 48, 40, 40, dtype=torch.float16)
    assert x.numel() >= fused.FEWEST_SUMMED
    for value, axis in ((x, 1), (x.permute(0, 2, 3, 1), 3), (x.permute(0, 2, 3, 1), -1)):
        found = fused.sums_over_places(value, axis=axis)
        torch.testing.assert_close(found.double(), x.double().sum((0, 2, 3)), atol=1e-2, rtol=1e-5)


@needs_kernels
@pytest.mark.parametrize("dtype", MATRIX_DTYPES)
@pytest.mark.parametrize(
    ("shape", "heads"),
    [((7, 16, 64), 4), ((5, 17, 160), 8), ((3, 4, 32), 2), ((9, 24, 240), 8), ((2, 40, 64), 2), ((1, 64, 32), 1)],
)  # fmt: skip
def test_short_attention(shape: tuple[int, ...], heads: int, dtype: torch.dtype) -> None:
    def plain(*tokens: Tensor) -> Tensor:
        q, k, v = (value.unflatten(-1, (heads, -1)).transpose(1, 2) for value in tokens)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    q, k, v = (numbers(*shape, dtype=dtype, seed=seed) for seed in (1, 2, 3))
    assert short_attention.fits_short_attention(q, k, heads, "always")
    # weights are rounded before they multiply, as in PyTorch's own kernels
    compare(lambda *tokens: short_attention.short_attention(*tokens, heads=heads), plain, q, k, v, slack=2)


@needs_kernels
def test_the_same_bits_every_time() -> None:
    x = picture(4, 64, 24, 24, dtype=torch.float16).requires_grad_()
    weight, bias = numbers(64).requires_grad_(), numbers(64, seed=1).requires_grad_()

    def once() -> list[Tensor]:
        y = fused.clip_norm(x, weight, bias, groups=8, eps=1e-5, frames=2, silu=True)
        z = fused.add_bias(y, bias, silu=True)
        return [y, z, *torch.autograd.grad(z.float().square().sum(), (x, weight, bias))]

    assert all(torch.equal(a, b) for a, b in zip(once(), once(), strict=True))


@needs_kernels
def test_under_checkpointing_autocast_and_inference_mode() -> None:
    x = picture(2, 16, 4, 4, dtype=torch.float16).requires_grad_()
    weight, bias = numbers(16).requires_grad_(), numbers(16, seed=1)

    def norm(value: Tensor) -> Tensor:
        return fused.clip_norm(value, weight, bias, groups=4, eps=1e-5, silu=True)

    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        y = norm(x)
        again = checkpoint(norm, x, use_reentrant=False)
    assert y.dtype == again.dtype == torch.float16
    for one, other in zip(
        torch.autograd.grad(y.float().square().sum(), (x, weight)),
        torch.autograd.grad(again.float().square().sum(), (x, weight)),
        strict=True,
    ):
        assert torch.equal(one, other)
    with torch.inference_mode():
        assert torch.equal(norm(x), y)


@needs_kernels
def test_a_gradient_in_another_layout_is_taken() -> None:
    x = picture(2, 32, 4, 6, dtype=torch.float32).requires_grad_()
    weight, bias = numbers(32), numbers(32, seed=1)
    y = fused.clip_norm(x, weight, bias, groups=8, eps=1e-5)
    gradient = numbers(2, 32, 4, 6, seed=5)
    (found,) = torch.autograd.grad(y, x, gradient)
    (wanted,) = torch.autograd.grad(F.group_norm(x, 8, weight, bias, 1e-5), x, gradient)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@needs_kernels
def test_operators_are_what_pytorch_expects() -> None:
    """Their shapes without data, their gradients, and that they change nothing given."""
    x = picture(2, 16, 4, 4, dtype=torch.float32).requires_grad_()
    weight, bias = numbers(16).requires_grad_(), numbers(16, seed=1).requires_grad_()
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(fused._clip_norm, (x, weight, bias, 4, 1e-5, 2, True), test_utils=checks)
    torch.library.opcheck(fused._add_bias, (x, bias, True), test_utils=checks)
    torch.library.opcheck(fused._add_bias, (x, bias, False), test_utils=checks)
    tokens = numbers(3, 4, 16).requires_grad_()
    torch.library.opcheck(gated._geglu, (tokens,), test_utils=checks)
    torch.library.opcheck(fused._token_norm, (tokens, weight, bias, 1e-5), test_utils=checks)
    torch.library.opcheck(short_attention._short_attention, (tokens, tokens, tokens, 2), test_utils=checks)


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") == "1",
    reason="needs triton, not interpreted",
)
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("name", ["clip_norm", "token_norm", "bias", "geglu", "attention", "places"])
def test_kernels_compile_for_a_hopper_gpu(name: str, dtype: str) -> None:
    """No GPU is needed for that; reads and writes of maps are 16 bytes wide."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module = importlib.import_module(f"xdyna.models.kernels.{name}")
    maps = {"x", "y", "residual", "dx", "dy", "q", "k", "v", "out", "do", "dq", "dk", "dv"}
    sizes = {"rows", "channels", "groups", "chunk", "chunks", "total", "tokens", "width", "period", "between",
             "frames", "height", "of_clip", "of_frame", "of_line", "of_place"}  # fmt: skip
    constants = {
        "SILU": True, "STEPS": 4, "ROWS": 32, "COLUMNS": 64, "CHUNKS": 16, "WIDTH": 16, "CHANNELS": 64,
        "SEQUENCES": 4, "PRECISION": "tf32", "BEFORE": True, "CODE": True, "BIAS": True, "RESIDUAL": True,
    }  # fmt: skip
    if name == "attention":
        constants["ROWS"] = 64
    compiled = 0
    for kernel in list(vars(module).values()):
        helper = getattr(kernel, "__name__", "") in (
            "_attention_tile",
            "gradient_before_silu",
            "_share_below",
        )
        if helper or not isinstance(kernel, triton.runtime.JITFunction):
            continue
        signature, fixed, divisible = {}, {}, {}
        for place, argument in enumerate(kernel.arg_names):
            if argument.isupper():
                signature[argument], fixed[(place,)] = "constexpr", constants[argument]
            elif argument in ("eps", "scale"):
                signature[argument] = "fp32"
            else:
                pointer = "*" + (dtype if argument in maps else "fp32")
                signature[argument] = "i32" if argument in sizes else pointer
                divisible[(place,)] = [["tt.divisibility", 16]]
        made = triton.compile(
            ASTSource(kernel, signature, fixed, divisible), target=GPUTarget("cuda", 90, 32)
        )
        assert made.asm["cubin"]
        if maps & set(kernel.arg_names):
            assert "ld.global.v4" in made.asm["ptx"], kernel.__name__
        compiled += 1
    assert compiled >= (1 if name == "places" else 2)


# -- what needs no kernels ------------------------------------------------------------------------------------------


def test_the_biases_gradient_is_that_of_the_plain_sum() -> None:
    matrix = torch.randn(5, 7, 6, dtype=torch.float64).requires_grad_()
    weight = torch.randn(4, 6, dtype=torch.float64).requires_grad_()
    bias = torch.randn(4, dtype=torch.float64).requires_grad_()
    y = fused.bias_gradient(F.linear(matrix, weight, bias.detach()), bias)
    plain = F.linear(matrix, weight, bias)
    torch.testing.assert_close(y, plain, atol=0, rtol=0)
    gradient = torch.randn_like(y)
    found = torch.autograd.grad(y, (matrix, weight, bias), gradient)
    wanted = torch.autograd.grad(plain, (matrix, weight, bias), gradient)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == torch.float64
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_sums_over_places_of_any_layout() -> None:
    x = torch.randn(2, 6, 3, 5)
    for value in (x, x.contiguous(memory_format=torch.channels_last), x[:, :, ::2]):
        torch.testing.assert_close(fused.sums_over_places(value, axis=1), value.sum((0, 2, 3)))
        torch.testing.assert_close(fused.sums_over_places(value, axis=-1), value.sum((0, 1, 2)))


def test_kernels_that_fail_are_told_and_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as on a machine without a C compiler."""

    class Broken:
        def column_sums(self, matrix: Tensor) -> Tensor:
            raise RuntimeError("Failed to find C compiler")

    class Wrong:
        def column_sums(self, matrix: Tensor) -> Tensor:
            return torch.zeros(matrix.shape[1])

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not fused.kernels_available.__wrapped__("cpu")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    for kernels, said in ((Broken(), "C compiler"), (Wrong(), "compute wrongly")):
        monkeypatch.setattr(fused, "load_kernels", lambda kernels=kernels: kernels)
        assert not fused.kernels_available.__wrapped__("cpu")
        assert said in caplog.text
    assert "pip install triton" in caplog.text


def test_where_kernels_are_used() -> None:
    assert not fused.kernels_available("mps")
    half, full = torch.zeros(2, device=DEVICE).half(), torch.zeros(2, device=DEVICE)
    there = fused.kernels_available(DEVICE)
    assert not fused.fits(half, "never")
    assert fused.fits(half, "half") == fused.fits(full, "always") == there
    assert not fused.fits(full, "half")
    assert not fused.fits(full.double(), "always")
    assert not fused.fits(full[:0], "always")
