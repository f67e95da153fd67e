"""The official repository's `pretrained_weights` tree to a model folder of ours (issue 2, section 2)."""

from __future__ import annotations

from pathlib import Path

import torch

from xdyna.convert.checkpoint import Checkpoint
from xdyna.convert.control import plan_control
from xdyna.convert.conversion import Conversion, Progress, check_present, check_request
from xdyna.convert.encoders import plan_encoders, plan_projector
from xdyna.convert.report import ConversionReport
from xdyna.convert.unet import plan_unet, unet_config
from xdyna.weights.components import read_json_object
from xdyna.weights.official_files import OFFICIAL_FILES, find_official, official_root

NEEDED = tuple(file.name for file in OFFICIAL_FILES if file.required)
CONTROLS = ("pose_controlnet", "face_controlnet")


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
    check_request(output, dtype=dtype, check=check)
    conversion = _plan(official_root(source), dtype)
    if check or output is None:
        return conversion.report()
    return conversion.write(output, progress=progress)


def _plan(root: Path, dtype: torch.dtype) -> Conversion:
    found = find_official(root)
    check_present(root, found, needed=NEEDED)
    sd_config = found["sd_config"]
    own, ip_adapter = Checkpoint(found["unet"]), Checkpoint(found["ip_adapter"])
    projector = plan_projector(ip_adapter, dtype=dtype)
    tokens = ip_adapter.shapes["image_proj.latents"][1]
    config = unet_config(read_json_object(sd_config), own.shapes, image_tokens=tokens, subject=sd_config)
    parts = [plan_unet(own, found.get("base"), ip_adapter, config, subject=sd_config, dtype=dtype)]
    for name in CONTROLS:
        if name in found:
            beside = found.get(name.replace("controlnet", "config"))
            parts.append(plan_control(name, found[name], config=beside, sd_config=sd_config, dtype=dtype))
    parts += [*plan_encoders(found, dtype=dtype), projector]
    return Conversion(
        root,
        parts,
        dtype,
        command="official",
        title="X-Dyna, converted from the official weights",
        sources={"image_projector": "ip_adapter"},
        absent=tuple(name for name in CONTROLS if name not in found),
    )
