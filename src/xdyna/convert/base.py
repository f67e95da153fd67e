"""The weights that training X-Dyna starts from: the official tree without anything that X-Dyna trained."""

from __future__ import annotations

from pathlib import Path

import torch

from xdyna.convert.checkpoint import Checkpoint
from xdyna.convert.control import plan_control, start_face
from xdyna.convert.conversion import Conversion, Progress, check_present, check_request
from xdyna.convert.encoders import plan_encoders, plan_projector
from xdyna.convert.report import ConversionReport
from xdyna.convert.unet import plan_base_unet, unet_config
from xdyna.weights.components import read_json_object
from xdyna.weights.official_files import find_official, official_root

NEEDED = (
    "base", "sd_config", "openpose", "vae", "text_encoder", "tokenizer", "ip_adapter", "image_encoder",
)  # fmt: skip
"""Names of `OFFICIAL_FILES`; of the ControlNet's config the UNet's can take the place."""


def convert_base(
    source: str | Path,
    output: str | Path | None,
    *,
    dtype: torch.dtype = torch.float16,
    check: bool = False,
    progress: Progress | None = None,
) -> ConversionReport:
    """Make the model that stage 1 of training starts from (evaluation.md 1.1, 1.2 and 5.5).

    Stable Diffusion 1.5 with AnimateDiff's motion modules and IP-Adapter-plus, a Dynamics-Adapter whose query is a
    copy of the frame's own and whose output is zero, the openpose ControlNet, and S-Face as the same ControlNet
    with a fresh embedding of six channels. The model is whole: it loads, and computes what the base computes.

    Checks, memory and writing are those of `convert_official`.

    Args:
        source: the official repository's `pretrained_weights` folder, the repository, or any folder with these
            files; X-Dyna's own checkpoints may be absent and are not read.
        output: the folder to make; not used with `check`.
        dtype: torch.float16, bfloat16 or float32.
        check: compare and report only.
        progress: called as the parts are written.

    Returns:
        what came from where, and what is fresh.

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
    base, ip_adapter = Checkpoint(found["base"]), Checkpoint(found["ip_adapter"])
    projector = plan_projector(ip_adapter, dtype=dtype)
    tokens = ip_adapter.shapes["image_proj.latents"][1]
    config = unet_config(read_json_object(sd_config), base.shapes, image_tokens=tokens, subject=sd_config)
    unet = plan_base_unet(base, ip_adapter, config, subject=sd_config, dtype=dtype)
    pose = plan_control(
        "pose_controlnet",
        found["openpose"],
        config=found.get("pose_config"),
        sd_config=sd_config,
        dtype=dtype,
    )
    face = start_face(pose, dtype=dtype)
    return Conversion(
        root,
        [unet, pose, face, *plan_encoders(found, dtype=dtype), projector],
        dtype,
        command="base",
        title="What training X-Dyna starts from",
        sources={
            "unet": "base",
            "pose_controlnet": "openpose",
            "face_controlnet": "openpose",
            "image_projector": "ip_adapter",
        },
    )
