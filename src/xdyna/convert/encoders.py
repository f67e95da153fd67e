"""The parts around the denoiser: autoencoder, scheduler, CLIP's two towers, IP-Adapter's Resampler."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from xdyna.convert.checkpoint import Checkpoint
from xdyna.convert.part import Part, plan_files, plan_network
from xdyna.errors import WeightsError
from xdyna.weights.components import read_json_object
from xdyna.weights.keys import likely_cause

SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",
    "clip_sample": False,
    "prediction_type": "epsilon",
    "set_alpha_to_one": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
"""What the official inference code builds (spec.md 8); it does not read Stable Diffusion's own file."""

_ATTENTION_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_HEAD_WIDTH = 64


def plan_encoders(found: Mapping[str, Path], *, dtype: torch.dtype) -> list[Part]:
    """Plan autoencoder, scheduler, text encoder, tokenizer, image encoder and image processor.

    Args:
        found: the official files (`find_official`).
        dtype: what floating tensors become.

    Raises:
        WeightsError: a file that cannot be read, or whose parameters do not fit its config.
    """
    vae = _plan_vae(found["vae"], dtype)
    scheduler = Part("scheduler", texts={"scheduler_config.json": json.dumps(SCHEDULER, indent=2) + "\n"})
    text = _plan_encoder("text_encoder", found["text_encoder"], dtype)
    tokenizer = _plan_tokenizer(found["tokenizer"], text)
    image = _plan_encoder("image_encoder", found["image_encoder"], dtype)
    return [vae, scheduler, text, tokenizer, image, _image_processor(image)]


def plan_projector(ip_adapter: Checkpoint, *, dtype: torch.dtype) -> Part:
    """Plan the Resampler, its sizes read off the file.

    Args:
        ip_adapter: ip-adapter-plus_sd15.
        dtype: what floating tensors become.

    Raises:
        WeightsError: another adapter, or one whose Resampler is not whole.
    """
    shapes = ip_adapter.part("image_proj.")
    others = {name for name in ip_adapter.shapes if not name.startswith(("image_proj.", "ip_adapter."))}
    needed = ("latents", "proj_in.weight", "proj_out.weight", "layers.0.0.to_q.weight", "layers.0.1.1.weight")
    if others or any(len(shapes.get(name, ())) < 2 for name in needed):
        raise WeightsError(
            ip_adapter.path,
            "is not IP-Adapter-plus: it has to hold image_proj (a Resampler) and ip_adapter, nothing else",
            likely_cause("image_projector", {}, shapes or ip_adapter.shapes)
            or "Give models/ip-adapter-plus_sd15.bin of h94/IP-Adapter",
        )
    dim, inner = shapes["latents"][2], shapes["layers.0.0.to_q.weight"][0]
    notes = []
    if inner % _HEAD_WIDTH == 0:
        heads = inner // _HEAD_WIDTH
    else:
        heads = next(count for count in (12, 8, 4, 2, 1) if inner % count == 0)
        notes.append(f"WARNING: its heads are not {_HEAD_WIDTH} wide; {heads} heads were assumed")
    config = {
        "dim": dim,
        "depth": 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("layers.")),
        "dim_head": inner // heads,
        "heads": heads,
        "num_queries": shapes["latents"][1],
        "embedding_dim": shapes["proj_in.weight"][1],
        "output_dim": shapes["proj_out.weight"][0],
        "ff_mult": shapes["layers.0.1.1.weight"][0] // dim,
    }
    return plan_network(
        "image_projector",
        ip_adapter,
        config,
        subject=ip_adapter.path,
        dtype=dtype,
        prefix="image_proj.",
        notes=notes,
    )


def _plan_vae(path: Path, dtype: torch.dtype) -> Part:
    checkpoint = Checkpoint(path)
    renamed = {}
    for name in checkpoint.shapes:
        if ".attentions." in name:
            for old, new in _ATTENTION_NAMES.items():
                if f".{old}." in name:
                    renamed[name] = name.replace(f".{old}.", f".{new}.")
    checkpoint.rename(renamed)
    notes = [f"{len(renamed)} attention names of older diffusers brought up to date"] if renamed else []
    if path.parent.name != "vae":
        notes.append(f"WARNING: taken from {path.parent.name}; the official code uses Stable Diffusion's own")
    return plan_network(
        "vae", checkpoint, _config_beside(path), subject=path.parent / "config.json", dtype=dtype, notes=notes
    )


def _plan_encoder(name: str, path: Path, dtype: torch.dtype) -> Part:
    config = _config_beside(path)
    notes = (
        ["WARNING: made from a half-precision file"]
        if ".fp16." in path.name and dtype == torch.float32
        else []
    )
    return plan_network(
        name, Checkpoint(path), config, subject=path.parent / "config.json", dtype=dtype, notes=notes
    )


def _plan_tokenizer(vocabulary: Path, text: Part) -> Part:
    folder = vocabulary.parent
    names = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
    if not (folder / "merges.txt").is_file():
        raise WeightsError(
            folder / "merges.txt", "is missing", "Download Stable Diffusion 1.5's tokenizer whole"
        )
    part = plan_files("tokenizer", {name: folder / name for name in names if (folder / name).is_file()})
    words = len(json.loads(part.texts["vocab.json"]))
    size = (text.config or {}).get("vocab_size", words)
    if words > size:
        raise WeightsError(
            vocabulary, f"has {words} words, the text encoder {size}", "They are of two models"
        )
    return part


def _image_processor(encoder: Part) -> Part:
    """The settings of a default CLIPImageProcessor (spec.md 2), at the encoder's size."""
    size = (encoder.config or {}).get("image_size", 224)
    settings = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    return Part("image_processor", texts={"preprocessor_config.json": json.dumps(settings, indent=2) + "\n"})


def _config_beside(path: Path) -> dict[str, Any]:
    return read_json_object(path.parent / "config.json")
