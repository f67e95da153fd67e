"""The face suite: who it is, whether there is a face at all, and what it expresses.

Identity and presence with every pair of networks that is here: AdaFace with MTCNN, as the paper says; SFace with YuNet
and MediaPipe as honestly named variants that need no file of others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from xdyna.evaluation.pairs import Pair
from xdyna.evaluation.readings import ClipReadings, Reading

if TYPE_CHECKING:
    from xdyna.evaluation.faces.expression import ExpressionReader
    from xdyna.evaluation.faces.found import FaceDetector
    from xdyna.evaluation.faces.measure import FaceEmbedder

IDENTITIES = (("adaface-ir101", "mtcnn"), ("adaface-ir50", "mtcnn"), ("sface", "yunet"))
"""Embedders, each with the detector that its authors use."""
DETECTORS = ("mtcnn", "yunet", "mediapipe")


def face_suite(pair: Pair) -> ClipReadings:
    """Face-Cos against the true clip, Face-Det, and Face-Exp against the driving clip, or the true one without any."""
    from xdyna.evaluation.faces.measure import face_cos, face_det, find_clip_faces

    found = ClipReadings()
    pred = pair.read_pred()
    truth = pair.read_truth() if pair.truth is not None else None
    seen: set[str] = set()
    for identity, detector in IDENTITIES:
        name, present = f"face_cos[{identity}]", f"face_det[{detector}]"

        def measure(identity: str = identity, detector: str = detector) -> dict[str, Reading]:
            finder, embedder = face_detector(detector), face_embedder(identity)
            one = find_clip_faces(pred, finder, embedder=embedder, subject=str(pair.pred.path))
            readings = {f"face_det[{detector}]": Reading.of_frames(face_det(one).values)}
            if truth is not None:
                other = find_clip_faces(truth, finder, embedder=embedder, subject=str(pair.name))
                readings[f"face_cos[{identity}]"] = Reading.of_frames(face_cos(one, other).values)
            return readings

        if truth is None:
            found.unavailable[name] = "unavailable: needs --truth"
        found.attempt([name], measure)
        seen.update({detector} if present in found.readings else ())
    for detector in DETECTORS:
        if detector not in seen:

            def presence(detector: str = detector) -> dict[str, Reading]:
                one = find_clip_faces(pred, face_detector(detector), subject=str(pair.pred.path))
                return {f"face_det[{detector}]": Reading.of_frames(face_det(one).values)}

            found.attempt([f"face_det[{detector}]"], presence)
    target = pair.read_driving() if pair.driving is not None else truth
    assert target is not None
    found.protocol["expressions"] = (
        "against the " + ("driving" if pair.driving is not None else "true") + " clip"
    )
    found.attempt(["face_exp_mp51"], lambda: _expressions(pred, target, pair))
    return found


def _expressions(pred: np.ndarray, target: np.ndarray, pair: Pair) -> dict[str, Reading]:
    from xdyna.evaluation.faces.expression import face_exp, read_expressions

    reader = expression_reader()
    one, other = (read_expressions(clip, reader, subject=pair.name) for clip in (pred, target))
    scores = face_exp(one, other, detector=reader.detector.name)
    return {"face_exp_mp51": Reading.of_frames(scores.values)}


@cache
def face_detector(name: str) -> FaceDetector:
    """One of `DETECTORS`, made once a process.

    Raises:
        MissingWeights: its files are not here.
    """
    from xdyna.evaluation.faces import load
    from xdyna.evaluation.faces.expression import MediapipeFaces

    makers: dict[str, Callable[[], FaceDetector]] = {
        "mtcnn": load.find_mtcnn,
        "yunet": load.find_yunet,
        "mediapipe": MediapipeFaces,
    }
    return makers[name]()


@cache
def face_embedder(name: str) -> FaceEmbedder:
    """An embedder of `IDENTITIES`, made once a process.

    Raises:
        MissingWeights: its file is not here.
    """
    from xdyna.evaluation.faces import load

    return load.find_sface() if name == "sface" else load.find_adaface(name.removeprefix("adaface-"))


@cache
def expression_reader() -> ExpressionReader:
    """Made once a process.

    Raises:
        MissingWeights: face_landmarker.task is not here.
    """
    from xdyna.evaluation.faces.load import find_expression_reader

    return find_expression_reader(detector=face_detector("mediapipe"))
