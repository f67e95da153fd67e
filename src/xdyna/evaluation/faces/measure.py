"""Face-Cos and Face-Det: is it the same person, and is there a face at all?

Face-Cos is the mean cosine of the identities of generated and true faces over the frames in which both are found.
What the papers do about the others is not known; skipping them flatters a method that loses faces, so coverage and
the mean with those frames counted as 0 stand beside it. Face-Det is the share of generated frames with a face.
Definitions: X-Dyna, caption of Table 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from xdyna.errors import InputError
from xdyna.evaluation.faces.adaface import AdaFace, embed_faces
from xdyna.evaluation.faces.align import align_face
from xdyna.evaluation.faces.found import Face, FaceDetector, pick_face
from xdyna.evaluation.frame_scores import FrameScores
from xdyna.evaluation.pictures import as_clip


class FaceEmbedder(Protocol):
    """Makes a unit vector of a face.

    Attributes:
        name: goes into the metric's name: "adaface-ir101", "sface".
    """

    name: str

    def embed(self, picture: np.ndarray, face: Face) -> np.ndarray:
        """(d) float unit vector of one face in a (h w 3) uint8 RGB picture.

        Raises:
            InputError: the face's points cannot be aligned.
        """
        ...


class AdaFaceEmbedder:
    """Identity by AdaFace, see `load_adaface`.

    Args:
        network: with its weights.
        fault: align as the published code does, which mirrors strong profiles.
    """

    def __init__(self, network: AdaFace, *, fault: bool = False) -> None:
        self.network, self.fault = network, fault
        self.name = f"adaface-{network.backbone}"

    def embed(self, picture: np.ndarray, face: Face) -> np.ndarray:
        """(512) float32 unit vector."""
        crop = align_face(picture, face.points, fault=self.fault)
        return embed_faces(self.network, crop[None])[0][0]


@dataclass(frozen=True)
class ClipFaces:
    """What was found in a clip, once for all metrics that need it.

    Attributes:
        detector: the detector's name.
        faces: for each frame the face looked at, or None.
        vectors: (f d) unit vectors, rows of zeros where there is no face; None where no identity was asked for.
        embedder: the embedder's name, or "".
    """

    detector: str
    faces: tuple[Face | None, ...]
    vectors: np.ndarray | None = None
    embedder: str = ""

    @property
    def seen(self) -> np.ndarray:
        """(f) bool: frames with a face."""
        return np.array([face is not None for face in self.faces], bool)


def find_clip_faces(
    frames: np.ndarray | Sequence[np.ndarray],
    detector: FaceDetector,
    *,
    embedder: FaceEmbedder | None = None,
    pick: str = "score",
    subject: str = "clip",
) -> ClipFaces:
    """The face of each frame, and whose it is.

    A face whose points cannot be aligned or whose identity is no number counts as not found.

    Args:
        frames: (f h w 3) uint8 RGB, or a list of frames.
        detector: finds faces.
        embedder: tells identities; None where only Face-Det is wanted.
        pick: which face of several, "score" or "largest"; see `pick_face`.
        subject: what the clip is, for messages.

    Raises:
        InputError: the clip is empty or a frame is no picture.
        OptionError: `pick` is unknown.
    """
    found: list[Face | None] = []
    vectors: list[np.ndarray | None] = []
    for frame in as_clip(frames, subject=subject):
        face = pick_face(detector.find(frame), pick)
        vector = None
        if face is not None and embedder is not None:
            try:
                vector = embedder.embed(frame, face)
            except InputError:
                face = None
            if vector is not None and not (np.isfinite(vector).all() and np.any(vector)):
                face, vector = None, None
        found.append(face)
        vectors.append(vector)
    table = None
    if embedder is not None:
        width = next((len(vector) for vector in vectors if vector is not None), 0)
        table = np.stack([np.zeros(width) if v is None else np.asarray(v, np.float64) for v in vectors])
    return ClipFaces(detector.name, tuple(found), table, embedder.name if embedder else "")


def face_cos(generated: ClipFaces, truth: ClipFaces) -> FrameScores:
    """Cosine of identities, -1 to 1, of each frame in which both clips show a face; None elsewhere.

    `FrameScores` gives the mean over both-seen frames, the coverage, and the mean with missing frames as 0.

    Raises:
        InputError: the clips are not equally long, or were not looked at with one detector and embedder.
    """
    if generated.vectors is None or truth.vectors is None or not generated.embedder:
        raise InputError(
            "face_cos", "a clip's identities were not measured", "Give find_clip_faces an embedder"
        )
    if (generated.embedder, generated.detector) != (truth.embedder, truth.detector):
        raise InputError(
            "face_cos",
            f"{generated.embedder} on {generated.detector} against {truth.embedder} on {truth.detector}",
            "Measure both clips with the same networks",
        )
    if len(generated.faces) != len(truth.faces):
        raise InputError(
            "face_cos",
            f"{len(generated.faces)} generated frames and {len(truth.faces)} true ones",
            "Cut both to the same frames",
        )
    both = generated.seen & truth.seen
    values = [
        float(np.clip(a @ b, -1, 1)) if there else None
        for a, b, there in zip(generated.vectors, truth.vectors, both, strict=True)
    ]
    return FrameScores.of(
        f"face_cos[{generated.embedder}]",
        values,
        detector=generated.detector,
        generated_seen=int(generated.seen.sum()),
        truth_seen=int(truth.seen.sum()),
    )


def face_det(generated: ClipFaces) -> FrameScores:
    """1 for each frame with a face, 0 for each without; the mean is Face-Det (in the papers times 100)."""
    name = f"face_det[{generated.detector}]"
    return FrameScores.of(name, (float(seen) for seen in generated.seen), detector=generated.detector)
