"""LoRA files: low-rank changes of a denoiser's weights, read strictly, and written.

Two layouts are read, safetensors only:

- diffusers' and PEFT's: ``unet.NAME.lora_A.weight`` and ``lora_B`` (also ``.lora.down``/``.lora.up``, and the older
  ``NAME.processor.to_q_lora.down``), alpha equal to the rank unless the file's metadata say otherwise;
- kohya's: ``lora_unet_NAME_WITH_UNDERSCORES.lora_down.weight``, ``.lora_up.weight`` and ``.alpha``. Published LCM-LoRAs
  of Stable Diffusion 1.5 are of this kind.

Every key must be accounted for: it belongs to a pair of factors that fits a layer here, or to a text encoder, which is
reported and left alone; anything else is an error. (The official denoiser keeps Stable Diffusion's names, so that files
for Stable Diffusion 1.5 fit; motion modules and the adapter stay as they are.)
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xdyna.errors import WeightsError
from xdyna.weights.folder import file_hash
from xdyna.weights.keys import first_of
from xdyna.weights.storage import LazyTensor, opened, write_safetensors

logger = logging.getLogger(__name__)

STEPS_KEY, BASE_KEY = "xdyna_steps", "xdyna_base"
"""A file's metadata: how many steps it is for, and the hash of the model whose weights it changes."""

_KOHYA, _TEXT = "lora_unet_", ("text_encoder", "lora_te")
_PREFIXES = ("base_model.model.", "unet.base_model.model.", "unet.")
_FACTORS = {
    ".lora_A.weight": "down", ".lora_B.weight": "up", ".lora.down.weight": "down", ".lora.up.weight": "up",
    ".lora_down.weight": "down", ".lora_up.weight": "up", ".alpha": "alpha",
}  # fmt: skip
_OLD_FACTOR = re.compile(r"^(.*)\.processor\.(to_q|to_k|to_v|to_out)_lora\.(down|up)\.weight$")
_OTHER_KINDS = {
    "hada_": "a LoHa",
    "lokr_": "a LoKr",
    "dora_scale": "a DoRA",
    "lora_magnitude_vector": "a DoRA",
}


@dataclass(frozen=True)
class Change:
    """One layer's change: `scale` times `up` times `down`."""

    down: Tensor
    up: Tensor
    scale: float


@dataclass(frozen=True)
class Lora:
    """A LoRA file, read.

    Attributes:
        path: the file.
        changes: by the network's parameter names.
        skipped: keys of a text encoder, which are not used.
        steps: denoising steps that it is for, where the file says so, else 0.
        base: hash of the model that it was made for, where the file says so.
        hash: sha256 of the file.
    """

    path: Path
    changes: dict[str, Change]
    skipped: tuple[str, ...]
    steps: int
    base: str
    hash: str


def read_lora(path: Path, network: nn.Module) -> Lora:
    """Read a LoRA for a network.

    Args:
        path: a safetensors file.
        network: read for names and shapes of its layers.

    Raises:
        WeightsError: a broken file, a key that belongs nowhere, a factor without its other, shapes that do not fit,
            or numbers that are not finite.
    """
    tensors, metadata = _read(path)
    shapes = {
        name.removesuffix(".weight"): tuple(value.shape)
        for name, value in network.named_parameters()
        if name.endswith(".weight") and value.ndim >= 2
    }
    flat = {name.replace(".", "_"): name for name in shapes}
    parts: dict[str, dict[str, Tensor]] = {}
    skipped, unknown = [], []
    for key, value in tensors.items():
        if key.startswith(_TEXT):
            skipped.append(key)
            continue
        name, role = _place(key, flat)
        if name not in shapes or role in parts.get(name, {}):
            unknown.append(key)
            continue
        parts.setdefault(name, {})[role] = value
    _refuse(path, unknown, tensors)
    alphas = _alphas(path, metadata)
    changes = {
        f"{name}.weight": _change(path, name, part, shapes[name], alphas) for name, part in parts.items()
    }
    if not changes:
        raise WeightsError(path, "changes nothing of the denoiser", "It is for a text encoder only, or empty")
    if skipped:
        logger.warning(
            "%s: %d keys are of a text encoder and not used (%s)", path, len(skipped), first_of(skipped)
        )
    steps = metadata.get(STEPS_KEY, "0")
    return Lora(
        path, changes, tuple(skipped), int(steps) if steps.isdecimal() else 0, metadata.get(BASE_KEY, ""),
        file_hash(path),
    )  # fmt: skip


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with opened(path) as file:
        return {key: file.get_tensor(key).clone() for key in file.keys()}, file.metadata() or {}  # noqa: SIM118


def _place(key: str, flat: Mapping[str, str]) -> tuple[str, str]:
    """The layer that a key is about, by its name here, and which part of the change it holds."""
    old = _OLD_FACTOR.match(key)
    if old:
        layer = "to_out.0" if old[2] == "to_out" else old[2]
        return _without_prefix(f"{old[1]}.{layer}"), old[3]
    for ending, role in _FACTORS.items():
        if key.endswith(ending):
            name = key.removesuffix(ending)
            if name.startswith(_KOHYA):
                return flat.get(name.removeprefix(_KOHYA), ""), role
            return _without_prefix(name), role
    return "", ""


def _without_prefix(name: str) -> str:
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def _refuse(path: Path, unknown: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
    """Raise WeightsError where keys belong nowhere, with the likely cause."""
    if not unknown:
        return
    kind = next((kind for part, kind in _OTHER_KINDS.items() if any(part in key for key in unknown)), "")
    if kind:
        remedy = f"This is {kind} file; merge it with the tool that made it, or use a plain LoRA"
    elif any("input_blocks" in key or "transformer_blocks_1" in key for key in unknown):
        remedy = "It looks like one for SDXL; X-Dyna's published weights are built on Stable Diffusion 1.5"
    else:
        remedy = "It is for another network: LoRAs of Stable Diffusion 1.5 fit the published weights"
    raise WeightsError(
        path,
        f"{len(unknown)} of its {len(tensors)} keys belong to nothing in this denoiser ({first_of(unknown)})",
        remedy,
    )


def _alphas(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """What diffusers keeps of PEFT's settings in a file's metadata; {} where it kept nothing."""
    try:
        values = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        settings = {
            key.removeprefix("unet."): value for key, value in values.items() if not key.startswith(_TEXT)
        }
        if settings.get("use_dora"):
            raise WeightsError(path, "is a DoRA file", "Use a plain LoRA")
        patterns = settings.get("alpha_pattern") or {}
        return {
            "alpha": None if settings.get("lora_alpha") is None else float(settings["lora_alpha"]),
            "patterns": {str(name): float(alpha) for name, alpha in patterns.items()},
            "root": bool(settings.get("use_rslora")),
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise WeightsError(path, f"its metadata cannot be read ({error})", "Save it again") from error


def _change(
    path: Path, name: str, part: Mapping[str, Tensor], shape: tuple[int, ...], settings: Mapping[str, Any]
) -> Change:
    """One layer's factors, checked."""
    if set(part) - {"alpha"} != {"down", "up"}:
        missing = " and ".join(role for role in ("down", "up") if role not in part)
        raise WeightsError(path, f"{name} has no {missing} factor", "Copy or download it again")
    down, up = part["down"], part["up"]
    rows, columns = shape[0], torch.Size(shape[1:]).numel()
    fits = down.ndim >= 2 and up.ndim >= 2 and len(down) == up.shape[1] and up[0].numel() == len(down)
    if not fits or len(up) != rows or down[0].numel() != columns:
        raise WeightsError(
            path,
            f"{name}: factors of {tuple(up.shape)} and {tuple(down.shape)} do not make a weight of {shape}",
            "It was made for a network of other widths",
        )
    alpha = part.get("alpha")
    if not all(bool(torch.isfinite(value.float()).all()) for value in part.values()):
        raise WeightsError(path, f"{name} holds NaN or infinity", "Download it again, or use another")
    rank = len(down)
    told = settings["alpha"]
    for pattern, value in settings["patterns"].items():
        if name == pattern or name.endswith(f".{pattern}"):
            told = value
    number = float(alpha.float().item()) if alpha is not None and alpha.numel() == 1 else told
    scale = 1.0 if number is None else number / (rank**0.5 if settings["root"] else rank)
    return Change(down, up, scale)


def steps_of(path: Path) -> int:
    """How many denoising steps a LoRA says that it is for; 0 where it says nothing."""
    steps = read_metadata(path).get(STEPS_KEY, "0")
    return int(steps) if steps.isdecimal() else 0


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata in a safetensors file's header.

    Raises:
        WeightsError: it is broken or missing.
    """
    with opened(path) as file:
        return file.metadata() or {}


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
