"""From a reference latent and control signals to a clip's latents: plain functions, one generator.

The order of a run (spec.md 6, 8 and 9): `encode_reference`, `start_latents`, then `denoise`, which for
every timestep predicts the noise window by window, averages, guides and lets the scheduler take its step;
`decode_latents` turns the result into pictures.

Every random draw comes from one `torch.Generator` on the CPU, so that a seed means the same on every
device, in this order: autoencoder posterior, mask, noise, one window offset a step.
"""

from __future__ import annotations

from xdyna.sampling.controls import (
    ConditionSource,
    ControlResiduals,
    Controls,
    Networks,
    Tokens,
    normalise_condition,
    resize_condition,
)
from xdyna.sampling.decoding import decode_latents, decode_stream
from xdyna.sampling.hosts import ALONE, Alone, Group, Hosts, LostProcess
from xdyna.sampling.latents import (
    BLUR_SIGMA,
    BLUR_SIZE,
    degrade_reference,
    encode_reference,
    mix_noise,
    start_latents,
)
from xdyna.sampling.loop import Step, denoise, guide, predict
from xdyna.sampling.recorded import Recorded, Recorder, record_networks, recording_pays
from xdyna.sampling.schedule import SCHEDULERS, make_scheduler, set_timesteps
from xdyna.sampling.shortcuts import Shortcuts
from xdyna.sampling.still import Still, find_still
from xdyna.sampling.tokens import encode_image, encode_text
from xdyna.windows import WindowPlan

__all__ = [
    "ALONE",
    "BLUR_SIGMA",
    "BLUR_SIZE",
    "SCHEDULERS",
    "Alone",
    "ConditionSource",
    "ControlResiduals",
    "Controls",
    "Group",
    "Hosts",
    "LostProcess",
    "Networks",
    "Recorded",
    "Recorder",
    "Shortcuts",
    "Step",
    "Still",
    "Tokens",
    "WindowPlan",
    "decode_latents",
    "decode_stream",
    "degrade_reference",
    "denoise",
    "encode_image",
    "encode_reference",
    "encode_text",
    "find_still",
    "guide",
    "make_scheduler",
    "mix_noise",
    "normalise_condition",
    "predict",
    "record_networks",
    "recording_pays",
    "resize_condition",
    "set_timesteps",
    "start_latents",
]
