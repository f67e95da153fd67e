"""Operations and bytes of a network's pass, and what a machine does of them in a second."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def machine_rates(device: torch.device) -> dict[str, float]:
    """TFLOP/s of a half-precision product of 8192-cubes and GB/s of a large copy (small ones, float32, on a CPU)."""
    cuda = device.type == "cuda"
    side, dtype = (8192, torch.float16) if cuda else (512, torch.float32)
    left = torch.randn(side, side, device=device, dtype=dtype)
    large = torch.empty(1 << (29 if cuda else 22), dtype=torch.uint8, device=device)
    there = torch.empty_like(large)
    product = _seconds(lambda: left @ left, device)
    copy = _seconds(lambda: there.copy_(large), device)
    return {
        "TFLOP/s of a product": 2 * side**3 / product / 1e12,
        "GB/s of a copy": 2 * len(large) / copy / 1e9,
    }


def _seconds(work: Callable[[], Any], device: torch.device, repeats: int = 10) -> float:
    for turn in range(2):  # the first time for nothing
        _wait(device)
        begin = time.monotonic()
        for _ in range(repeats if turn else 2):
            work()
        _wait(device)
    return (time.monotonic() - begin) / repeats


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


@torch.inference_mode()
def count_pass(parts: Any, protocol: Any, *, bytes_a_number: int = 2) -> Iterator[tuple[str, int, int]]:
    """For each network: name, operations, and bytes that its layers read and write, each layer by itself.

    The denoiser on one window of both guidance halves, a ControlNet on the window's frames once, the decoder on one
    frame. Attention counts as operations and not as bytes; what is fused in one kernel moves less than is counted.
    Shapes alone are looked at ("meta" tensors): nothing runs.
    """
    from benchmarks.full_size_ways import WINDOW

    halves = 1 if protocol.negative is None else 2
    joined = protocol.tokens.joined()

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, device="meta")

    def context(rows: int, tokens: Tensor | None) -> Tensor | None:
        return None if tokens is None else empty(rows, *tokens.shape[1:])

    channels, place, size = protocol.channels, protocol.place, protocol.size
    time_ = torch.zeros((), device="meta")
    calls: dict[str, tuple[nn.Module, Callable[[nn.Module], Any]]] = {
        "denoiser": (
            parts.unet,
            lambda net: net(empty(halves, channels, WINDOW + 1, *place), time_, context(halves, joined)),
        ),
        "decoder": (parts.vae, lambda net: net.decode(empty(1, channels, *place))),
    }
    for name, network, pictures in (
        ("pose ControlNet", parts.pose_controlnet, 3),
        ("face ControlNet", parts.face_controlnet, 6),
    ):
        if network is not None:
            calls[name] = (
                network,
                lambda net, pictures=pictures: net(
                    empty(WINDOW, channels, *place), time_, context(WINDOW, protocol.tokens.text),
                    empty(WINDOW, pictures, *size), return_dict=False,
                ),
            )  # fmt: skip
    for name, (network, call) in calls.items():
        copied = _on_meta(network)
        moved = _Moved(copied)
        with FlopCounterMode(display=False) as counter:
            call(copied)
        yield name, counter.get_total_flops(), bytes_a_number * moved.numbers


class _Moved:
    """Counts the numbers that a network's leaf layers read and write."""

    def __init__(self, network: nn.Module) -> None:
        self.numbers = 0
        for module in network.modules():
            if not list(module.children()):
                module.register_forward_hook(self._count)

    def _count(self, module: nn.Module, given: Any, made: Any) -> None:
        values = [v for v in (*given, made, *module.parameters(recurse=False)) if isinstance(v, Tensor)]
        self.numbers += sum(value.numel() for value in values)


def _on_meta(network: nn.Module) -> nn.Module:
    """The network's shapes without its numbers."""
    memo = {
        id(value): type(value)(torch.empty_like(value, device="meta"), requires_grad=False)
        if isinstance(value, nn.Parameter)
        else torch.empty_like(value, device="meta")
        for value in (*network.parameters(), *network.buffers())
    }
    return copy.deepcopy(network, memo)  # type: ignore[arg-type]
