"""LoRA files: low-rank changes of a denoiser's weights, read, checked and merged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from xdyna.weights.storage import LazyTensor, write_safetensors

FAST_FILE = "fast.safetensors"
"""The LoRA for few steps that a model's folder may hold."""

STEPS_KEY, BASE_KEY = "xdyna_steps", "xdyna_base"
"""A file's metadata: how many steps it is for, and the hash of the model whose weights it changes."""


def write_lora(path: Path, changes: Mapping[str, Tensor], *, steps: int, base: str) -> None:
    """Write a LoRA of a denoiser, in bf16 and in diffusers' layout.

    Args:
        path: the file; its folder exists.
        changes: by the names of `models.low_rank.LowRankDeltas`.
        steps: denoising steps that it is for.
        base: `folder_hash` of the model that it changes; "" when not known.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors = {f"unet.{name}": LazyTensor.of(value, torch.bfloat16) for name, value in changes.items()}
    metadata = {"format": "pt", STEPS_KEY: str(steps), **({BASE_KEY: base} if base else {})}
    write_safetensors(path, tensors, metadata=metadata)
