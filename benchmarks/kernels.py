"""What the fused kernels gain, one at a time, at the shapes of the embedded model's training.

    python -m benchmarks.kernels [--only norm tokens bias gate attention conditions] [--share N] [-o F]

For each: milliseconds of one call forward, and of forward and backward, by the plain way, by the fused one and by other
ways there are; how far the results lie apart; and the least time that memory allows for what must be read and written,
at the speed of a large copy measured first. On a GPU calls are recorded as CUDA graphs, so the host does not count. On
a CPU it only shows that it runs.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from xdyna.models import fused
from xdyna.models.fusing import fuse
from xdyna.models.gated import geglu
from xdyna.models.norms import TokenNorm
from xdyna.models.short_attention import fits_short_attention, short_attention
from xdyna.training.norms import HalfGroupNorm, HalfLayerNorm

REPEATS = 20
GROUPS = ("norm", "tokens", "bias", "gate", "attention", "conditions")


@dataclass(frozen=True)
class Case:
    """One operation at one size.

    Attributes:
        name: what, and at which size.
        ways: functions of the inputs, the plain one first.
        inputs: tensors that all want gradients; the first is half precision.
        moved: bytes that must be read and written forward, and backward.
    """

    name: str
    ways: dict[str, Callable[..., Tensor]]
    inputs: list[Tensor]
    moved: tuple[int, int]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS)
    parser.add_argument("--share", type=int, default=1, help="divide batches and sides by this")
    parser.add_argument("-o", "--output")
    given = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    speed = copy_speed(device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    rows: list[dict[str, Any]] = [
        {"device": name, "torch": torch.__version__, "copy_GB_s": round(speed / 1e9, 3)}
    ]
    print(rows[0], flush=True)
    makers = {"norm": norms, "tokens": token_norms, "bias": biases, "gate": gates, "attention": attentions,
              "conditions": conditions}  # fmt: skip
    for group in given.only:
        for case in makers[group](device, given.share):
            for row in measure(case, speed):
                rows.append(row)
                print(row, flush=True)
    if given.output:
        Path(given.output).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


# -- cases ----------------------------------------------------------------------------------------------------------


def norms(device: torch.device, share: int) -> list[Case]:
    """Group norm and SiLU: over clips of 4+1 frames, over single frames, in the autoencoder."""
    cases = []
    for batch, frames, channels, groups, side in (
        (240, 5, 64, 16, 32), (240, 5, 160, 16, 16), (240, 5, 480, 16, 8), (240, 1, 64, 16, 32),
        (408, 17, 64, 16, 32), (48, 1, 32, 8, 256), (48, 1, 128, 8, 32),
    ):  # fmt: skip
        clips = max(1, batch // frames // share)
        x = half(device, clips * frames, channels, max(2, side // share), max(2, side // share))
        norm = HalfGroupNorm(groups, channels).to(device)
        ways: dict[str, Callable[..., Tensor]] = {
            "plain": functools.partial(by_module, norm, frames=frames, silu=True)
        }
        if fused.fits(x, "half"):
            ways["fused"] = functools.partial(
                fused.clip_norm, groups=groups, eps=1e-5, frames=frames, silu=True
            )
        size = x.numel() * x.element_size()
        parameters = [value.detach().requires_grad_() for value in (norm.weight, norm.bias)]
        cases.append(
            Case(f"clip_norm+silu {describe(x)} f={frames}", ways, [x, *parameters], (3 * size, 5 * size))
        )
    return cases


def token_norms(device: torch.device, share: int) -> list[Case]:
    """Layer norm of the spatial transformers and the motion modules."""
    cases = []
    for rows, channels in ((240 * 1024, 64), (240 * 256, 160), (24576 * 16, 64), (6144 * 16, 160)):
        x = half(device, rows // share**3, channels)
        plain, norm = HalfLayerNorm(channels).to(device), TokenNorm(channels)
        ways: dict[str, Callable[..., Tensor]] = {"plain": functools.partial(by_module, plain)}
        if fused.fits(x, "half"):
            ways["fused"] = functools.partial(fused.token_norm, eps=norm.eps)
        size = x.numel() * x.element_size()
        parameters = [value.detach().requires_grad_() for value in (plain.weight, plain.bias)]
        cases.append(Case(f"token_norm {describe(x)}", ways, [x, *parameters], (2 * size, 3 * size)))
    return cases


def biases(device: torch.device, share: int) -> list[Case]:
    """A bias's gradient: sums of a channels_last map and of a matrix."""
    cases = []
    for shape in ((240, 64, 32, 32), (240, 160, 16, 16), (192, 8, 256, 256), (48, 32, 256, 256)):
        batch, channels, side, _ = shape
        x = half(device, max(1, batch // share), channels, max(2, side // share), max(2, side // share))

        def plain(x: Tensor, bias: Tensor) -> Tensor:
            return x + bias.to(x.dtype)[:, None, None]

        ways: dict[str, Callable[..., Tensor]] = {"plain": plain, "ones": BiasByProduct.apply}
        if fused.fits(x, "half"):
            ways["fused"] = fused.add_bias
        size = x.numel() * x.element_size()
        cases.append(Case(f"bias {describe(x)}", ways, [x, parameter(device, channels)], (2 * size, size)))
    return cases


def gates(device: torch.device, share: int) -> list[Case]:
    """The gated activation of feed-forwards."""
    cases = []
    for rows, channels in ((240 * 1024, 256), (240 * 256, 640), (24576 * 16, 256)):
        x = half(device, rows // share**3, 2 * channels)

        def plain(x: Tensor) -> Tensor:
            value, gate = x.chunk(2, dim=-1)
            return value * F.gelu(gate)

        ways: dict[str, Callable[..., Tensor]] = {"plain": plain}
        if fused.fits(x, "half"):
            ways["fused"] = geglu
        size = rows // share**3 * channels * x.element_size()
        cases.append(Case(f"geglu {describe(x)}", ways, [x], (3 * size, 5 * size)))
    return cases


def attentions(device: torch.device, share: int) -> list[Case]:
    """Attention over time: many sequences of 16 tokens."""
    cases = []
    for number, channels in ((24576, 64), (6144, 160), (1536, 240)):
        number = max(1, number // share**3)
        tokens = [half(device, number, 16, channels) for _ in range(3)]
        ways: dict[str, Callable[..., Tensor]] = {"plain": in_pieces, "products": by_products}
        if device.type == "cuda":
            for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH):
                ways[backend.name.lower()] = functools.partial(in_pieces, backend=backend)
        if fits_short_attention(tokens[0], tokens[1], 4, "half"):
            ways["fused"] = functools.partial(short_attention, heads=4)
        size = tokens[0].numel() * tokens[0].element_size()
        cases.append(Case(f"attention {number}x16x{channels}", ways, tokens, (4 * size, 7 * size)))
    return cases


def conditions(device: torch.device, share: int) -> list[Case]:
    """The condition embedding of a ControlNet: 192 pictures of 256 px; all its layers."""
    cases = []
    for channels in (3, 6):
        embedding = ControlNetConditioningEmbedding(64, channels, (8, 16, 48, 96)).to(device)
        embedding.conv_out.reset_parameters()
        embedding.to(memory_format=torch.channels_last)
        made = nn.ModuleList([copy.deepcopy(embedding)])
        ways: dict[str, Callable[..., Tensor]] = {}
        x = torch.rand(max(1, 192 // share), channels, max(16, 256 // share), max(16, 256 // share),
                       device=device)  # fmt: skip
        names = list(dict(embedding.named_parameters()))
        ways["plain"] = functools.partial(embed, embedding, x, names)
        fuse(made, "half")
        ways["fused"] = functools.partial(embed, made[0], x, names)
        places = x.shape[0] * x.shape[2] * x.shape[3]
        # each layer's output once written and once read again: 8 and 8 channels, then 16 and 16 at a quarter, ...
        moved = 2 * int(2 * places * (channels / 2 + 8 + 8 + (16 + 16) / 4 + (48 + 48) / 16 + (96 + 64) / 64))
        parameters = [value.detach().clone().requires_grad_() for value in embedding.parameters()]
        cases.append(Case(f"conditions {describe(x)}", ways, parameters, (moved, 2 * moved)))
    return cases


# -- ways -----------------------------------------------------------------------------------------------------------


class BiasByProduct(torch.autograd.Function):
    """A bias whose gradient is a row of ones times the gradient as a matrix (n*h*w, c)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor) -> Tensor:
        """(n c h w) plus (c)."""
        return x + bias.to(x.dtype)[:, None, None]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """The map's gradient as it is, and the bias's."""
        matrix = gradient.permute(0, 2, 3, 1).flatten(0, 2)
        return gradient, (matrix.new_ones(1, len(matrix)) @ matrix)[0].float()


def by_module(norm: nn.Module, x: Tensor, weight: Tensor, bias: Tensor, **options: Any) -> Tensor:
    return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (x,), options)


def embed(embedding: nn.Module, x: Tensor, names: list[str], *parameters: Tensor) -> Tensor:
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        return torch.func.functional_call(embedding, dict(zip(names, parameters, strict=True)), (x,))


def in_pieces(query: Tensor, key: Tensor, value: Tensor, backend: SDPBackend | None = None) -> Tensor:
    """PyTorch's attention, in pieces that a grid can count."""
    heads, most = 4, 65_535 // 4
    parts = []
    for begin in range(0, len(query), most):
        q, k, v = (
            t[begin : begin + most].unflatten(-1, (heads, -1)).transpose(1, 2) for t in (query, key, value)
        )
        if backend is None:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            with sdpa_kernel(backend):
                mixed = F.scaled_dot_product_attention(q, k, v)
        parts.append(mixed.transpose(1, 2).flatten(2))
    return torch.cat(parts)


def by_products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Two batched products, and a softmax in half precision's memory but float32's arithmetic."""
    q, k, v = (t.unflatten(-1, (4, -1)).transpose(1, 2).flatten(0, 1) for t in (query, key, value))
    weights = torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(1, 2), dim=-1)
    return (weights @ v).unflatten(0, (-1, 4)).transpose(1, 2).flatten(2)


# -- measuring ------------------------------------------------------------------------------------------------------


def measure(case: Case, speed: float) -> list[dict[str, Any]]:
    """A row for each way; what fails says so."""
    floors = [1e3 * case.moved[0] / speed, 1e3 * sum(case.moved) / speed]
    rows, plain = [], None
    for way, function in case.ways.items():
        row: dict[str, Any] = {"case": case.name, "way": way}
        try:
            both = functools.partial(there_and_back, function, case.inputs)
            with torch.no_grad():
                forward = milliseconds(functools.partial(function, *case.inputs))
            row |= {"forward_ms": round(forward, 4), "both_ms": round(milliseconds(both), 4),
                    "floor_ms": [round(floor, 6) for floor in floors]}  # fmt: skip
            found = both()
            plain = found if plain is None else plain
            row["apart"] = [f"{apart(a, b):.0e}" for a, b in zip(found, plain, strict=True)]
        except (RuntimeError, torch.OutOfMemoryError) as error:
            row["failed"] = f"{type(error).__name__}: {error}"[:300]
        rows.append(row)
    return rows


def there_and_back(function: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """The result and the gradients of its product with a fixed tensor."""
    output = function(*inputs)
    return [output.detach(), *torch.autograd.grad(output, inputs, torch.ones_like(output))]


def milliseconds(function: Callable[[], Any]) -> float:
    """Of one call: recorded as a CUDA graph and replayed, or simply called where there is no CUDA."""
    if not torch.cuda.is_available():
        function()
        started = time.perf_counter()
        function()
        return 1e3 * (time.perf_counter() - started)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        function()
    graph.replay()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(REPEATS):
        graph.replay()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / REPEATS


def copy_speed(device: torch.device) -> float:
    """Bytes a second, read and written, of a large copy."""
    source = torch.zeros(2**29 if device.type == "cuda" else 2**22, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * len(source) / (1e-3 * milliseconds(functools.partial(target.copy_, source)))


def half(device: torch.device, *shape: int) -> Tensor:
    """bf16 noise that wants gradients; maps are channels_last."""
    x = torch.randn(shape, device=device).bfloat16()
    x = x.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else x
    return x.requires_grad_()


def parameter(device: torch.device, size: int) -> Tensor:
    return torch.randn(size, device=device).requires_grad_()


def apart(found: Tensor, wanted: Tensor) -> float:
    """Largest difference as a share of the largest value."""
    return ((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12)).item()


def describe(x: Tensor) -> str:
    return "x".join(str(side) for side in x.shape)


if __name__ == "__main__":
    main()
