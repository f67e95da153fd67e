"""Where a denoising step's memory goes at the published size, counted without a GPU.

    python -m benchmarks.memory [--frames 16] [--width full] [--offload] [--fused] [--graphs] [--top 12]

Runs one step of our loop (896 x 512, guidance 7.5, both ControlNets, windows of 16 with an overlap of 4) on fake
tensors, which have shapes and no content, and follows every storage from its making to its end. Printed for each
network of each window: the peak of everything but the weights, and what lay in memory then. The fused kernels need a
GPU, so this is the plain way, which needs more at the norms; --fused counts as where they run. Checked once: 4.33 GiB
allocated with --offload on an H200, 4.32 counted the plain way.
"""

from __future__ import annotations

import argparse
import contextlib
import traceback
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import torch
from benchmarks.full_size_ways import CONFIGS, OVERLAP, WINDOW
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from xdyna.models import fused as kernels
from xdyna.models.fusing import fuse
from xdyna.sampling import (
    Controls,
    Networks,
    Tokens,
    WindowPlan,
    denoise,
    loop,
    make_scheduler,
    set_timesteps,
)
from xdyna.sampling.recorded import Arena
from xdyna.training.config_file import load_config
from xdyna.training.networks import build_networks, build_scheduler

GIB, MIB = 2**30, 2**20
STRIDE = 16 * MIB
"""A new record is looked at closely if it beats the last one by so much: looking is slow."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--frames", type=int, default=WINDOW)
    parser.add_argument("--size", nargs=2, type=int, default=[896, 512], metavar=("H", "W"))
    parser.add_argument("--width", choices=tuple(CONFIGS), default="full")
    parser.add_argument("--top", type=int, default=12, help="how many kinds of tensors to show of each peak")
    parser.add_argument(
        "--offload",
        action="store_true",
        help="as --offload runs; what waits in main memory for later windows is still counted",
    )
    parser.add_argument("--fused", action="store_true", help="as where the fused kernels run")
    parser.add_argument(
        "--graphs",
        action="store_true",
        help="residuals put together where they stand, as recordings read them; their arena is not counted",
    )
    given = parser.parse_args(arguments)
    ways = {"offload": given.offload, "fused": given.fused, "graphs": given.graphs}
    for line in peaks(given.width, given.frames, given.size, top=given.top, **ways):
        print(line, flush=True)


class Storages(TorchDispatchMode):
    """Follows every storage that is made inside.

    Args:
        beside: networks whose weights do not count.
    """

    def __init__(self, beside: Sequence[nn.Module]) -> None:
        super().__init__()
        self._weights = {
            tensor.untyped_storage()._cdata
            for network in beside
            for tensor in (*network.parameters(), *network.buffers())
        }
        self._live: dict[int, tuple[int, str]] = {}
        self._now = self.peak = self._looked = 0
        self._at_peak: list[tuple[int, str]] = []

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        for value in tree_leaves(output):
            if isinstance(value, Tensor):
                self._note(value)
        return output

    def begin(self) -> None:
        """Look for a new peak from what there is now."""
        self.peak = self._looked = self._now
        self._at_peak = list(self._live.values())

    def at_peak(self, top: int) -> Iterator[str]:
        """What lay in memory at the peak, the largest first."""
        sizes: Counter[str] = Counter()
        for size, what in self._at_peak:
            sizes[what] += size
        for what, size in sizes.most_common(top):
            yield f"  {size / MIB:8.1f} MiB  {what}"

    def _note(self, value: Tensor) -> None:
        storage = value.untyped_storage()
        key = storage._cdata
        if key in self._live or key in self._weights:
            return
        size = storage.nbytes()
        self._live[key] = (size, f"{tuple(value.shape)} {_maker()}")
        self._now += size
        weakref.finalize(storage, self._gone, key)
        if self._now > self.peak:
            self.peak = self._now
            if self.peak > self._looked + STRIDE:
                self._looked, self._at_peak = self.peak, list(self._live.values())

    def _gone(self, key: int) -> None:
        size, _ = self._live.pop(key, (0, ""))
        self._now -= size


def peaks(
    width: str,
    frames: int,
    size: Sequence[int],
    *,
    top: int,
    offload: bool = False,
    fused: bool = False,
    graphs: bool = False,
) -> Iterator[str]:
    """The report's lines."""
    config = load_config(CONFIGS[width])
    found: list[str] = []
    with FakeTensorMode(allow_non_fake_inputs=True):
        parts = build_networks(config, seed=0)
        networks = [parts.unet, parts.pose_controlnet, parts.face_controlnet]
        wanted = [network for network in networks if network is not None]
        for network in wanted:
            fuse(network, "half" if fused else "never")
            _halve(network)
            network.requires_grad_(False).eval()
            held = sum(p.numel() * p.element_size() for p in network.parameters())
            yield f"{type(network).__name__}: weights {held / GIB:.2f} GiB"
        storages = Storages(wanted)
        channels = config.model.latent_channels
        unit = config.model.unit
        text = None if parts.unet.config.cross_attention_dim is None else torch.zeros(1, 77, 768)
        image = None if text is None else torch.zeros(1, 16, 768)
        tokens = [Tokens(text=text, image=image), Tokens(text=text, image=image)]
        pictures = torch.zeros(1, 9, *size)
        place = (size[0] // unit, size[1] // unit)
        scheduler = make_scheduler("ddim", build_scheduler(config.noise))
        set_timesteps(scheduler, 25, "cpu")
        scheduler.timesteps = scheduler.timesteps[:1]
        waits = {"store": torch.device("cpu") if offload else None, "standing": Arena() if graphs else None}
        predict = loop.predict

        def report(what: str) -> None:
            found.append(f"{what}: {storages.peak / GIB:.3f} GiB beside the weights")
            found.extend(storages.at_peak(top))
            storages.begin()

        def watched(*values: Any, **named: Any) -> Tensor:
            report("ControlNets")
            prediction = predict(*values, **named)
            report("denoiser")
            return prediction

        def shown(part: Tensor) -> Callable[[Sequence[int]], Tensor]:
            return lambda picks: part[:, None].expand(-1, len(picks), -1, -1, -1)

        # the scheduler ends it by asking for a number's value: all predictions are made by then
        ended = contextlib.suppress(DataDependentOutputException)
        there = mock.patch.object(kernels, "kernels_available", return_value=fused)
        with ended, mock.patch.object(loop, "predict", watched), there, storages, torch.no_grad():
            denoise(
                Networks(*networks, **waits), scheduler, reference=torch.zeros(1, channels, *place),
                latents=torch.zeros(1, channels, frames, *place), tokens=tokens[0], negative=tokens[1],
                controls=Controls(pose=shown(pictures[:, :3]), face=shown(pictures[:, 3:])), guidance=7.5,
                plan=WindowPlan(WINDOW, OVERLAP, "closed"), offsets=[0],
            )  # fmt: skip
    yield from found


def _halve(network: nn.Module) -> None:
    """float16 and channels_last: by hand, since fake parameters cannot be moved."""
    for module in network.modules():
        for name, value in module._parameters.items():
            if value is not None:
                form = torch.channels_last if value.dim() == 4 else torch.contiguous_format
                empty = torch.empty(value.shape, dtype=torch.float16, memory_format=form)
                module._parameters[name] = nn.Parameter(empty, requires_grad=False)


def _maker() -> str:
    """The innermost line of ours, or of diffusers', that is running."""
    for frame in reversed(traceback.extract_stack(limit=48)):
        if "/xdyna/" in frame.filename or "/diffusers/models/" in frame.filename:
            return f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {(frame.line or '')[:60]}"
    return ""


if __name__ == "__main__":
    main()
