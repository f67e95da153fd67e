"""From a reference latent and control signals to a clip's latents: plain functions, one generator.

The order of a run (spec.md 6, 8 and 9): `encode_reference`, `start_latents`, then `denoise`, which for
every timestep predicts the noise window by window, averages, guides and lets the scheduler take its step;
`decode_latents` turns the result into pictures.

Every random draw comes from one `torch.Generator` on the CPU, so that a seed means the same on every
device, in this order: autoencoder posterior, mask, noise, one window offset a step.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from xdyna.windows import step_windows

BLUR_SIZE, BLUR_SIGMA = 9, 18.0
"""Gaussian blur of the start latents: kernel size and standard deviation in latent pixels (spec.md 6)."""

ConditionSource = Callable[[Sequence[int]], Tensor]
"""Frame indices -> their condition pictures, (b f c H W) float in [0, 1] on the networks' device."""


@dataclass(frozen=True)
class Networks:
    """The three networks that a denoising step runs. A ControlNet that is None does not take part."""

    unet: Any
    pose_controlnet: Any = None
    face_controlnet: Any = None


@dataclass(frozen=True)
class Tokens:
    """What cross-attention reads, for one guidance half.

    Attributes:
        text: (b 77 d), read by the UNet and the ControlNets; None for a model without text.
        image: (b 16 d), read by the UNet only, after the text; None without an image encoder.
    """

    text: Tensor | None = None
    image: Tensor | None = None

    def joined(self) -> Tensor | None:
        """Text then image tokens, as the UNet reads them."""
        parts = [part for part in (self.text, self.image) if part is not None]
        return torch.cat(parts, dim=1) if parts else None


@dataclass(frozen=True)
class Controls:
    """Control signals of a clip, made on demand, and how strongly they act (1 = as trained)."""

    pose: ConditionSource | None = None
    face: ConditionSource | None = None
    pose_scale: float = 1.0
    face_scale: float = 1.0


@dataclass(frozen=True)
class WindowPlan:
    """How a long clip is cut: frames in a window, frames shared, and what happens at the end."""

    size: int = 16
    overlap: int = 4
    loop: str = "closed"


@dataclass(frozen=True)
class Step:
    """What a finished denoising step tells its callback."""

    index: int
    total: int
    timestep: int
    latents: Tensor
    prediction: Tensor


# ---------------------------------------------------------------------------------------------- start


def encode_reference(
    vae: Any, image: np.ndarray, *, generator: torch.Generator | None = None, eps: Tensor | None = None
) -> Tensor:
    """Latent of the reference picture, **sampled** from the posterior as the official code does.

    Args:
        vae: an `AutoencoderKL`.
        image: (h w 3) uint8, sides multiples of the autoencoder's factor.
        generator: source of the posterior's noise; without it and `eps`, the mode is taken.
        eps: (1 c h/8 w/8) noise to use in its place.

    Returns:
        (1 c h/8 w/8) float32, scaled as the UNet expects.
    """
    weight = next(vae.parameters())
    pixels = torch.from_numpy(np.ascontiguousarray(image)).to(weight.device)
    pixels = rearrange(pixels.to(weight.dtype) / 127.5 - 1.0, "h w c -> 1 c h w")
    posterior = vae.encode(pixels).latent_dist
    latent = posterior.mean.float()
    if eps is None and generator is not None:
        eps = torch.randn(latent.shape, generator=generator)
    if eps is not None:
        latent = latent + posterior.std.float() * eps.to(latent)
    return (latent - _shift(vae)) * vae.config.scaling_factor


def degrade_reference(reference: Tensor, frames: int, *, mask: Tensor) -> Tensor:
    """The reference repeated over the clip, each latent value blurred or not by chance (spec.md 6).

    Args:
        reference: (b c h w); h and w at least 5, as the blur reflects at the border.
        frames: driven frames; the result has one more, the clean reference at index 0.
        mask: (b c 1+f h w) uniform in [0, 1); 0.5 and above keeps the sharp value.

    Returns:
        (b c 1+f h w)
    """
    sharp = repeat(reference, "b c h w -> b c f h w", f=frames + 1)
    blurred = _blur(reference).unsqueeze(2)
    keep = (mask >= 0.5).to(reference.dtype)
    mixed = keep * sharp + (1 - keep) * blurred
    mixed[:, :, 0] = reference
    return mixed


def start_latents(
    reference: Tensor,
    frames: int,
    scheduler: Any,
    *,
    generator: torch.Generator | None = None,
    mask: Tensor | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """Latents at the scheduler's first timestep: the degraded reference, noised (spec.md 6, fixture viii).

    Args:
        reference: (b c h w) float32.
        frames: driven frames.
        scheduler: a diffusers scheduler whose timesteps are set.
        generator: CPU generator for mask and noise where these are not given.
        mask: (b c 1+f h w) uniform draw in place of the generator's.
        noise: (b c 1+f h w) normal draw in place of the generator's.

    Returns:
        (b c f h w) float32. Where the schedule ends in pure noise, the reference leaves no trace in it.
    """
    batch, channels, height, width = reference.shape
    shape = (batch, channels, frames + 1, height, width)
    mask = torch.rand(shape, generator=generator) if mask is None else mask
    noise = torch.randn(shape, generator=generator) if noise is None else noise
    degraded = degrade_reference(reference, frames, mask=mask.to(reference.device))
    noise = noise.to(reference.device)
    return scheduler.add_noise(degraded, noise, scheduler.timesteps[:1])[:, :, 1:]


# ------------------------------------------------------------------------------------------ conditions


def resize_condition(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A condition picture at (height, width), by Pillow's Lanczos filter as the official code does."""
    from PIL import Image

    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.LANCZOS))


def normalise_condition(pictures: Tensor, *, low: float | None = None, high: float | None = None) -> Tensor:
    """Condition pictures stretched to [0, 1] by the whole clip's extremes (spec.md 3, quirk kept).

    A clip of one colour has no extremes to stretch by; the official code returns NaN, this returns zeros.

    Args:
        pictures: (... h w c) uint8.
        low: smallest value of the whole clip in [0, 255]; by default of `pictures`.
        high: largest value of the whole clip.

    Returns:
        (... c h w) float32 in [0, 1].
    """
    values = rearrange(pictures, "... h w c -> ... c h w").float() / 255.0
    bottom = values.min().item() if low is None else low / 255.0
    top = values.max().item() if high is None else high / 255.0
    return torch.zeros_like(values) if top <= bottom else (values - bottom) / (top - bottom)


# -------------------------------------------------------------------------------------------- denoising


@dataclass
class ControlResiduals:
    """ControlNet residuals of one step, run once a frame however many windows share it.

    A ControlNet looks at one frame at a time, so its residuals do not depend on the window, nor on the
    guidance half when both halves read the same text. They are kept only while a later window needs them.
    """

    networks: Networks
    controls: Controls
    latents: Tensor
    timestep: Tensor
    halves: list[Tokens]
    windows: list[list[int]]
    _kept: dict[int, list[Tensor]] = field(default_factory=dict)

    def of_window(self, number: int) -> tuple[tuple[Tensor, ...], Tensor] | tuple[None, None]:
        """Residuals for window `number`: 12 skips (or as many as the UNet has) and the mid block.

        Each is (b c 1+f h w) with zeros for the reference frame; b counts the guidance halves too.
        """
        if not any(
            source is not None and network is not None and scale != 0
            for source, network, scale in self._streams()
        ):
            return None, None
        window = self.windows[number]
        missing = [frame for frame in window if frame not in self._kept]
        for frame, values in zip(missing, self._run(missing), strict=True):
            self._kept[frame] = values
        stacked = [
            F.pad(torch.stack(values, dim=2), (0, 0, 0, 0, 1, 0))
            for values in zip(*(self._kept[frame] for frame in window), strict=True)
        ]
        later = {frame for coming in self.windows[number + 1 :] for frame in coming}
        self._kept = {frame: values for frame, values in self._kept.items() if frame in later}
        return tuple(stacked[:-1]), stacked[-1]

    def _streams(self) -> list[tuple[ConditionSource | None, Any, float]]:
        return [
            (self.controls.pose, self.networks.pose_controlnet, self.controls.pose_scale),
            (self.controls.face, self.networks.face_controlnet, self.controls.face_scale),
        ]

    def _run(self, frames: list[int]) -> list[list[Tensor]]:
        """Summed residuals of both ControlNets for `frames`: a list a frame of (b c h w)."""
        if not frames:
            return []
        texts = [half.text for half in self.halves]
        shared = len(texts) == 1 or all(_same(texts[0], text) for text in texts[1:])
        total: list[Tensor] = []
        for source, network, scale in self._streams():
            if source is None or network is None or scale == 0:
                continue
            condition = source(frames)
            residuals = [
                _run_controlnet(network, self.latents[:, :, frames], self.timestep, text, condition, scale)
                for text in (texts[:1] if shared else texts)
            ]
            joined = [torch.cat(values) for values in zip(*residuals, strict=True)]
            total = [a + b for a, b in zip(total, joined, strict=True)] if total else joined
        if shared and len(self.halves) > 1:
            total = [torch.cat([value] * len(self.halves)) for value in total]
        # (b c f h w) -> a list a frame
        return [list(values) for values in zip(*(value.unbind(2) for value in total), strict=True)]


def denoise(
    networks: Networks,
    scheduler: Any,
    *,
    reference: Tensor,
    latents: Tensor,
    tokens: Tokens | None = None,
    negative: Tokens | None = None,
    controls: Controls | None = None,
    guidance: float = 1.0,
    reference_scale: float = 1.0,
    plan: WindowPlan | None = None,
    offsets: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
    on_window: Callable[[int, int], None] | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> Tensor:
    """Run the denoising loop (spec.md 9, fixture ix).

    Args:
        networks: UNet and ControlNets, any float dtype; latents stay float32 throughout.
        scheduler: a diffusers scheduler whose timesteps are set.
        reference: (b c h w) clean latent of the reference; never changes.
        latents: (b c f h w) from `start_latents`.
        tokens: cross-attention tokens of the conditional half.
        negative: those of the unconditional half. Without them there is nothing to guide away from, and
            one half runs whatever `guidance` says.
        controls: pose and face conditions.
        guidance: 1 runs the conditional half only; any other value runs both.
        reference_scale: strength of the reference's residual in self-attention.
        plan: window size, overlap and loop.
        offsets: one window offset a step in place of the generator's draws.
        generator: CPU generator for window offsets and for schedulers that add noise.
        on_window: called with (windows done, windows in all) of the whole run.
        on_step: called after every step.

    Returns:
        (b c f h w) float32 clean latents.
    """
    plan, controls, tokens = plan or WindowPlan(), controls or Controls(), tokens or Tokens()
    halves = [tokens] if guidance == 1 or negative is None else [negative, tokens]
    frames = latents.shape[2]
    extra = _step_arguments(scheduler, generator)
    done, steps = 0, len(scheduler.timesteps)
    for index, timestep in enumerate(scheduler.timesteps):
        offset = offsets[index] if offsets is not None else _draw_offset(plan, generator)
        windows = step_windows(frames, size=plan.size, overlap=plan.overlap, loop=plan.loop, offset=offset)
        scaled = scheduler.scale_model_input(latents, timestep)
        residuals = ControlResiduals(networks, controls, scaled, timestep, halves, windows)
        total = latents.new_zeros(len(halves), *latents.shape)
        count = latents.new_zeros(frames)
        for number, window in enumerate(windows):
            down, mid = residuals.of_window(number)
            prediction = predict(
                networks.unet,
                reference=reference,
                latents=scaled[:, :, window],
                timestep=timestep,
                halves=halves,
                down_residuals=down,
                mid_residual=mid,
                reference_scale=reference_scale,
            )
            total[:, :, :, window] += prediction
            count[window] += 1
            done += 1
            if on_window is not None:
                # windows a step vary with the offset in an open loop, so the total is an estimate there
                on_window(done, done - number - 1 + len(windows) * (steps - index))
        prediction = guide(total / count[:, None, None], guidance)
        latents = scheduler.step(prediction, timestep, latents, **extra).prev_sample
        if on_step is not None:
            on_step(Step(index, steps, int(timestep), latents, prediction))
    return latents


def predict(
    unet: Any,
    *,
    reference: Tensor,
    latents: Tensor,
    timestep: Tensor,
    halves: Sequence[Tokens],
    down_residuals: Sequence[Tensor] | None = None,
    mid_residual: Tensor | None = None,
    reference_scale: float = 1.0,
) -> Tensor:
    """The UNet's prediction for one window, all guidance halves in one batch.

    Args:
        unet: an `XDynaUNet`.
        reference: (b c h w).
        latents: (b c f h w) of the window.
        timestep: one timestep for all frames, the clean reference included.
        halves: tokens of each half.
        down_residuals: residuals from `ControlResiduals`.
        mid_residual: likewise.
        reference_scale: strength of the reference.

    Returns:
        (halves b c f h w) float32: the prediction for frame 0, the reference, is thrown away.
    """
    dtype = next(unet.parameters()).dtype
    sample = torch.cat([reference.unsqueeze(2), latents], dim=2).to(dtype)
    sample = torch.cat([sample] * len(halves))
    joined = [half.joined() for half in halves]
    context = None if joined[0] is None else torch.cat([t for t in joined if t is not None]).to(dtype)
    output = unet(
        sample,
        timestep,
        context,
        down_residuals=None if down_residuals is None else tuple(r.to(dtype) for r in down_residuals),
        mid_residual=None if mid_residual is None else mid_residual.to(dtype),
        reference_scale=reference_scale,
    )
    return rearrange(output[:, :, 1:].float(), "(g b) c f h w -> g b c f h w", g=len(halves))


def guide(halves: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance: (2 b c f h w), unconditional first -> (b c f h w). One half passes through."""
    if len(halves) == 1:
        return halves[0]
    unconditional, conditional = halves
    return unconditional + guidance * (conditional - unconditional)


def decode_latents(vae: Any, latents: Tensor) -> np.ndarray:
    """Pictures of a few frames' latents.

    Args:
        vae: an `AutoencoderKL`.
        latents: (f c h w).

    Returns:
        (f 8h 8w 3) uint8; values are truncated to integers as the official code does.
    """
    dtype = next(vae.parameters()).dtype
    pixels = vae.decode((latents / vae.config.scaling_factor + _shift(vae)).to(dtype)).sample
    pixels = (pixels.float() / 2 + 0.5).clamp(0, 1) * 255
    return rearrange(pixels, "f c h w -> f h w c").to(torch.uint8).cpu().numpy()


# ----------------------------------------------------------------------------------------------- helpers


def _run_controlnet(
    network: Any, latents: Tensor, timestep: Tensor, text: Tensor | None, condition: Tensor, scale: float
) -> list[Tensor]:
    """All residuals of one ControlNet, mid last, each (b c f h w)."""
    dtype = next(network.parameters()).dtype
    frames = latents.shape[2]
    context = None
    if text is not None:
        context = repeat(text.to(dtype), "b n d -> (b f) n d", f=frames)
    down, mid = network(
        rearrange(latents, "b c f h w -> (b f) c h w").to(dtype),
        timestep,
        encoder_hidden_states=context,
        controlnet_cond=rearrange(condition, "b f c h w -> (b f) c h w").to(dtype),
        conditioning_scale=scale,
        return_dict=False,
    )
    return [rearrange(value, "(b f) c h w -> b c f h w", f=frames) for value in (*down, mid)]


def _blur(latent: Tensor) -> Tensor:
    """Gaussian blur of (b c h w) with reflected borders, as torchvision's GaussianBlur(9, 18)."""
    reach = BLUR_SIZE // 2
    place = torch.arange(-reach, reach + 1, dtype=torch.float32, device=latent.device)
    line = torch.exp(-0.5 * (place / BLUR_SIGMA) ** 2)
    line = line / line.sum()
    kernel = torch.outer(line, line).to(latent.dtype)
    channels = latent.shape[1]
    padded = F.pad(latent, (reach,) * 4, mode="reflect")
    return F.conv2d(padded, repeat(kernel, "h w -> c 1 h w", c=channels), groups=channels)


def _draw_offset(plan: WindowPlan, generator: torch.Generator | None) -> int:
    # the official draw is randint(0, 15), both ends included, for windows of 16
    return int(torch.randint(0, plan.size, (1,), generator=generator))


def _step_arguments(scheduler: Any, generator: torch.Generator | None) -> dict[str, Any]:
    """Schedulers that add noise take it from our generator; the others do not know the argument."""
    accepts = "generator" in inspect.signature(scheduler.step).parameters
    return {"generator": generator} if accepts else {}


def _same(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None:
        return first is second
    return first is second or torch.equal(first, second)


def _shift(vae: Any) -> float:
    return float(getattr(vae.config, "shift_factor", None) or 0.0)
