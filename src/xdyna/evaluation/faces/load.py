"""The face networks with the files that are on this machine, or a word on where to get them.

Every function looks in `folder` (None: `registry.weights_folder()`), then in installed packages, and raises
`MissingWeights` where a file is in neither place; nothing is downloaded, and nothing stands in for another network.
"""

from __future__ import annotations

from pathlib import Path

import torch

from xdyna.evaluation.faces.adaface import load_adaface
from xdyna.evaluation.faces.detect import MtcnnDetector
from xdyna.evaluation.faces.expression import ExpressionReader
from xdyna.evaluation.faces.found import FaceDetector
from xdyna.evaluation.faces.measure import AdaFaceEmbedder
from xdyna.evaluation.faces.mtcnn import NAMES, load_mtcnn
from xdyna.evaluation.faces.opencv import SfaceEmbedder, YunetDetector
from xdyna.evaluation.packaged import find_file


def find_mtcnn(
    *, softmax: str = "class", folder: str | Path | None = None, device: torch.device | str = "cpu"
) -> MtcnnDetector:
    """MTCNN; with `softmax="adaface"` both faults of the published code, see `MtcnnDetector`."""
    files = [find_file(f"mtcnn_{name}", folder=folder) for name in NAMES]
    networks = load_mtcnn(*files, softmax=softmax, device=device)
    return MtcnnDetector(networks, outside="raise" if softmax == "adaface" else "drop")


def find_adaface(
    backbone: str = "ir101",
    *,
    fault: bool = False,
    folder: str | Path | None = None,
    device: torch.device | str = "cpu",
) -> AdaFaceEmbedder:
    """AdaFace, "ir50" or "ir101"; `fault` as in `fit_similarity`."""
    path = find_file(f"adaface_{backbone}", folder=folder)
    return AdaFaceEmbedder(load_adaface(backbone, path, device=device), fault=fault)


def find_yunet(*, threshold: float = 0.7, folder: str | Path | None = None) -> YunetDetector:
    """YuNet."""
    return YunetDetector(find_file("yunet", folder=folder), threshold=threshold)


def find_sface(*, folder: str | Path | None = None) -> SfaceEmbedder:
    """SFace."""
    return SfaceEmbedder(find_file("sface", folder=folder))


def find_expression_reader(
    *, detector: FaceDetector | None = None, folder: str | Path | None = None
) -> ExpressionReader:
    """The reader of 51 blendshape scores."""
    return ExpressionReader(find_file("face_landmarker", folder=folder), detector=detector)
