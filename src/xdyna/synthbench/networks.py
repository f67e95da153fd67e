"""The networks that measure: the judge, and those that a figure needs and that may not be here.

Nothing stands in for a network that is missing: its figure is null, and the report says what it needs.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from xdyna.evaluation.faces.found import FaceDetector
from xdyna.evaluation.faces.measure import ClipFaces, FaceEmbedder, face_cos
from xdyna.evaluation.judge import Judge
from xdyna.evaluation.networks.texture import ASSET, texture_features
from xdyna.evaluation.packaged import find_packaged
from xdyna.evaluation.registry import MissingWeights
from xdyna.synthbench.reading import Reader, TextureReader
from xdyna.weights import file_hash

JUDGE = Path(__file__).parents[1] / "assets" / "judge.safetensors"
"""The judge that published figures stand on."""
REACH = 2.0
"""A face farther from the head's true middle than so many half heights of the head is somebody else's."""
REMEMBERED = 32
"""Of so many clips the faces are kept: the true ones are compared with every way a case is made."""


def find_reader(judge: str | Path | None = None, *, device: str | torch.device = "cpu") -> Reader:
    """The judge and whatever else is here.

    Args:
        judge: another judge's file.
        device: where the judge runs.

    Raises:
        InputError: the judge's file is missing or none.
        WeightsError: a network's file is here, but is not what it should be.
    """
    path = JUDGE if judge is None else Path(judge).expanduser()
    loaded = Judge.load(path, device=device)
    networks, unavailable = {"judge": file_hash(path)}, {}
    faces, texture = None, None
    try:
        faces, networks["face_cos"] = find_faces()
    except MissingWeights as error:
        unavailable["face_cos"] = str(error)
    try:
        texture, networks["dtfvd_synth"] = find_texture()
    except MissingWeights as error:
        unavailable["dtfvd_synth"] = str(error)
    return Reader(loaded, texture=texture, faces=faces, unavailable=unavailable, networks=networks)


def find_faces() -> tuple[HeadFaces, str]:
    """YuNet and SFace where their package is installed, and what identifies them.

    Raises:
        MissingWeights: it is not.
        WeightsError: the files are others than those known.
    """
    from xdyna.evaluation.faces.opencv import SfaceEmbedder, YunetDetector

    detector, embedder = find_packaged("yunet"), find_packaged("sface")
    name = f"face_cos[sface] {file_hash(embedder)}, yunet {file_hash(detector)}"
    return HeadFaces(YunetDetector(detector), SfaceEmbedder(embedder)), name


def find_texture() -> tuple[TextureReader, str]:
    """The dynamic-texture network that ships in the package, and what identifies it.

    Raises:
        MissingWeights: this checkout has none.
    """
    if not ASSET.is_file():
        raise MissingWeights(ASSET.name, "the package's assets; `python -m xdyna.training.texture` trains it")
    return texture_features, f"dtfvd[synth] {file_hash(ASSET)}"


class HeadFaces:
    """Whether a clip shows the face of the true clip, where the head is known to be.

    The face that counts in a frame is the one nearest to the head's true middle, since a second person may stand by.

    Args:
        detector: finds faces.
        embedder: tells identities.
    """

    def __init__(self, detector: FaceDetector, embedder: FaceEmbedder) -> None:
        self.detector, self.embedder = detector, embedder
        self._known: dict[bytes, ClipFaces] = {}

    def __call__(self, generated: np.ndarray, truth: np.ndarray, heads: np.ndarray) -> list[float | None]:
        """Cosines of the identities, -1 to 1.

        Args:
            generated, truth: (f h w 3) uint8.
            heads: (f 3) true middle and half height, in pixels.

        Returns:
            for each frame; None where either face is not found.
        """
        return list(face_cos(self.find(generated, heads), self.find(truth, heads)).values)

    def find(self, frames: np.ndarray, heads: np.ndarray) -> ClipFaces:
        """The faces and identities of a clip; arguments as of calling this."""
        key = hashlib.blake2b(frames.tobytes() + heads.tobytes(), digest_size=16).digest()
        if key not in self._known:
            if len(self._known) >= REMEMBERED:
                self._known.pop(next(iter(self._known)))
            self._known[key] = self._found(frames, heads)
        return self._known[key]

    def _found(self, frames: np.ndarray, heads: np.ndarray) -> ClipFaces:
        faces, vectors = [], []
        for frame, (x, y, half) in zip(frames, heads, strict=True):
            near = [
                (distance, face)
                for face in self.detector.find(frame)
                if (distance := float(np.hypot(*((face.box[:2] + face.box[2:]) / 2 - (x, y))))) < REACH * half
            ]
            face = min(near, key=lambda pair: pair[0])[1] if near else None
            vector = None if face is None else np.asarray(self.embedder.embed(frame, face), np.float64)
            if vector is not None and not (np.isfinite(vector).all() and vector.any()):
                face, vector = None, None
            faces.append(face)
            vectors.append(vector)
        width = next((len(vector) for vector in vectors if vector is not None), 0)
        table = np.stack([np.zeros(width) if vector is None else vector for vector in vectors])
        return ClipFaces(self.detector.name, tuple(faces), table, self.embedder.name)
