"""Face-Exp: how far the expression of a generated face is from the driver's, by MediaPipe's 52 blendshapes.

X-Dyna's Table 5 gives the "absolute error of facial expressions" and not the tracker; the blendshapes' scores, 0 to
1 each, are our choice, and the metric's name says so: `face_exp_mp51`, the mean absolute difference over the 51
scores beside `_neutral`. Source of the model: Google's face_landmarker.task.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from xdyna.conditions.mediapipe import no_protobuf_warnings, quiet
from xdyna.errors import InputError, MissingPackage, WeightsError
from xdyna.evaluation.faces.found import Face, FaceDetector, pick_face
from xdyna.evaluation.frame_scores import FrameScores
from xdyna.evaluation.pictures import as_clip, as_picture


def _both(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}{side}" for name in names for side in ("Left", "Right"))


BLENDSHAPES = (
    *_both("browDown"), "browInnerUp", *_both("browOuterUp"),
    "cheekPuff", *_both("cheekSquint"),
    *_both("eyeBlink", "eyeLookDown", "eyeLookIn", "eyeLookOut", "eyeLookUp", "eyeSquint", "eyeWide"),
    "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", *_both("mouthDimple", "mouthFrown"), "mouthFunnel", "mouthLeft",
    *_both("mouthLowerDown", "mouthPress"), "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper",
    "mouthShrugLower", "mouthShrugUpper", *_both("mouthSmile", "mouthStretch", "mouthUpperUp"),
    *_both("noseSneer"),
)  # fmt: skip
"""The 51 scores in the model's order, without `_neutral`."""

CROP, REACH = 512, 2.0
"""The landmarker sees a square of 512 pixels, twice as wide as the face's box: in a whole frame it finds little."""


class MediapipeFaces:
    """Finds faces with MediaPipe's full-range detector, whose weights lie in its wheel. It gives no mouth corners,
    so its faces serve to see where one is (`face_det[mediapipe]`, Face-Exp), and their points are NaN.

    Args:
        threshold: least score.
    """

    name = "mediapipe"

    def __init__(self, *, threshold: float = 0.5) -> None:
        self.threshold = threshold
        self._graph: Any = None

    def find(self, picture: np.ndarray) -> list[Face]:
        """All faces of a (h w 3) uint8 RGB picture, best score first."""
        picture = as_picture(picture)
        height, width = picture.shape[:2]
        if self._graph is None:
            with quiet():
                try:
                    from mediapipe.python.solutions import face_detection
                except ImportError:
                    raise MissingPackage("mediapipe", "to find faces", "mediapipe==0.10.14") from None
                self._graph = face_detection.FaceDetection(
                    min_detection_confidence=self.threshold, model_selection=1
                )
                found = self._graph.process(picture).detections
        else:
            with no_protobuf_warnings():
                found = self._graph.process(picture).detections
        faces = []
        for one in found or ():
            box = one.location_data.relative_bounding_box
            edges = (box.xmin, box.ymin, box.xmin + box.width, box.ymin + box.height)
            scaled = np.array(edges, np.float64) * (width, height, width, height)
            faces.append(Face(scaled, np.full((5, 2), np.nan), float(one.score[0])))
        return sorted(faces, key=lambda face: -face.score)

    def close(self) -> None:
        """Let MediaPipe's graph go."""
        if self._graph is not None:
            self._graph.close()
            self._graph = None


class ExpressionReader:
    """Reads the 51 blendshape scores of the face in a picture.

    Args:
        path: face_landmarker.task.
        detector: says where the face is; None for `MediapipeFaces`.
        pick: which face of several, see `pick_face`.

    Raises:
        WeightsError: there is no such file, or it holds no blendshapes.
        MissingPackage: mediapipe is not installed.
    """

    def __init__(
        self, path: str | Path, *, detector: FaceDetector | None = None, pick: str = "score"
    ) -> None:
        self.detector: FaceDetector = detector or MediapipeFaces()
        self.pick = pick
        self._landmarker = _landmarker(Path(path))

    def read(self, picture: np.ndarray) -> np.ndarray | None:
        """(51) float64 in 0 to 1, in the order of `BLENDSHAPES`; None where no face is found."""
        picture = as_picture(picture)
        face = pick_face(self.detector.find(picture), self.pick)
        return None if face is None else self.read_face(picture, face)

    def read_face(self, picture: np.ndarray, face: Face) -> np.ndarray | None:
        """As `read`, of a face already found in the (h w 3) uint8 picture."""
        import mediapipe

        crop = face_square(picture, face)
        if crop is None:
            return None
        with no_protobuf_warnings():
            image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=crop)
            found = self._landmarker.detect(image).face_blendshapes
        if not found:
            return None
        scores = {one.category_name: float(one.score) for one in found[0]}
        values = np.array([scores.get(name, np.nan) for name in BLENDSHAPES])
        return values if np.isfinite(values).all() else None

    def close(self) -> None:
        """Let MediaPipe's graphs go."""
        self._landmarker.close()
        if isinstance(self.detector, MediapipeFaces):
            self.detector.close()


def face_square(picture: np.ndarray, face: Face) -> np.ndarray | None:
    """(512 512 3) uint8: the square round a face's box, twice as wide; edges repeated. None for an empty box."""
    centre = (face.box[:2] + face.box[2:]) / 2
    side = REACH * float((face.box[2:] - face.box[:2]).max())
    if not np.isfinite(side) or side < 4:
        return None
    scale = CROP / side
    shift = CROP / 2 - centre * scale
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    return cv2.warpAffine(
        picture, matrix, (CROP, CROP), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def read_expressions(
    frames: np.ndarray | Sequence[np.ndarray],
    reader: ExpressionReader,
    *,
    faces: Sequence[Face | None] | None = None,
    subject: str = "clip",
) -> list[np.ndarray | None]:
    """The 51 scores of each frame, see `ExpressionReader.read`.

    Args:
        frames: (f h w 3) uint8 RGB, or a list of frames.
        reader: reads them.
        faces: where they are, if that is known (`ClipFaces.faces`); None to look for them.
        subject: what the clip is, for messages.

    Raises:
        InputError: the clip is empty, a frame is no picture, or there are not as many faces as frames.
    """
    pictures = as_clip(frames, subject=subject)
    if faces is None:
        return [reader.read(picture) for picture in pictures]
    if len(faces) != len(pictures):
        raise InputError(
            subject, f"{len(faces)} faces for {len(pictures)} frames", "Give one, or None, for each"
        )
    found = zip(pictures, faces, strict=True)
    return [None if face is None else reader.read_face(picture, face) for picture, face in found]


def face_exp(
    generated: Sequence[np.ndarray | None], driving: Sequence[np.ndarray | None], *, detector: str = ""
) -> FrameScores:
    """Mean absolute difference of the 51 scores, 0 to 1, of each frame in which both show a face.

    Args:
        generated: what `read_expressions` gave.
        driving: the same of the driving video, or of the true one where a clip drives itself.
        detector: the reader's detector's name, for the protocol.

    Raises:
        InputError: the clips are not equally long.
    """
    if len(generated) != len(driving):
        raise InputError(
            "face_exp_mp51",
            f"{len(generated)} generated frames and {len(driving)} driving ones",
            "Cut both to the same frames",
        )
    values = [
        None if a is None or b is None else float(np.abs(a - b).mean())
        for a, b in zip(generated, driving, strict=True)
    ]
    return FrameScores.of("face_exp_mp51", values, detector=detector, crop=CROP)


def _landmarker(path: Path) -> Any:
    if not path.is_file():
        raise WeightsError(path, "there is no such file")
    try:
        with quiet():
            from mediapipe.tasks.python import BaseOptions, vision
    except ImportError:
        raise MissingPackage("mediapipe", "to read expressions", "mediapipe==0.10.14") from None
    try:
        with quiet():
            # the content instead of the path: MediaPipe takes no path beyond ASCII
            options = vision.FaceLandmarkerOptions(
                base_options=BaseOptions(model_asset_buffer=path.read_bytes()),
                output_face_blendshapes=True,
                num_faces=1,
            )
            return vision.FaceLandmarker.create_from_options(options)
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).partition("\n")[0][:160]
        raise WeightsError(
            path, f"is no face landmarker with blendshapes ({reason})", "Download it again"
        ) from error
