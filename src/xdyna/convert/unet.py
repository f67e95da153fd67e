"""The UNet: X-Dyna's checkpoint, completed from the base file where it is partial (spec.md 11)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from xdyna.convert.checkpoint import Checkpoint
from xdyna.convert.part import Part
from xdyna.errors import WeightsError
from xdyna.weights.components import COMPONENTS
from xdyna.weights.folder import network_config, weight_name
from xdyna.weights.keys import Shapes, check_keys, first_of, likely_cause
from xdyna.weights.loading import build_empty
from xdyna.weights.official_files import OFFICIAL_FILES
from xdyna.weights.storage import LazyTensor

ADAPTER = (".attn1.to_q_ff.", ".attn1.to_out_ff.")
QUERY, SHARED_QUERY = ".attn1.to_q_ff.weight", ".attn1.to_q.weight"
POSITIONS = ".pos_encoder.pe"
ZEROS, FRESH_ZEROS = "zeros, as nothing gives it", "zeros (fresh)"

_SAME_NAMES = (
    "in_channels",
    "out_channels",
    "block_out_channels",
    "layers_per_block",
    "attention_head_dim",
    "cross_attention_dim",
    "norm_num_groups",
    "norm_eps",
)
_BLOCKS = {
    "CrossAttnDownBlock2D": "CrossAttnDownBlock3D",
    "DownBlock2D": "DownBlock3D",
    "CrossAttnUpBlock2D": "CrossAttnUpBlock3D",
    "UpBlock2D": "UpBlock3D",
}


def unet_config(
    base: Mapping[str, Any], shapes: Shapes, *, image_tokens: int, subject: Path
) -> dict[str, Any]:
    """The configuration of our UNet for Stable Diffusion's unet/config.json.

    Args:
        base: its content.
        shapes: the checkpoint's names and shapes: the longest clip of the motion modules is read off them.
        image_tokens: how many tokens the Resampler makes.
        subject: the config's file, for messages.

    Raises:
        WeightsError: it names blocks that X-Dyna does not have.
    """
    config = {name: base[name] for name in _SAME_NAMES if base.get(name) is not None}
    for key in ("down_block_types", "up_block_types"):
        if key in base:
            unknown = [name for name in base[key] if name not in _BLOCKS and name not in _BLOCKS.values()]
            if unknown:
                raise WeightsError(
                    subject, f"{key}: {first_of(unknown)} is no block of X-Dyna's", "Give that of SD 1.5"
                )
            config[key] = [_BLOCKS.get(name, name) for name in base[key]]
    lengths = {shape[1] for name, shape in shapes.items() if name.endswith(POSITIONS) and len(shape) == 3}
    if len(lengths) == 1:
        config["motion_max_length"] = lengths.pop()
    config["image_tokens"] = image_tokens
    widths = config.get("block_out_channels", [])
    if any(width % 32 for width in widths):
        # The official code says 32 whatever the width; widths that do not divide need others to exist at all.
        config["motion_norm_groups"] = base.get("norm_num_groups", 32)
    return config


def plan_unet(
    own: Checkpoint,
    base_path: Path | None,
    ip_adapter: Checkpoint,
    config: Mapping[str, Any],
    *,
    subject: Path,
    dtype: torch.dtype,
) -> Part:
    """Plan the UNet.

    Every parameter comes from X-Dyna's checkpoint; those it lacks from the base file, with these exceptions:
    `attn1.to_q_ff` is the base's `attn1.to_q` (also where the base has a `to_q_ff`), `attn1.to_out_ff` that
    neither has is zero, positions are computed, and `to_k_ip`, `to_v_ip` come from IP-Adapter.

    Args:
        own: X-Dyna's checkpoint.
        base_path: animatediff_v15_v1_ipplus.pth; read only if `own` is partial.
        ip_adapter: ip-adapter-plus_sd15.
        config: of our UNet (`unet_config`).
        subject: the config's file, for messages.
        dtype: what floating tensors become.

    Raises:
        WeightsError: a parameter that nothing gives, that does not belong, or has another shape.
    """
    module = build_empty(COMPONENTS["unet"], config, subject=subject.parent)
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    _check_partial(own, expected, "unet")
    if not _adapter_names(own.shapes):
        raise WeightsError(
            own.path,
            "holds none of the Dynamics-Adapter's parameters (attn1.to_q_ff, attn1.to_out_ff)",
            likely_cause("unet", expected, own.shapes) or "Give unet-checkpoint-epoch-5.ckpt of X-Dyna",
        )
    missing = [name for name in expected if name not in own.shapes]
    base = Checkpoint(base_path) if base_path is not None and missing else None
    if base is not None:
        _check_partial(base, expected, "base")
    filled = _fill(expected, own, base, ip_adapter, dtype)
    _check_complete(own, base, expected, filled)
    part = _part(module, filled, own, base, ip_adapter)
    if not missing:
        unused = f"; {base_path.name} was not needed" if base_path is not None else ""
        part.notes.insert(0, f"the checkpoint is complete{unused}")
    zeros = part.origins.get(ZEROS, ())
    if zeros:
        part.notes.append(
            f"WARNING: {len(zeros)} parameters of the Dynamics-Adapter's output (to_out_ff) are in no file and "
            "were set to zero: there the reference has no effect. The official code would leave them random"
        )
    return part


def plan_base_unet(
    base: Checkpoint, ip_adapter: Checkpoint, config: Mapping[str, Any], *, subject: Path, dtype: torch.dtype
) -> Part:
    """Plan the UNet that training starts from: the base file and a fresh Dynamics-Adapter.

    `attn1.to_q_ff` is a copy of `attn1.to_q`, `attn1.to_out_ff` is zero (evaluation.md 1.1): the reference has no
    effect at first. Should the base lack positions or `to_k_ip`, `to_v_ip`, they come from where `plan_unet` takes
    them.

    Args:
        base: animatediff_v15_v1_ipplus.pth.
        ip_adapter: ip-adapter-plus_sd15.
        config: of our UNet (`unet_config`).
        subject: the config's file, for messages.
        dtype: what floating tensors become.

    Raises:
        WeightsError: a parameter that nothing gives, that does not belong, or has another shape; a base that has
            a Dynamics-Adapter already.
    """
    module = build_empty(COMPONENTS["unet"], config, subject=subject.parent)
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    trained = _adapter_names(base.shapes)
    if trained:
        raise WeightsError(
            base.path,
            f"has {len(trained)} parameters of a Dynamics-Adapter ({first_of(trained)}): it is no base, "
            "but X-Dyna's UNet, trained",
            "To go on from that, start from what `xdyna convert official` makes of it; "
            "for the base, give animatediff_v15_v1_ipplus.pth",
        )
    _check_partial(base, expected, "base")
    filled = _fill(expected, None, base, ip_adapter, dtype)
    _check_complete(None, base, expected, filled)
    return _part(module, filled, None, base, ip_adapter)


def _fill(
    expected: Shapes,
    own: Checkpoint | None,
    base: Checkpoint | None,
    ip_adapter: Checkpoint,
    dtype: torch.dtype,
) -> dict[str, tuple[str, LazyTensor]]:
    """Name -> where it comes from and the tensor, for every parameter that has a source."""
    filled: dict[str, tuple[str, LazyTensor]] = {}
    ip_names = _ip_adapter_names(expected, ip_adapter)
    for name, shape in expected.items():
        shared = name.replace(QUERY, SHARED_QUERY)
        if own is not None and name in own.shapes:
            filled[name] = own.path.name, own.lazy(name, dtype)
        elif name.endswith(QUERY):
            if base is not None and shared in base.shapes:
                filled[name] = f"{base.path.name}, copied from attn1.to_q", base.lazy(shared, dtype)
        elif base is not None and name in base.shapes:
            filled[name] = base.path.name, base.lazy(name, dtype)
        elif ".attn1.to_out_ff." in name:
            filled[name] = ZEROS if own is not None else FRESH_ZEROS, _zeros(shape, dtype)
        elif name.endswith(POSITIONS):
            filled[name] = "the formula (a sinusoid)", _positions(shape, dtype)
        elif name in ip_names:
            filled[name] = ip_adapter.path.name, ip_adapter.lazy(ip_names[name], dtype)
    return filled


def _part(
    module: torch.nn.Module,
    filled: Mapping[str, tuple[str, LazyTensor]],
    own: Checkpoint | None,
    base: Checkpoint | None,
    ip_adapter: Checkpoint,
) -> Part:
    origins: dict[str, list[str]] = {}
    for name, (origin, _) in filled.items():
        origins.setdefault(origin, []).append(name)
    notes = []
    checkpoints = [checkpoint for checkpoint in (own, base) if checkpoint is not None]
    if ip_adapter.path.name in origins:
        checkpoints.append(ip_adapter)
    else:
        count = len(ip_adapter.part("ip_adapter."))
        notes.append(f"{count} to_k_ip and to_v_ip of {ip_adapter.path.name} were not needed")
    return Part(
        "unet",
        files=tuple(checkpoint.path for checkpoint in checkpoints),
        config=network_config(module),
        weight_file=weight_name(module),
        tensors={name: tensor for name, (_, tensor) in filled.items()},
        origins={origin: tuple(names) for origin, names in origins.items()},
        notes=notes,
        checkpoints=tuple(checkpoints),
    )


def _adapter_names(shapes: Shapes) -> list[str]:
    return [name for name in shapes if any(mark in name for mark in ADAPTER)]


def _check_partial(checkpoint: Checkpoint, expected: Shapes, component: str) -> None:
    """Allow missing parameters, but neither extra ones nor other shapes."""
    present = {name: shape for name, shape in expected.items() if name in checkpoint.shapes}
    check_keys(checkpoint.path, present, checkpoint.shapes, component=component)


def _check_complete(
    own: Checkpoint | None, base: Checkpoint | None, expected: Shapes, filled: Collection[str]
) -> None:
    left = [name for name in expected if name not in filled]
    if not left:
        return
    if base is None:
        file = next(file for file in OFFICIAL_FILES if file.name == "base")
        remedy = f"It has to be completed from {file.place}: get it at {file.source}"
    else:
        lacks = f"{base.path.name} lacks them too; it" if own is not None else "It"
        remedy = f"{lacks} may be cut short, or a file of another model"
        remedy = likely_cause("base", expected, base.shapes) or remedy
    subject = own or base
    assert subject is not None
    raise WeightsError(subject.path, f"{len(left)} parameters missing ({first_of(left)})", remedy)


def _ip_adapter_names(expected: Shapes, ip_adapter: Checkpoint) -> dict[str, str]:
    """Our names of IP-Adapter's projections -> its own, which count the attention layers 1, 3, 5 ...

    It counts down blocks, then up blocks, then the middle, as diffusers registers them.
    """
    layers = {name.rpartition(".to_k_ip.")[0] for name in expected if ".to_k_ip." in name}
    order = {"down_blocks": 0, "up_blocks": 1, "mid_block": 2}
    ranked = sorted(layers, key=lambda layer: (order.get(layer.split(".")[0], 3), layer))
    names = {}
    for place, layer in enumerate(ranked):
        for kind in ("to_k_ip", "to_v_ip"):
            stored = f"ip_adapter.{2 * place + 1}.{kind}.weight"
            name = f"{layer}.{kind}.weight"
            if ip_adapter.shapes.get(stored) == expected[name]:
                names[name] = stored
    return names


def _zeros(shape: tuple[int, ...], dtype: torch.dtype) -> LazyTensor:
    return LazyTensor(shape, dtype, partial(torch.zeros, shape, dtype=dtype))


def _positions(shape: tuple[int, ...], dtype: torch.dtype) -> LazyTensor:
    """(1 f c): sines at even and cosines at odd channels, frequencies exp(-2k ln(10000) / c) (spec.md 1.3)."""

    def make() -> torch.Tensor:
        frequencies = torch.exp(torch.arange(0, shape[2], 2) * (-math.log(10000.0) / shape[2]))
        angles = torch.arange(shape[1])[:, None] * frequencies
        return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[None].to(dtype)

    return LazyTensor(shape, dtype, make)
