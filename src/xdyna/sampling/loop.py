"""The denoising loop: windows, prediction, guidance, scheduler (spec.md 8 and 9, fixture ix)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from xdyna.sampling import controls as signals
from xdyna.sampling.controls import (
    ControlResiduals,
    Controls,
    Networks,
    Tokens,
    frames_of,
    share_text,
)
from xdyna.sampling.hosts import ALONE, Hosts
from xdyna.sampling.shortcuts import DeepCache, Shortcuts, of_halves
from xdyna.windows import WindowPlan, runs, step_windows


@dataclass(frozen=True)
class Step:
    """What a finished denoising step tells its callback."""

    index: int
    total: int
    timestep: int
    latents: Tensor
    prediction: Tensor


def denoise(
    networks: Networks,
    scheduler: Any,
    *,
    reference: Tensor,
    latents: Tensor,
    reference_features: Sequence[Tensor] | None = None,
    tokens: Tokens | None = None,
    negative: Tokens | None = None,
    controls: Controls | None = None,
    guidance: float = 1.0,
    reference_scale: float = 1.0,
    motion: Tensor | float | None = None,
    plan: WindowPlan | None = None,
    offsets: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
    shortcuts: Shortcuts | None = None,
    hosts: Hosts = ALONE,
    on_window: Callable[[int, int], None] | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> Tensor:
    """Run the denoising loop (spec.md 9, fixture ix).

    Args:
        networks: UNet and ControlNets, any float dtype; latents stay float32 throughout.
        scheduler: a diffusers scheduler whose timesteps are set.
        reference: (b c h w) clean latent of the reference; never changes.
        latents: (b c f h w) from `start_latents`.
        reference_features: what a `ReferenceNet` saw of it, for a UNet that reads that; both halves see it.
        tokens: cross-attention tokens of the conditional half.
        negative: those of the unconditional half. Without them there is nothing to guide away from, and
            one half runs whatever `guidance` says.
        controls: pose and face conditions.
        guidance: 1 runs the conditional half only; any other value runs both.
        reference_scale: strength of the reference, 0 = without.
        motion: the motion energy that the scene is to have, for a UNet that can be told; None tells nothing.
        plan: window size, overlap and loop.
        offsets: one window offset a step in place of the generator's draws.
        generator: CPU generator for window offsets and for schedulers that add noise; among several processes, in the
            same state in each.
        shortcuts: approximate savings; none by default.
        hosts: the processes that share the windows of every step; all of them call this and get the same result.
        on_window: called with (windows done, windows in all) of this process's share of the whole run.
        on_step: called after every step.

    Returns:
        (b c f h w) float32 clean latents.
    """
    plan, controls, tokens = plan or WindowPlan(), controls or Controls(), tokens or Tokens()
    shortcuts = shortcuts or Shortcuts()
    both = [tokens] if guidance == 1 or negative is None else share_text([negative, tokens])
    if motion is not None:  # once, since each copy to a device may wait for it
        motion = torch.as_tensor(motion, dtype=torch.float32, device=latents.device)
    latents, frames = hosts.same(latents), latents.shape[2]
    extra = _step_arguments(scheduler, generator)
    done, steps, guided = 0, len(scheduler.timesteps), shortcuts.guided(scheduler)
    cache = DeepCache(
        shortcuts.cache, skips=networks.unet.outer_skips, batch=len(latents),
        copies=networks.standing is not None,
    )  # fmt: skip
    for index, timestep in enumerate(scheduler.timesteps):
        offset = offsets[index] if offsets is not None else _draw_offset(plan, generator)
        halves = both if guided[index] else both[-1:]
        offset = cache.begin(index, offset=offset, halves=len(halves))
        windows = step_windows(frames, size=plan.size, overlap=plan.overlap, loop=plan.loop, offset=offset)
        scaled = scheduler.scale_model_input(latents, timestep)
        mine = hosts.share(windows)
        residuals = ControlResiduals(networks, controls, scaled, timestep, halves, mine, reference)
        total = latents.new_zeros(len(halves), *latents.shape)
        for number, window in enumerate(mine):
            kept = cache.recall(number, latents.device)
            down, mid = residuals.of_window(number) if kept is None else (kept.down, None)
            prediction = predict(
                networks.unet,
                reference=reference,
                latents=frames_of(scaled, window),
                timestep=timestep,
                halves=halves,
                down_residuals=down,
                mid_residual=mid,
                reference_features=reference_features,
                moved=None if controls.moved is None else frames_of(controls.moved, window),
                reference_scale=reference_scale,
                motion=of_halves(motion, len(halves), batch=len(latents)),
                deep=None if kept is None else kept.deep,
                keep=cache.keeper(number, down),
                share=networks.store is None,  # where memory is short, two maps are worth more than the time
            )
            for begin, end, at in runs(window):
                total[:, :, :, at : at + end - begin] += prediction[:, :, :, begin:end]
            del down, mid, kept  # before the next window's are made
            done += 1
            if on_window is not None:
                # windows a step vary with the offset in an open loop, so the total is an estimate there
                on_window(done, done - number - 1 + len(mine) * (steps - index))
        hosts.add_up(total)
        count = torch.zeros(frames)
        for window in windows:
            count[window] += 1
        prediction = guide(total / count.to(latents.device)[:, None, None], guidance)
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
    reference_features: Sequence[Tensor] | None = None,
    moved: Tensor | None = None,
    reference_scale: float = 1.0,
    motion: Tensor | float | None = None,
    deep: Tensor | None = None,
    keep: Callable[[Tensor], None] | None = None,
    share: bool = True,
) -> Tensor:
    """The UNet's prediction for one window, the guidance halves in one batch, or one by one where they are large.

    Args:
        unet: an `XDynaUNet`; its `reference_frames` tells whether the reference is frame 0 of what it is given.
        reference: (b c h w).
        latents: (b c f h w) of the window.
        timestep: one timestep for all frames, the clean reference included.
        halves: tokens of each half.
        down_residuals: residuals from `ControlResiduals`, of all halves or one that serves all.
        mid_residual: likewise.
        reference_features: (b n c) each, from a `ReferenceNet`.
        moved: (b c f h w), the window's part of `Controls.moved`.
        reference_scale: strength of the reference.
        motion: motion energy, see `denoise`.
        deep: deep features of an earlier step, which are reused.
        keep: is told this step's.
        share: what the halves have in common is computed once; False in less memory, see `models.halves`.

    Returns:
        (halves b c f h w) float32: a prediction for the reference is thrown away.
    """
    dtype = next(unet.parameters()).dtype
    sample = unet.with_reference(latents, reference).to(dtype)
    joined = [half.joined() for half in halves]
    made = unet.halves(
        sample,
        timestep,
        [None if tokens is None else tokens.to(dtype) for tokens in joined],
        together=len(halves) * len(sample) * sample[0, 0].numel() <= signals.PIXELS_AT_ONCE,
        share=share,
        down_residuals=None if down_residuals is None else [value.to(dtype) for value in down_residuals],
        mid_residual=None if mid_residual is None else mid_residual.to(dtype),
        reference_features=None
        if reference_features is None
        else [feature.to(dtype) for feature in reference_features],
        moved=None if moved is None else moved.to(dtype),
        reference_scale=reference_scale,
        motion=motion,
        deep=deep,
        keep_deep=keep is not None,
    )
    if keep is not None:
        made, found = made
        keep(found)
    prediction = made[:, :, unet.reference_frames :].float()
    return rearrange(prediction, "(g b) c f h w -> g b c f h w", g=len(halves))


def guide(halves: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance: (2 b c f h w), unconditional first -> (b c f h w).

    A single half passes through as it is.
    """
    if len(halves) == 1:
        return halves[0]
    unconditional, conditional = halves
    return unconditional + guidance * (conditional - unconditional)


def _draw_offset(plan: WindowPlan, generator: torch.Generator | None) -> int:
    # the official draw is randint(0, 15), both ends included, for windows of 16
    return int(torch.randint(0, plan.size, (1,), generator=generator))


def _step_arguments(scheduler: Any, generator: torch.Generator | None) -> dict[str, Any]:
    """Schedulers that add noise take it from our generator; the others do not know the argument."""
    accepts = "generator" in inspect.signature(scheduler.step).parameters
    return {"generator": generator} if accepts else {}
