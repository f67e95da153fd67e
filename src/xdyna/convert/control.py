"""The ControlNets: the trained ones, and S-Face's start from the pose one's."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xdyna.convert.checkpoint import Checkpoint
from xdyna.convert.part import Part, plan_network
from xdyna.weights.components import COMPONENTS, read_json_object
from xdyna.weights.loading import build_empty
from xdyna.weights.storage import LazyTensor

CHANNELS = {"pose_controlnet": 3, "face_controlnet": 6}
"""What the pipeline feeds: 3 channels of pose and 6 of S-Face (local, global); spec.md 3 and 4."""

EMBEDDING = "controlnet_cond_embedding."
FRESH_SEED = 0
"""Seed of a fresh embedding: the same files give the same model."""


def plan_control(name: str, path: Path, *, config: Path | None, sd_config: Path, dtype: torch.dtype) -> Part:
    """Plan a ControlNet from a file that holds all of it.

    Args:
        name: "pose_controlnet" or "face_controlnet".
        path: the file.
        config: its config.json; None where it is not there.
        sd_config: the UNet's, which has the same layout, for want of its own.
        dtype: what floating tensors become.

    Raises:
        WeightsError: parameters missing, extra or of another shape.
    """
    notes = [] if config else ["its config.json is not there: the layout of the UNet was taken"]
    subject = config or sd_config
    content: dict[str, Any] = {**read_json_object(subject), "conditioning_channels": CHANNELS[name]}
    return plan_network(name, Checkpoint(path), content, subject=subject, dtype=dtype, notes=notes)


def start_face(pose: Part, *, dtype: torch.dtype) -> Part:
    """Plan an untrained S-Face ControlNet: the pose one with a fresh embedding of its six-channel pictures.

    The embedding is initialised as diffusers does, so its last layer is zero and faces have no effect at first.
    All else, the output convolutions too, is the pose ControlNet's.

    Args:
        pose: the plan of the pose ControlNet.
        dtype: what floating tensors become.
    """
    name = "face_controlnet"
    config = {**(pose.config or {}), "conditioning_channels": CHANNELS[name]}
    module = build_empty(COMPONENTS[name], config, subject=pose.files[0].parent)
    fresh = _fresh_embedding(module.get_submodule("controlnet_cond_embedding"))
    layers = {EMBEDDING + key: LazyTensor.of(tensor, dtype) for key, tensor in fresh.items()}
    zeros = tuple(key for key in layers if key.startswith(f"{EMBEDDING}conv_out."))
    taken = tuple(key for key in pose.tensors if key not in layers)
    origins = {
        pose.files[0].name: taken,
        f"fresh random numbers (seed {FRESH_SEED})": tuple(key for key in layers if key not in zeros),
        "zeros (fresh)": zeros,
    }
    notes = [
        *pose.notes,
        "untrained: faces have no effect, but its other layers act as the pose ControlNet does without a pose; "
        "leave it out (--face-scale 0) until it is trained",
    ]
    return dataclasses.replace(
        pose, name=name, config=config, tensors={**pose.tensors, **layers}, origins=origins, notes=notes
    )


def _fresh_embedding(embedding: nn.Module) -> dict[str, torch.Tensor]:
    """New parameters for a condition embedding that has none; the global random state is left as it was."""
    embedding.to_empty(device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(FRESH_SEED)
        for layer in embedding.modules():
            if isinstance(layer, nn.Conv2d):
                layer.reset_parameters()
    state = embedding.state_dict()
    for key in ("conv_out.weight", "conv_out.bias"):
        state[key].zero_()
    return state
