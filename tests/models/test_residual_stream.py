"""Sums taken in place, kernels as in test_fused.py: transformers and motion modules fused against plain."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests import tiny
from tests.models.test_fused import DEVICE, DTYPES, needs_kernels, numbers, picture
from tests.models.test_fused_layers import close
from tests.models.test_fusing import filled
from xdyna.models import attention, fused_layers, motion
from xdyna.models.attention import AttentionOptions, Context, SpatialTransformer, TransformerBlock
from xdyna.models.blocks import make_transformer
from xdyna.models.fused_layers import FusedConv2d, FusedLinear, add_places
from xdyna.models.fusing import fuse
from xdyna.models.motion import MotionModule
from xdyna.models.norms import TokenNorm
from xdyna.models.residual_stream import ResidualStream, Sum, is_product
from xdyna.weights.compact import hold

FRAMES, CLIPS = 3, 2


@pytest.fixture(autouse=True)
def _exact_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, cuDNN rounds float32 convolutions to TF32, which products that stand for them do not."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


class Operations(TorchDispatchMode):
    """Names of what runs inside on tensors of at least so many numbers."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least = least
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = func(*args, **(kwargs or {}))
        sizes = [value.numel() for value in args if isinstance(value, Tensor)]
        if sizes and max(sizes) >= self.least:
            self.names.append(func.name().removeprefix("aten::"))
        return made


def transformer(reference: str | None, *, tokens: int | None) -> SpatialTransformer:
    options = AttentionOptions(
        heads=2, cross_attention_dim=tokens, image_tokens=2 if tokens else 0, reference=reference,
        position_gain=0.5, adapter_query_init="query",
    )  # fmt: skip
    made = filled(make_transformer(24, options, groups=8)).to(DEVICE)
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def context(scale: float | Tensor = 1.0, *, width: int | None = 12) -> Context:
    given = None if width is None else numbers(CLIPS, 5, width)
    features = [numbers(CLIPS, 30, 24, seed=4)]
    return Context(
        frames=FRAMES, time=torch.empty(0), tokens=given, reference_scale=scale, reference_features=features
    )


@needs_kernels
@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize(
    ("reference", "tokens", "scale"),
    [
        ("dynamics-adapter", 12, 1.0), ("dynamics-adapter", None, 0.3), ("dynamics-adapter", 12, 0.0),
        ("dynamics-adapter", 12, torch.tensor([0.5, 2.0])), ("reference-net", 12, 0.5), (None, None, 1.0),
        ("ip-adapter", 12, 0.5),
    ],
)  # fmt: skip
def test_a_transformer_in_place(
    reference: str | None, tokens: int | None, scale: float | Tensor, pieces: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    plain = transformer(reference, tokens=tokens)
    made = copy.deepcopy(plain)
    fuse(made, "always")
    x = picture(CLIPS * FRAMES, 24, 5, 6, dtype=torch.float32)
    if pieces > 1:
        monkeypatch.setattr(attention, "MOST_HIDDEN", 8 * x.numel() // pieces)
    scale = scale.to(DEVICE) if isinstance(scale, Tensor) else scale
    given, before = context(scale, width=tokens), x.clone()
    with torch.no_grad():
        wanted = plain(x, given)
        found = made(x, given)
    assert torch.equal(x, before)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, wanted, atol=2e-5 * wanted.abs().max().item(), rtol=1e-4)
    with_gradients = made(x.requires_grad_(), given)
    torch.testing.assert_close(with_gradients, wanted, atol=1e-4, rtol=1e-4)
    (gradient,) = torch.autograd.grad(with_gradients.square().sum(), x)
    (true,) = torch.autograd.grad(plain(x, given).square().sum(), x)
    torch.testing.assert_close(gradient, true, atol=1e-4 * true.abs().max().item(), rtol=1e-3)


@needs_kernels
def test_no_pass_of_a_transformer_adds_alone() -> None:
    """Neither tokens nor biases: the products and the norms do, and one kernel at the end."""
    made = transformer("dynamics-adapter", tokens=12)
    for module in made.modules():
        if isinstance(module, attention.Attention) and hasattr(module, "position_gain"):
            module.position_gain = None
    fuse(made, "always")
    x = picture(CLIPS * FRAMES, 24, 5, 6, dtype=torch.float32)
    seen = Operations(x.numel())
    with torch.no_grad(), seen:
        made(x, context(0.5))
    # the one addition is that of what text and image gave, before their projection
    assert sum(name.startswith(("add.", "add_.")) for name in seen.names) == 1
    assert seen.names.count("addmm_") == 4
    assert seen.names.count("xdyna::add_residual") == 1


@needs_kernels
@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("reference_frames", [0, 1])
def test_a_motion_module_in_place(reference_frames: int, bands: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = filled(MotionModule(24, 2, groups=8)).to(DEVICE)
    made = copy.deepcopy(plain)
    fuse(made, "always")
    x = picture(CLIPS * FRAMES, 24, 5, 6, dtype=torch.float32)
    if bands > 1:
        monkeypatch.setattr(motion, "AT_ONCE", x.numel() // bands)
    seen = Operations(x.numel() // 4)
    with torch.no_grad():
        wanted = plain(x, frames=FRAMES, reference_frames=reference_frames)
        with seen:
            found = made(x, frames=FRAMES, reference_frames=reference_frames)
    torch.testing.assert_close(found, wanted, atol=2e-5 * wanted.abs().max().item(), rtol=1e-4)
    assert not any(name.startswith(("add.", "add_.", "bmm")) for name in seen.names)
    with_gradients = made(x.requires_grad_(), frames=FRAMES, reference_frames=reference_frames)
    torch.testing.assert_close(with_gradients, wanted, atol=1e-4, rtol=1e-4)


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3, 40, 4, 5), (1, 16, 24, 7, 3), (3, 1, 3, 2, 2)])
def test_add_places(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Into rows of a map without its first frame: nothing else is touched."""
    batch, frames, channels, height, width = shape
    whole = picture(batch * (frames + 1), channels, height + 2, width, dtype=dtype)
    into = whole.unflatten(0, (batch, -1))[:, 1:, :, 1:-1]
    tokens = numbers(batch * height * width, frames, channels, dtype=dtype, seed=3)
    for bias in (None, numbers(channels, seed=5)):
        before, added = whole.clone(), tokens.double() + (0 if bias is None else bias.double())
        wanted = whole.double()
        wanted.unflatten(0, (batch, -1))[:, 1:, :, 1:-1].add_(
            added.unflatten(0, (batch, height, width)).permute(0, 3, 4, 1, 2)
        )
        by_hand = before.unflatten(0, (batch, -1))[:, 1:, :, 1:-1]
        with torch.no_grad():
            add_places(into, tokens, bias, fusing="always")
            add_places(by_hand, tokens, bias, fusing="never")
        close(whole, wanted)
        close(before, wanted, slack=3)


@needs_kernels
def test_the_operator_is_what_pytorch_expects() -> None:
    into = picture(6, 16, 4, 5, dtype=torch.float32).unflatten(0, (2, 3))
    arguments = (into, numbers(40, 3, 16), numbers(16))
    torch.library.opcheck(fused_layers._add_places, arguments, test_utils=("test_schema", "test_faketensor"))


@needs_kernels
@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_weights_held_in_eight_bits(kind: str) -> None:
    """They are unpacked where they are read, in place or not."""
    plain = transformer("dynamics-adapter", tokens=12)
    hold(plain, kind)
    made = copy.deepcopy(transformer("dynamics-adapter", tokens=12))
    fuse(made, "always")
    hold(made, kind)
    x = picture(CLIPS * FRAMES, 24, 5, 6, dtype=torch.float32)
    with torch.no_grad():
        wanted = plain(x, context())
        found = made(x, context())
    torch.testing.assert_close(found, wanted, atol=2e-5 * wanted.abs().max().item(), rtol=1e-4)


@needs_kernels
@pytest.mark.parametrize("inference", [False, True])
def test_a_denoiser_in_place(inference: bool) -> None:
    plain = filled(tiny.tiny_components()["unet"]).to(DEVICE).eval()
    plain.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    made = copy.deepcopy(plain)
    fuse(made, "always")
    config = plain.config
    sample = numbers(2, config.in_channels, 4, 8, 12)
    tokens = numbers(2, config.image_tokens, config.cross_attention_dim or 1) if plain.reads_tokens else None
    with torch.inference_mode(inference), torch.set_grad_enabled(False):
        wanted, found = plain(sample, 500, tokens), made(sample, 500, tokens)
        again = made(sample, 500, tokens)
    assert torch.equal(found, again), "weights and inputs stay as they are"
    torch.testing.assert_close(found, wanted, atol=2e-4 * wanted.abs().max().item(), rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_layer_of_the_published_width_on_a_gpu(dtype: torch.dtype) -> None:
    """In half precision, alone and replayed as a CUDA graph, against float32."""
    options = AttentionOptions(
        heads=8, cross_attention_dim=768, image_tokens=16, reference="dynamics-adapter",
        position_gain=None, adapter_query_init="query",
    )  # fmt: skip
    layers = nn.ModuleList([make_transformer(320, options, groups=32), MotionModule(320, 8)])
    exact = filled(layers).cuda().to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    made = copy.deepcopy(exact).to(dtype)
    plain = copy.deepcopy(made)
    fuse(made, "half")
    x, words = picture(17, 320, 24, 16, dtype=torch.float32), numbers(1, 93, 768)

    def run(network: nn.Module, x: Tensor, words: Tensor) -> Tensor:
        given = Context(frames=17, time=torch.empty(0), tokens=words)
        return network[1](network[0](x, given), frames=17)  # type: ignore[index]

    with torch.inference_mode():
        true = run(exact, x, words)
        x, words = x.to(dtype), words.to(dtype)
        errors = [(run(one, x, words).float() - true).norm() / true.norm() for one in (made, plain)]
        assert errors[0] < 1.2 * errors[1] + 1e-4, errors
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            recorded = run(made, x, words)
        graph.replay()
        torch.testing.assert_close(recorded, run(made, x, words), atol=0, rtol=0)


# -- what needs no kernels ------------------------------------------------------------------------------------------


def test_a_stream_is_the_sum_it_stands_for() -> None:
    """The bookkeeping of biases, in float64, with layers that may and may not be taken as products."""
    tokens, mixed = torch.randn(4, 5, 8).double(), torch.randn(4, 5, 6).double()
    layers = [FusedLinear(6, 8), nn.Sequential(nn.Linear(6, 8)), FusedLinear(6, 8, bias=False)]
    last, norm = FusedConv2d(8, 3, 1), TokenNorm(8)
    for module in (*layers, last, norm):
        module.double()
    with torch.no_grad():
        stream, total, wanted = ResidualStream(tokens.clone()), Sum(), tokens
        for layer in layers:
            for scale in (1.0, 0.5, torch.rand(4)):
                stream.add(layer, mixed, scale)
                total.add(layer, mixed, scale)
        wanted = tokens + total.total()
        torch.testing.assert_close(stream.normed(norm), norm(wanted))
        made, bias = stream.handed_over(last)
        true = last(wanted.movedim(2, 1)[..., None])[..., 0].movedim(1, 2)
        torch.testing.assert_close(made + bias, true)


def test_what_is_a_product() -> None:
    assert is_product(FusedLinear(3, 4))
    assert is_product(FusedConv2d(3, 4, 1))
    others = (FusedConv2d(3, 4, 3, padding=1), FusedConv2d(3, 4, 1, stride=2), FusedConv2d(4, 4, 1, groups=2))
    assert not any(is_product(layer) for layer in (*others, nn.Identity()))


def test_after_leaves_its_tokens_as_they_are() -> None:
    """Both guidance halves may start from the same ones."""
    block = TransformerBlock(8, attn1=nn.Identity(), attn2=None)
    tokens = torch.randn(2, 3, 8)
    before = tokens.clone()
    with torch.no_grad():
        block.after(tokens, context())
    assert torch.equal(tokens, before)
