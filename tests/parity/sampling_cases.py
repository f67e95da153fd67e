"""Fixtures of windows, start latents and whole loops: vii, viii, ix and xiii."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.parity.fixture import (
    LAYER,
    LOOP,
    NETWORK,
    Check,
    Fixture,
    UnknownFixture,
    compare,
    compare_values,
    worst_of,
)
from tests.parity.networks import build_controlnet, build_scheduler, build_unet, build_vae
from xdyna.sampling import (
    Controls,
    Networks,
    Step,
    Tokens,
    WindowPlan,
    degrade_reference,
    denoise,
    encode_reference,
    normalise_condition,
    resize_condition,
    start_latents,
)
from xdyna.windows import context_windows, step_windows


def check_windows(fixture: Fixture) -> Iterator[Check]:
    """vii: windows for many lengths and options, all exact."""
    for closed in (True, False):
        cases = [case for case in fixture.meta["cases"] if case["closed_loop"] is closed]
        wrong = []
        for case in cases:
            got = context_windows(
                case["num_frames"],
                size=case["context"],
                overlap=case["overlap"],
                closed_loop=closed,
                offset=case["offset"],
                stride=case["stride"],
                step=case["step"],
            )
            if got != case["windows"]:
                wrong.append({key: value for key, value in case.items() if key != "windows"})
        label = f"{len(cases)} cases, {'closed' if closed else 'open'} loop"
        if cases:
            yield Check(f"{label}; first wrong: {wrong[0]}" if wrong else label, float(len(wrong)), 0.0)


def check_start_latents(fixture: Fixture) -> Iterator[Check]:
    """viii: timesteps, degraded reference, start latents, prepared pose condition."""
    meta, tensors = fixture.meta, fixture.tensors
    reference, frames = tensors["ref_latents"][:, :, 0], meta["frames"]
    for name, case in meta["cases"].items():
        mask, noise = tensors[f"mask_rand_{name}"], tensors[f"noise_{name}"]
        scheduler = build_scheduler(meta["scheduler"], len(case["timesteps"]))
        yield compare_values(f"{name} timesteps", scheduler.timesteps.tolist(), case["timesteps"])
        alpha = float(scheduler.alphas_cumprod[int(scheduler.timesteps[0])])
        yield Check(f"{name} first alpha", abs(alpha - case["alpha_cumprod_first"]), LAYER)
        degraded = degrade_reference(reference, frames, mask=mask)
        yield compare(f"{name} degraded reference", degraded, tensors[f"degraded_{name}"], LAYER)
        latents = start_latents(reference, frames, scheduler, mask=mask, noise=noise)
        latents = torch.cat([tensors["ref_latents"], latents], dim=2)
        yield compare(f"{name} start latents", latents, tensors[f"latents_{name}"], LAYER)
    scheduler = build_scheduler(meta["scheduler"], 1)
    yield compare("noise schedule", scheduler.alphas_cumprod, tensors["alphas_cumprod"], LAYER)

    told = meta["pose_condition"]
    height, width = told["shape"][-2:]
    condition = _prepare(tensors["pose_uint8"], height, width)
    yield _check_summary("pose condition", condition, told)
    steps = re.search(r"::(\d+), ::(\d+)", told["note"])
    if steps is None:
        raise UnknownFixture(f"pose_condition's note does not tell which pixels are kept: {told['note']}")
    kept = condition[:frames, :, :: int(steps[1]), :: int(steps[2])]
    yield compare("pose condition, kept pixels", kept, tensors["pose_condition_sub"], LAYER)


def check_loop(fixture: Fixture) -> Iterator[Check]:
    """ix: the whole run from reference latents and condition pictures to latents and pictures."""
    meta, tensors = fixture.meta, fixture.tensors
    frames = meta["frames"]
    plan = _plan(meta["windows"], frames)
    windows = [
        step_windows(frames, size=plan.size, overlap=plan.overlap, loop=plan.loop, offset=offset)
        for offset in meta["offsets"]
    ]
    yield compare_values("windows", windows, meta["windows"])
    scheduler = build_scheduler(meta["scheduler"], meta["steps"])
    yield compare_values("timesteps", scheduler.timesteps.tolist(), meta["timesteps"])

    conditions = _conditions(fixture)
    for name, told in meta["conditions"].items():
        if name not in conditions:
            raise UnknownFixture(f"condition {name}")
        yield _check_summary(name, conditions[name], told)

    reference = tensors["ref_latents"][:, :, 0]
    start = start_latents(reference, frames, scheduler, mask=tensors["mask_rand"], noise=tensors["noise"])
    whole = torch.cat([tensors["ref_latents"], start], dim=2)
    yield compare("start latents", whole, tensors["latents_init"], LAYER)

    steps: list[Step] = []
    latents = denoise(
        _networks(fixture, conditions),
        scheduler,
        reference=reference,
        latents=start,
        tokens=Tokens(text=tensors["text_cond"], image=tensors["ip_cond"]),
        negative=Tokens(text=tensors["text_uncond"], image=tensors["ip_uncond"]),
        controls=Controls(
            pose=_source(conditions.get("controlnet_condition")),
            face=_source(conditions.get("controlnet_face_condition")),
        ),
        guidance=meta["cfg"],
        plan=plan,
        offsets=meta["offsets"],
        on_step=steps.append,
    )
    for step in steps:
        if (wanted := tensors.get(f"noise_pred_step{step.index}")) is not None:
            yield compare(f"prediction of step {step.index}", step.prediction, wanted, LOOP)
        if (wanted := tensors.get(f"latents_step{step.index}")) is not None:
            yield compare(f"latents after step {step.index}", step.latents, wanted, LOOP)
    told_steps = [key for key in tensors if re.fullmatch(r"(latents|noise_pred)_step\d+", key)]
    if missing := [key for key in told_steps if int(re.sub(r"\D", "", key)) >= len(steps)]:
        raise UnknownFixture(f"the loop has no step for {missing[0]}")
    if meta["video_frames_kept"]:
        yield _check_pictures(fixture, latents)


def check_vae(fixture: Fixture) -> Iterator[Check]:
    """xiii: image_uint8 (h w 3) and eps -> latents (1 c 1 h/8 w/8), and the mode for contrast."""
    meta, tensors = fixture.meta, fixture.tensors
    vae = build_vae(meta["vae_config"], fixture.network_weights("vae"))
    image = fixture.array("image_uint8")
    latent = encode_reference(vae, image, eps=tensors["eps"])
    yield compare("sampled latent", latent.unsqueeze(2), tensors["latents"], NETWORK)
    if (mode := tensors.get("mode_for_contrast")) is not None:
        yield compare("mode", encode_reference(vae, image), mode, NETWORK)
    same = torch.allclose(latent.unsqueeze(2), encode_reference(vae, image).unsqueeze(2), atol=NETWORK)
    yield Check("sample differs from mode", float(same), 0.0)


def _networks(fixture: Fixture, conditions: dict[str, Tensor]) -> Networks:
    def controlnet(name: str, condition: str) -> Any:
        if condition not in conditions:
            return None
        config = fixture.sibling("v", name).meta["config"]
        return build_controlnet(config, fixture.network_weights(name))

    return Networks(
        unet=build_unet(fixture.meta["unet_config"], fixture.network_weights("unet")),
        pose_controlnet=controlnet("controlnet_pose", "controlnet_condition"),
        face_controlnet=controlnet("controlnet_sface", "controlnet_face_condition"),
    )


def _conditions(fixture: Fixture) -> dict[str, Tensor]:
    """The prepared condition clips (f c H W), under the official code's names."""
    meta, tensors = fixture.meta, fixture.tensors
    conditions = {}
    if meta["use_controlnet"]:
        pose = _prepare(tensors["pose_uint8"], meta["height"], meta["width"])
        conditions["controlnet_condition"] = pose
    if meta["use_controlnet"] and meta["face"]:
        # channels 0-2 local, 3-5 global, each stretched by its own extremes (spec.md 4)
        parts = [
            _prepare(tensors[f"sface_{part}_uint8"], meta["height"], meta["width"])
            for part in ("local", "global")
        ]
        conditions["controlnet_face_condition"] = torch.cat(parts, dim=1)
    return conditions


def _prepare(pictures: Tensor, height: int, width: int) -> Tensor:
    """(f h w 3) uint8 -> (f 3 height width) in [0, 1]."""
    resized = np.stack([resize_condition(picture, (height, width)) for picture in pictures.numpy()])
    return normalise_condition(torch.from_numpy(resized))


def _source(condition: Tensor | None) -> Any:
    if condition is None:
        return None

    def frames(indices: Sequence[int]) -> Tensor:
        return condition[list(indices)].unsqueeze(0)

    return frames


def _check_summary(label: str, condition: Tensor, told: dict[str, Any]) -> Check:
    """Compare a prepared clip with the recorded shape and statistics.

    The recorded clip holds the frames of all guidance halves, one half after the other; they are the same.
    """
    frames, *rest = told["shape"]
    if frames % len(condition) or rest != list(condition.shape[1:]):
        return Check(f"{label}: shape {list(condition.shape)}, wanted {told['shape']}", float("inf"), LAYER)
    statistics: dict[str, Any] = {
        "min": condition.min(),
        "max": condition.max(),
        "mean": condition.double().mean(),
        "channel_means": condition.double().mean((0, 2, 3)),
    }
    checks = [
        compare(key, value, torch.tensor(told[key], dtype=torch.float64), LAYER)
        for key, value in statistics.items()
        if key in told
    ]
    return worst_of(f"{label}: shape and {len(checks)} statistics", checks)


def _plan(windows: list[list[list[int]]], frames: int) -> WindowPlan:
    """Window size and overlap as the recorded windows show them."""
    first = windows[0]
    if len(first) == 1:
        return WindowPlan(size=max(frames, len(first[0])), overlap=0)
    hop = (first[1][0] - first[0][0]) % frames
    return WindowPlan(size=len(first[0]), overlap=len(first[0]) - hop)


def _check_pictures(fixture: Fixture, latents: Tensor) -> Check:
    """Decode the kept frames and compare in [0, 1]."""
    vae = build_vae(fixture.sibling("xiii").meta["vae_config"], fixture.network_weights("vae"))
    kept = latents[0, :, fixture.meta["video_frames_kept"]].transpose(0, 1)
    pictures = (vae.decode(kept / vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)
    return compare("pictures", pictures.transpose(0, 1).unsqueeze(0), fixture.tensors["video_frames"], LOOP)
