"""Where a model's networks lie, and in which form, when a pipeline has loaded them."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xdyna.weights.compact import hold
from xdyna.weights.components import COMPONENTS
from xdyna.weights.loading import load_components

logger = logging.getLogger(__name__)

ENCODERS = ("text_encoder", "image_encoder", "image_projector", "reference_encoder")
"""Networks that a run needs once, at its start: on a GPU they lie in main memory else."""
FUSED = ("unet", "vae", "pose_controlnet", "face_controlnet", "reference_net")
"""Networks that have fused kernels, and like their channels last."""
COMPACT = ("unet", "pose_controlnet", "face_controlnet", "reference_net")
"""Networks whose weights may be held in 8 bits."""


def lent_parts(device: torch.device, *, offload: bool) -> frozenset[str]:
    """The parts that lie in main memory and come to a device for their work only: none on a CPU.

    Args:
        device: where networks work.
        offload: whether all do so, or the encoders alone.
    """
    if device.type == "cpu":
        return frozenset()
    networks = [name for name, part in COMPONENTS.items() if part.kind == "network"]
    return frozenset(networks if offload else ENCODERS)


def load_placed(
    folder: str | Path,
    *,
    dtype: torch.dtype,
    device: torch.device,
    offload: bool = False,
    fusing: str = "never",
    weights_as: str = "full",
) -> dict[str, Any]:
    """Load all parts of a model for running it.

    Args:
        folder: a model's folder.
        dtype: what floating parameters become.
        device: where networks work.
        offload: leave all networks in main memory, locked there, see `lent_parts`.
        fusing: how fused kernels are used: one of `fused.FUSING`, or "auto".
        weights_as: how the large networks' weights are held: one of `compact.KINDS`.

    Returns:
        as `load_components`, whose errors it raises.

    Raises:
        OptionError: no such `fusing` or `weights_as`.
    """
    from xdyna.models.fused import AUTO_FUSING
    from xdyna.models.fusing import fuse

    fusing = AUTO_FUSING if fusing == "auto" else fusing
    lent = lent_parts(device, offload=offload)
    components: dict[str, Any] = {}
    for name in COMPONENTS:
        # 8-bit weights are made in main memory, so that the device never holds them whole
        first = torch.device("cpu") if name in lent or (name in COMPACT and weights_as != "full") else device
        part = components[name] = load_components(folder, dtype=dtype, device=first, names=[name])[name]
        if part is None:
            continue
        if name in FUSED:
            fuse(part, fusing)
            if device.type == "cpu" or fusing != "never":
                # a third faster convolutions on a CPU, same numbers up to rounding; fused kernels read nothing else
                part.to(memory_format=torch.channels_last)
        if name in COMPACT:
            hold(part, weights_as)
        if name in lent:
            _lock(part)
        elif isinstance(part, nn.Module):
            part.to(device)
    return components


def _lock(network: nn.Module) -> None:
    """Lock weights in main memory, from where a GPU copies them several times as fast."""
    try:
        for tensor in itertools.chain(network.parameters(), network.buffers()):
            tensor.data = tensor.data.pin_memory()
    except RuntimeError as error:  # more than the system allows to lock
        logger.info("weights stay unlocked in main memory: %s", error)
