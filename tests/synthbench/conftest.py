from __future__ import annotations

import dataclasses

import pytest
import torch

from tests import tiny
from xdyna.models import XDynaUNet
from xdyna.pipeline import XDynaPipeline


@pytest.fixture(scope="session")
def pipeline() -> XDynaPipeline:
    """The tiny model, told how lively a scene is and shown the reference as the person moves."""
    parts = tiny.tiny_components()
    known = {name: value for name, value in parts["unet"].config.items() if not name.startswith("_")}
    unet = XDynaUNet(**{**known, "motion_condition": True, "moved_reference": True})
    for parameter in unet.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    preset = dataclasses.replace(tiny.PRESET, height=64, width=64, motion_energy=6.0, shared_noise=0.5)
    return XDynaPipeline(**{**parts, "unet": unet.eval()}, preset=preset, name="tiny")
