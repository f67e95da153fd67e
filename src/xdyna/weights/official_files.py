"""The official repository's `pretrained_weights` tree: which file is what, where it comes from, its licence.

The places are those that the README of bytedance/X-Dyna draws (commit 9a54f8e) and those of its downloads
(Boese0601/X-Dyna keeps its checkpoints at the root; h94/IP-Adapter and Stable Diffusion come as repositories).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from xdyna.errors import WeightsError

SUFFIXES = (".safetensors", ".ckpt", ".pth", ".pt", ".bin")
"""Weight files, safe ones first: of two files with one stem the first of these is taken."""

_XDYNA = "https://huggingface.co/Boese0601/X-Dyna"
_SD15 = "https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5"
_IP_ADAPTER = "https://huggingface.co/h94/IP-Adapter"
_I2V = "https://huggingface.co/space-xun/i2v_adapter"
_SD_PLACE = "initialization/unet_initialization/SD/stable-diffusion-v1-5"
_SD_PLACES = (_SD_PLACE, "initialization/unet_initialization/SD", "**/stable-diffusion-v1-5", "**/SD")
_IP_PLACE = "initialization/unet_initialization/IP-Adapter/IP-Adapter/models"
_OPENPOSE_PLACE = "initialization/controlnets_initialization/controlnet/control_v11p_sd15_openpose"
_NETWORK_FILES = (
    "diffusion_pytorch_model.safetensors",
    "model.safetensors",
    "diffusion_pytorch_model.bin",
    "pytorch_model.bin",
    "diffusion_pytorch_model.fp16.safetensors",
    "model.fp16.safetensors",
    "diffusion_pytorch_model.fp16.bin",
    "pytorch_model.fp16.bin",
)


@dataclass(frozen=True)
class OfficialFile:
    """One file of the official tree.

    Attributes:
        name: short name: a component's, or "base", "sd_config", "pose_config", "face_config", "openpose",
            "ip_adapter".
        place: where the README draws it, under pretrained_weights.
        patterns: glob patterns in the order they are tried; ".*" at the end stands for any of `SUFFIXES`.
        source: where to download it.
        licence: of that download.
        required: whether `xdyna convert official` needs it.
        purpose: what it is.
    """

    name: str
    place: str
    patterns: tuple[str, ...]
    source: str
    licence: str
    required: bool
    purpose: str


def _in_places(places: tuple[str, ...], folder: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{place}/{folder}{name}" for place in places for name in names)


OFFICIAL_FILES: tuple[OfficialFile, ...] = (
    OfficialFile(
        "unet",
        "unet/unet-checkpoint-epoch-5.ckpt",
        ("unet/*unet*.*", "unet/*.*", "unet-checkpoint*.*", "*unet*.*"),
        _XDYNA,
        "MIT",
        True,
        "X-Dyna's UNet with the Dynamics-Adapter",
    ),
    OfficialFile(
        "base",
        f"{_SD_PLACE}/unet/animatediff_v15_v1_ipplus.pth",
        ("**/animatediff_v15_v1_ipplus.*",),
        _I2V,
        "Apache-2.0",
        False,
        "Stable Diffusion with AnimateDiff and IP-Adapter-plus: completes a partial UNet checkpoint; "
        "for `xdyna convert base` it has to be there",
    ),
    OfficialFile(
        "sd_config",
        f"{_SD_PLACE}/unet/config.json",
        (*_in_places(_SD_PLACES, "unet/", ("config.json",)), "**/unet/config.json"),
        _SD15,
        "CreativeML OpenRAIL-M",
        True,
        "the UNet's layout",
    ),
    OfficialFile(
        "pose_controlnet",
        "controlnet/controlnet-checkpoint-epoch-5.ckpt",
        ("controlnet/*controlnet*.*", "controlnet/*.*", "controlnet-checkpoint*.*"),
        _XDYNA,
        "MIT",
        True,
        "the pose ControlNet",
    ),
    OfficialFile(
        "pose_config",
        f"{_OPENPOSE_PLACE}/config.json",
        _in_places((_OPENPOSE_PLACE, "**/control_v11p_sd15_openpose"), "", ("config.json",)),
        _XDYNA,
        "OpenRAIL",
        False,
        "the pose ControlNet's layout (lllyasviel/control_v11p_sd15_openpose)",
    ),
    OfficialFile(
        "openpose",
        f"{_OPENPOSE_PLACE}/diffusion_pytorch_model.safetensors",
        _in_places((_OPENPOSE_PLACE, "**/control_v11p_sd15_openpose"), "", _NETWORK_FILES),
        "https://huggingface.co/lllyasviel/control_v11p_sd15_openpose",
        "OpenRAIL",
        False,
        "what both ControlNets are trained from: only for `xdyna convert base`",
    ),
    OfficialFile(
        "face_controlnet",
        "controlnet_face/controlnet-face-checkpoint-epoch-2.ckpt",
        (
            "controlnet_face/*controlnet*.*",
            "controlnet_face/*.*",
            "controlnet-face-checkpoint*.*",
            "controlnet_face*.*",
        ),
        _XDYNA,
        "MIT",
        False,
        "the S-Face ControlNet",
    ),
    OfficialFile(
        "face_config",
        "initialization/controlnets_initialization/controlnet_face/controlnet2/config.json",
        (
            "initialization/controlnets_initialization/controlnet_face/controlnet2/config.json",
            "**/controlnet2/config.json",
        ),
        _XDYNA,
        "MIT",
        False,
        "the S-Face ControlNet's layout",
    ),
    OfficialFile(
        "vae",
        f"{_SD_PLACE}/vae/diffusion_pytorch_model.safetensors",
        (
            *_in_places(_SD_PLACES, "vae/", _NETWORK_FILES),
            *_in_places(("**",), "sd-vae-ft-mse/", _NETWORK_FILES),
        ),
        _SD15,
        "CreativeML OpenRAIL-M",
        True,
        "the autoencoder",
    ),
    OfficialFile(
        "text_encoder",
        f"{_SD_PLACE}/text_encoder/model.safetensors",
        _in_places((*_SD_PLACES, "**"), "text_encoder/", _NETWORK_FILES),
        _SD15,
        "CreativeML OpenRAIL-M",
        True,
        "the text encoder (also for the empty prompt)",
    ),
    OfficialFile(
        "tokenizer",
        f"{_SD_PLACE}/tokenizer/vocab.json",
        _in_places((*_SD_PLACES, "**"), "tokenizer/", ("vocab.json",)),
        _SD15,
        "CreativeML OpenRAIL-M",
        True,
        "the tokenizer",
    ),
    OfficialFile(
        "ip_adapter",
        f"{_IP_PLACE}/ip-adapter-plus_sd15.bin",
        (f"{_IP_PLACE}/ip-adapter-plus_sd15.*", "**/ip-adapter-plus_sd15.*"),
        _IP_ADAPTER,
        "Apache-2.0",
        True,
        "IP-Adapter-plus: its Resampler makes the image tokens",
    ),
    OfficialFile(
        "image_encoder",
        f"{_IP_PLACE}/image_encoder/model.safetensors",
        # The repository also carries sdxl_models/image_encoder, which is another network.
        _in_places((_IP_PLACE, "**/models", "**/IP-Adapter", "*"), "image_encoder/", _NETWORK_FILES),
        _IP_ADAPTER,
        "Apache-2.0",
        True,
        "the CLIP ViT-H image encoder",
    ),
)
"""Every file that the official inference code reads, but for the face detector's, and what training starts from."""


def official_root(source: str | Path) -> Path:
    """The `pretrained_weights` folder: the one given, or the one in the repository given.

    Raises:
        WeightsError: there is no such folder.
    """
    root = Path(source).expanduser()
    if not root.is_dir():
        raise WeightsError(
            root,
            "there is no such folder" if not root.exists() else "a file, not a folder",
            "Give the official repository's pretrained_weights folder",
        )
    inner = root / "pretrained_weights"
    return inner if inner.is_dir() else root


def find_official(source: str | Path) -> dict[str, Path]:
    """Find the official files under a folder.

    Of several checkpoints in one place the one with the highest epoch is taken.

    Returns:
        paths by `OfficialFile.name`, without those that are not there.

    Raises:
        WeightsError: there is no such folder.
    """
    root = official_root(source)
    found = {}
    for file in OFFICIAL_FILES:
        for pattern in file.patterns:
            matches = sorted(filter(_is_candidate(pattern), root.glob(pattern)), key=_preference)
            if matches:
                found[file.name] = matches[-1]
                break
    return found


def _is_candidate(pattern: str) -> Callable[[Path], bool]:
    any_suffix = pattern.endswith(".*")

    def check(path: Path) -> bool:
        return (
            path.is_file() and not path.name.startswith(".") and (not any_suffix or path.suffix in SUFFIXES)
        )

    return check


def _preference(path: Path) -> tuple[list[int], int, int]:
    """Sorts the best last: the highest numbers in the name, then safetensors, then the shallowest place."""
    numbers = [int(digits) for digits in re.findall(r"\d+", path.stem)]
    suffix = SUFFIXES.index(path.suffix) if path.suffix in SUFFIXES else len(SUFFIXES)
    return numbers, -suffix, -len(path.parts)
