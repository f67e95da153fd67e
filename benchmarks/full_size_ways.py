"""The ways that `benchmarks.full_size` compares: the same random networks, prepared and run differently."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xdyna.machine import Lent, LentNetwork
from xdyna.models import attention, motion
from xdyna.models.fusing import fuse
from xdyna.sampling import (
    ALONE,
    Controls,
    Hosts,
    Networks,
    Tokens,
    WindowPlan,
    denoise,
    make_scheduler,
    record_networks,
    set_timesteps,
)
from xdyna.sampling import controls as signals
from xdyna.training.config_file import load_config
from xdyna.training.networks import Networks as Parts
from xdyna.training.networks import build_networks, build_scheduler
from xdyna.weights.compact import hold

CONFIGS = {"full": "configs/train/sd15.toml", "tiny": "configs/train/smoke.toml"}
WINDOW, OVERLAP, STEPS = 16, 4, 25
CLOSE = 1 << 60
"""More than anything: switches off a limit."""
REPEATED = (
    "TransformerBlock",
    "TimeBlock",
    "Resnet",
    "BasicTransformerBlock",
    "FusedResnet",
    "ResnetBlock2D",
)
"""Blocks that are compiled, each by itself: few kinds, many times."""


@dataclass(frozen=True)
class Way:
    """One way to run the networks.

    Attributes:
        name: how tables call it.
        base: which copy of the networks it runs: "contiguous", "channels-last", "fused", "int8", "fp8", "lent".
        together: both guidance halves in one pass whatever their size.
        graphs: calls recorded as CUDA graphs.
        compiled: blocks compiled by `torch.compile`.
        official: what the official code does, see `official_window`.
    """

    name: str
    base: str
    together: bool = False
    graphs: bool = False
    compiled: bool = False
    official: bool = False


WAYS = {
    way.name: way
    for way in (
        Way("official", "contiguous", together=True, official=True),
        Way("plain", "contiguous"),
        Way("channels-last", "channels-last"),
        Way("fused", "fused"),
        Way("fused-together", "fused", together=True),
        Way("graphs", "fused", graphs=True),
        Way("graphs-together", "fused", together=True, graphs=True),
        Way("int8", "int8"),
        Way("fp8", "fp8"),
        Way("offload", "lent"),
        Way("compiled", "compiled", compiled=True),
    )
}


def build(width: str, device: torch.device) -> Parts:
    """Random networks, float32, every zero-initialised layer filled, so that nothing is skipped by luck."""
    with device:
        parts = build_networks(load_config(CONFIGS[width]), seed=0)
    generator = torch.Generator(device).manual_seed(1)
    for network in parts.named().values():
        network.requires_grad_(False).eval()
        for parameter in network.parameters():
            if not parameter.any():
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator, device=device))
        network.to(device)
    return parts


@dataclass
class Copies:
    """The networks in the forms that ways ask for, each made at its first use and kept.

    Attributes:
        exact: the float32 networks.
        dtype: number format of the copies.
        device: where they work.
    """

    exact: Parts
    dtype: torch.dtype
    device: torch.device
    _made: dict[str, Parts] = field(default_factory=dict)

    def get(self, base: str) -> Parts:
        """The networks of a form."""
        if base not in self._made:
            self._made[base] = self._make(base)
        return self._made[base]

    def drop(self, base: str) -> None:
        """Forget one form."""
        self._made.pop(base, None)

    def _make(self, base: str) -> Parts:
        source = self.exact.named()
        made = {}
        for name, network in source.items():
            one = copy.deepcopy(network).to(self.dtype)
            if base != "contiguous":
                one.to(memory_format=torch.channels_last)
            if base in ("fused", "int8", "fp8", "lent"):
                fuse(one, "half")
            if base in ("int8", "fp8") and name != "vae":
                hold(one, base)
            if base == "lent":
                one.to("cpu")
                if self.device.type == "cuda":
                    for tensor in (*one.parameters(), *one.buffers()):
                        tensor.data = tensor.data.pin_memory()
            if base == "compiled":
                compile_blocks(one)
            made[name] = one
        return Parts(**made)

    def bytes_on_device(self, base: str) -> int:
        """What a form's weights take there."""
        return sum(
            t.numel() * t.element_size()
            for network in self.get(base).named().values()
            for t in (*network.parameters(), *network.buffers())
            if t.device.type == self.device.type
        )


def compile_blocks(network: torch.nn.Module) -> None:
    """Compile the repeated blocks of a network, each shape once."""
    torch._dynamo.config.recompile_limit = 64
    for module in network.modules():
        if type(module).__name__ in REPEATED:
            module.compile(dynamic=False)


@contextlib.contextmanager
def limits(way: Way) -> Iterator[None]:
    """What a way does with large passes, for as long as the block runs."""
    passes = signals.PIXELS_AT_ONCE, signals.CONTROLLED_AT_ONCE, motion.AT_ONCE
    kept = attention.MOST_HIDDEN, attention.LONG
    try:
        if way.together:
            signals.PIXELS_AT_ONCE = signals.CONTROLLED_AT_ONCE = motion.AT_ONCE = CLOSE
        if way.official:  # no pieces, and PyTorch's own choice of attention
            attention.MOST_HIDDEN = attention.LONG = CLOSE
        yield
    finally:
        signals.PIXELS_AT_ONCE, signals.CONTROLLED_AT_ONCE, motion.AT_ONCE = passes
        attention.MOST_HIDDEN, attention.LONG = kept


class Protocol:
    """The official code's run: 25 DDIM steps, guidance 7.5 with one text, pose and face for every frame.

    Args:
        width: a key of `CONFIGS`.
        size: height and width in pixels.
        device: where it runs.
        channels: of the latents.
    """

    def __init__(self, width: str, size: Sequence[int], device: torch.device, channels: int) -> None:
        self.width, self.size, self.device, self.channels = width, size, device, channels
        self.generator = torch.Generator().manual_seed(0)
        self.place = (size[0] // 8, size[1] // 8)
        self.reference = self.normal(1, channels, *self.place)
        pictures = torch.rand(1, 9, *size, generator=self.generator).to(device)
        self.pose, self.face = pictures[:, :3], pictures[:, 3:]
        self.tokens, self.negative, self.guidance = Tokens(), None, 1.0
        if width == "full":
            text = self.normal(1, 77, 768)
            self.tokens = Tokens(text=text, image=self.normal(1, 16, 768))
            self.negative = Tokens(text=text, image=self.normal(1, 16, 768))
            self.guidance = 7.5

    def normal(self, *size: int) -> Tensor:
        """Numbers of the protocol's own generator."""
        return torch.randn(size, generator=self.generator).to(self.device)

    @functools.lru_cache(maxsize=4)  # noqa: B019  (one object a run)
    def latents(self, frames: int) -> Tensor:
        """Start latents, (1 c f h w)."""
        generator = torch.Generator().manual_seed(frames)
        return torch.randn((1, self.channels, frames, *self.place), generator=generator).to(self.device)

    def scheduler(self, steps: int) -> Any:
        """A scheduler whose first `steps` of 25 timesteps are to be run."""
        scheduler = make_scheduler("ddim", build_scheduler(load_config(CONFIGS[self.width]).noise))
        set_timesteps(scheduler, STEPS, self.device)
        scheduler.timesteps = scheduler.timesteps[:steps]
        return scheduler


class Runner:
    """One way, ready to run.

    Args:
        way: which.
        parts: its networks.
        protocol: what is run.
    """

    def __init__(self, way: Way, parts: Parts, protocol: Protocol) -> None:
        self.way, self.parts, self.protocol = way, parts, protocol
        self.lent = Lent(protocol.device)
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget what was recorded, as the pipeline does before it decodes."""
        parts = self.parts
        networks = [parts.unet, parts.pose_controlnet, parts.face_controlnet]
        self.networks = Networks(*networks)
        if self.way.base == "lent":
            lent = [None if one is None else LentNetwork(one, self.lent) for one in networks]
            self.networks = Networks(*lent, store=torch.device("cpu"))
        elif self.way.graphs and self.protocol.device.type == "cuda":
            self.networks = record_networks(*networks)
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def steps(
        self, frames: int, steps: int, *, guided: bool = True, hosts: Hosts = ALONE,
        on_step: Callable[[Any], None] | None = None,
    ) -> Tensor:  # fmt: skip
        """Denoise a clip for so many steps of 25: latents (1 c f h w), float32.

        Without guidance one half runs, as with `--preset fast`. `hosts` are the processes that share the windows.
        """
        if self.way.official:
            return self._official_steps(frames, steps)
        p = self.protocol

        def shown(picture: Tensor) -> Callable[[Sequence[int]], Tensor]:
            return lambda picks: picture[:, None].expand(-1, len(picks), -1, -1, -1)

        try:
            with limits(self.way):
                return denoise(
                    self.networks, p.scheduler(steps), reference=p.reference, latents=p.latents(frames),
                    tokens=p.tokens, negative=p.negative, guidance=p.guidance if guided else 1.0,
                    controls=Controls(pose=shown(p.pose), face=shown(p.face)),
                    plan=WindowPlan(WINDOW, OVERLAP, "closed"), offsets=[3 * n % WINDOW for n in range(steps)],
                    generator=torch.Generator().manual_seed(0), hosts=hosts, on_step=on_step,
                )  # fmt: skip
        finally:
            self.lent.give_back()

    def _official_steps(self, frames: int, steps: int) -> Tensor:
        """One window only: longer clips are so many times that."""
        assert frames <= WINDOW, "the official way is measured on one window"
        p, scheduler, latents = self.protocol, self.protocol.scheduler(steps), self.protocol.latents(frames)
        for timestep in scheduler.timesteps:
            prediction = official_window(self.parts, p, latents, timestep)
            if len(prediction) > 1:
                prediction = prediction[:1] + p.guidance * (prediction[1:] - prediction[:1])
            latents = scheduler.step(prediction, timestep, latents).prev_sample
        return latents

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Decode (f c h w) at once, or frame by frame as the official code does: (f 3 H W)."""
        vae = self.parts.vae
        with self.lent.holding([vae] if self.way.base == "lent" else []):
            scaled = latents / vae.config.scaling_factor
            if not self.way.official:
                return vae.decode(scaled.to(next(vae.parameters()).dtype)).sample
            with autocast(latents.device):
                return torch.cat([vae.decode(one).sample.float().cpu() for one in scaled.split(1)])


def autocast(device: torch.device) -> Any:
    """float16 autocast on a GPU, as in the official code; nothing on a CPU."""
    return torch.autocast(device.type, torch.float16) if device.type == "cuda" else contextlib.nullcontext()


def official_window(parts: Parts, p: Protocol, latents: Tensor, timestep: Tensor) -> Tensor:
    """One window as the official code runs it (spec.md 3, 9 and 10), attention by PyTorch in place of xformers.

    Weights of half precision inside autocast; both ControlNets on all frames of both guidance halves; all frames of
    both halves in one pass of the denoiser; nothing kept for other windows.

    Returns:
        (halves c f h w) float32 predictions.
    """
    halves = [p.tokens] if p.negative is None else [p.negative, p.tokens]
    count, frames, dtype = len(halves), latents.shape[2], next(parts.unet.parameters()).dtype
    both = torch.cat([latents] * count)
    rows = both.transpose(1, 2).flatten(0, 1).to(dtype)
    text = None
    if p.tokens.text is not None:
        text = torch.cat([half.text.to(dtype) for half in halves]).repeat_interleave(frames, 0)
    total: list[Tensor] = []
    with autocast(latents.device), limits(WAYS["official"]):
        for network, picture in ((parts.pose_controlnet, p.pose), (parts.face_controlnet, p.face)):
            if network is None:
                continue
            condition = picture.to(dtype).expand(count * frames, -1, -1, -1)
            down, mid = network(
                rows, timestep, encoder_hidden_states=text, controlnet_cond=condition, return_dict=False
            )
            made = [value.unflatten(0, (count, frames)).transpose(1, 2) for value in (*down, mid)]
            total = [a + b for a, b in zip(total, made, strict=True)] if total else made
        total = [F.pad(value, (0, 0, 0, 0, 1, 0)) for value in total]
        sample = torch.cat([p.reference[:, :, None].expand(count, -1, 1, -1, -1), both], dim=2).to(dtype)
        joined = [half.joined() for half in halves]
        context = None if joined[0] is None else torch.cat([t.to(dtype) for t in joined if t is not None])
        output = parts.unet(sample, timestep, context, down_residuals=total[:-1], mid_residual=total[-1])
    return output[:, :, 1:].float()
