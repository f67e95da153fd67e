"""The official repository's `pretrained_weights` tree to a model folder of ours (issue 2, section 2)."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from xdyna.convert.checkpoint import Checkpoint
from xdyna.convert.part import Part, plan_files, plan_network
from xdyna.convert.report import ConversionReport
from xdyna.convert.unet import plan_unet, unet_config
from xdyna.errors import OptionError, OutputError, WeightsError
from xdyna.options import ModelPreset
from xdyna.weights.components import COMPONENTS, read_json_object
from xdyna.weights.folder import new_folder, write_index, write_text
from xdyna.weights.keys import likely_cause
from xdyna.weights.official_files import OFFICIAL_FILES, find_official, official_root

logger = logging.getLogger(__name__)

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
Progress = Callable[[str, int, int], None]
"""Called with (component, bytes written, bytes of the component)."""

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

CARD = """# X-Dyna, converted from the official weights

Written by `xdyna convert official`. What each part was made from and its licence:

{parts}

The weights stay under these licences; `xdyna models` says where each file comes from.
"""

_ATTENTION_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_HEAD_WIDTH = 64
_SOURCES = {"image_projector": "ip_adapter"}  # components that are not called like their file


def convert_official(
    source: str | Path,
    output: str | Path | None,
    *,
    dtype: torch.dtype = torch.float16,
    check: bool = False,
    progress: Progress | None = None,
) -> ConversionReport:
    """Convert the official weights.

    First every file is opened and all names and shapes are compared, which reads little; only then is
    anything written, tensor by tensor, so that the memory needed is that of the largest file mapped plus one
    tensor. The folder takes its name when it is complete.

    Args:
        source: the official repository's `pretrained_weights` folder, or the repository.
        output: the folder to make; not used with `check`.
        dtype: torch.float16, bfloat16 or float32.
        check: compare and report only.
        progress: called as the parts are written.

    Returns:
        what came from where.

    Raises:
        WeightsError: a file is missing, broken, refused, or its parameters do not fit, by name.
        OutputError: `output` exists, cannot be written, or does not fit on the disk.
        OptionError: another dtype, or no output.
    """
    if dtype not in DTYPES:
        names = ", ".join(str(item).removeprefix("torch.") for item in DTYPES)
        raise OptionError("--dtype", f"{dtype} cannot be stored", f"Choose one of {names}")
    if output is None and not check:
        raise OptionError("output", "no folder was named", "Name one with -o, or use --check")
    root = official_root(source)
    parts = _plan(root, dtype)
    reports = tuple(part.report() for part in parts)
    absent = ("face_controlnet",) if all(part.name != "face_controlnet" for part in parts) else ()
    if check or output is None:
        return ConversionReport(root, None, dtype, reports, absent)
    target = Path(output).expanduser()
    _check_space(target, sum(part.size for part in parts))
    with new_folder(target) as folder:
        classes = {part.name: COMPONENTS[part.name].class_name or "DDIMScheduler" for part in parts}
        write_index(folder, classes, preset=ModelPreset())
        for part in parts:
            logger.info("writing %s", part.name)
            step = None if progress is None else _named(progress, part.name)
            part.write(folder / part.name, dtype=dtype, progress=step)
        write_text(folder / "README.md", CARD.format(parts="\n".join(_card_line(part) for part in parts)))
    return ConversionReport(root, target, dtype, reports, absent)


def _card_line(part: Part) -> str:
    if not part.files:
        return f"- {part.name}: settings of the official code"
    licence = next(file.licence for file in OFFICIAL_FILES if file.name == _SOURCES.get(part.name, part.name))
    return f"- {part.name}: {', '.join(path.name for path in part.files)} ({licence})"


def _plan(root: Path, dtype: torch.dtype) -> list[Part]:
    found = find_official(root)
    _check_present(root, found)
    sd_config = read_json_object(found["sd_config"])
    own = Checkpoint(found["unet"])
    ip_adapter = Checkpoint(found["ip_adapter"])
    projector = _plan_projector(ip_adapter, dtype)
    assert projector.config is not None
    config = unet_config(
        sd_config, own.shapes, image_tokens=projector.config["num_queries"], subject=found["sd_config"]
    )
    unet = plan_unet(own, found.get("base"), ip_adapter, config, subject=found["sd_config"], dtype=dtype)
    parts = [unet, _plan_vae(found["vae"], dtype)]
    parts.append(Part("scheduler", texts={"scheduler_config.json": json.dumps(SCHEDULER, indent=2) + "\n"}))
    parts.append(_plan_control("pose_controlnet", found, sd_config, channels=3, dtype=dtype))
    if "face_controlnet" in found:
        parts.append(_plan_control("face_controlnet", found, sd_config, channels=6, dtype=dtype))
    text = _plan_encoder("text_encoder", found["text_encoder"], dtype)
    parts += [text, _plan_tokenizer(found["tokenizer"], text)]
    image = _plan_encoder("image_encoder", found["image_encoder"], dtype)
    parts += [image, _image_processor(image), projector]
    _check_widths(parts)
    return parts


def _check_present(root: Path, found: Mapping[str, Path]) -> None:
    missing = [file for file in OFFICIAL_FILES if file.required and file.name not in found]
    if missing:
        listed = "; ".join(f"{file.place} ({file.purpose}, from {file.source})" for file in missing)
        raise WeightsError(
            root, f"{len(missing)} files are missing: {listed}", "Put them there and try again"
        )


def _check_space(target: Path, size: int) -> None:
    place = target.parent
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < size:
        raise OutputError(
            target,
            f"needs {size / 2**30:.1f} GiB, the disk has {free / 2**30:.1f} GiB free",
            "Free some space",
        )


def _plan_projector(ip_adapter: Checkpoint, dtype: torch.dtype) -> Part:
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


def _plan_control(
    name: str, found: Mapping[str, Path], sd_config: Mapping[str, Any], *, channels: int, dtype: torch.dtype
) -> Part:
    key = name.split("_")[0] + "_config"
    path = found.get(key)
    notes = []
    if path is not None:
        config = read_json_object(path)
    else:
        path = found["sd_config"]
        config = dict(sd_config)
        notes.append("its config.json is not there: the layout of the UNet was taken")
    # The pipeline feeds 3 channels of pose and 6 of S-Face (local, global); spec.md 3 and 4.
    config = {**config, "conditioning_channels": channels}
    return plan_network(name, Checkpoint(found[name]), config, subject=path, dtype=dtype, notes=notes)


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


def _check_widths(parts: list[Part]) -> None:
    """The parts have to fit each other, not only themselves."""
    configs = {part.name: part.config or {} for part in parts}
    files = {part.name: part.files[0] for part in parts if part.files}
    width = configs["unet"]["cross_attention_dim"]
    for name, got in (
        ("text_encoder", configs["text_encoder"]["hidden_size"]),
        ("image_projector", configs["image_projector"]["output_dim"]),
    ):
        if got != width:
            raise WeightsError(
                files[name], f"gives tokens {got} wide, the UNet takes {width}", "It is of another model"
            )
    features, taken = configs["image_encoder"]["hidden_size"], configs["image_projector"]["embedding_dim"]
    if features != taken:
        raise WeightsError(
            files["image_encoder"],
            f"gives features {features} wide, IP-Adapter's Resampler takes {taken}",
            "Give models/image_encoder of h94/IP-Adapter (ViT-H), not that of its sdxl_models",
        )


def _config_beside(path: Path) -> dict[str, Any]:
    return read_json_object(path.parent / "config.json")


def _named(progress: Progress, name: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(name, done, total)
