"""YuNet finds faces and SFace tells them apart: two small networks of OpenCV's zoo that travel in a package.

They give honestly named variants that work without any download from elsewhere: `face_det[yunet]` and
`face_cos[sface]`. Their numbers are not those of AdaFace and must not stand in a column with them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from xdyna.errors import OptionError, WeightsError
from xdyna.evaluation.faces.found import Face
from xdyna.evaluation.pictures import as_picture

_OVERLAP, _MOST = 0.3, 5000

_LEAST_SIDE = 64
"""Of pictures up to 32 pixels high or wide OpenCV makes faces out of memory it has not written (seen in 4.14)."""


class YunetDetector:
    """Finds faces with YuNet.

    Args:
        path: `face_detection_yunet_2023mar_int8bq.onnx` (or `face_detection_yunet_2023mar.onnx`).
        threshold: least score. 0.7: drawn and small faces score about 0.85, chance finds below 0.7.

    Raises:
        WeightsError: there is no such file, or it is no such network.
        OptionError: the threshold is not between 0 and 1.
    """

    name = "yunet"

    def __init__(self, path: str | Path, *, threshold: float = 0.7) -> None:
        if not 0 < threshold < 1:
            raise OptionError("YuNet's threshold", f"is {threshold}, not between 0 and 1")
        self.threshold = threshold
        self._network = _opened(
            path, lambda file: cv2.FaceDetectorYN.create(file, "", (64, 64), threshold, _OVERLAP, _MOST)
        )

    def find(self, picture: np.ndarray) -> list[Face]:
        """All faces of a (h w 3) uint8 RGB picture, best score first."""
        picture = as_picture(picture)
        height, width = picture.shape[:2]
        # black at the right and below, as OpenCV itself fills up to a multiple of 32
        below, right = max(_LEAST_SIDE - height, 0), max(_LEAST_SIDE - width, 0)
        blue_first = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        padded = cv2.copyMakeBorder(blue_first, 0, below, 0, right, cv2.BORDER_CONSTANT, value=(0, 0, 0))
        self._network.setInputSize((padded.shape[1], padded.shape[0]))
        _, rows = self._network.detect(padded)
        faces = []
        for row in np.zeros((0, 15)) if rows is None else rows.astype(np.float64):
            if not np.isfinite(row).all():
                continue
            box = np.concatenate([row[:2], row[:2] + row[2:4]])
            across, down = (box[:2] + box[2:]) / 2
            if (row[2:4] > 0).all() and 0 <= across < width and 0 <= down < height:
                faces.append(Face(box, row[4:14].reshape(5, 2), float(row[14])))
        return sorted(faces, key=lambda face: -face.score)


class SfaceEmbedder:
    """Identity by SFace: 128 numbers of a face, aligned as OpenCV's own FaceRecognizerSF does.

    Args:
        path: `face_recognition_sface_2021dec_int8bq.onnx` (or `face_recognition_sface_2021dec.onnx`).

    Raises:
        WeightsError: there is no such file, or it is no such network.
    """

    name = "sface"

    def __init__(self, path: str | Path) -> None:
        # FaceRecognizerSF aligns in every OpenCV, but from 5.0 on cannot run this file; the plain reader can.
        self._aligner = _opened(path, lambda file: cv2.FaceRecognizerSF.create(file, ""))
        self._network = _opened(path, cv2.dnn.readNetFromONNX)

    def embed(self, picture: np.ndarray, face: Face) -> np.ndarray:
        """(128) float64 unit vector of a face in a (h w 3) uint8 RGB picture."""
        left, top, right, bottom = face.box
        row = np.array([left, top, right - left, bottom - top, *face.points.ravel(), face.score], np.float32)
        crop = self._aligner.alignCrop(cv2.cvtColor(as_picture(picture), cv2.COLOR_RGB2BGR), row[None])
        # one at a time: of a batch this file makes NaN
        self._network.setInput(cv2.dnn.blobFromImage(crop, 1, (112, 112), (0, 0, 0), True, False), "data")
        vector = self._network.forward("fc1")[0].astype(np.float64)
        return vector / max(float(np.linalg.norm(vector)), 1e-12)


def _opened(path: str | Path, read: Any) -> Any:
    path = Path(path)
    if not path.is_file():
        raise WeightsError(path, "there is no such file")
    try:
        return read(str(path))
    except cv2.error as error:
        raise WeightsError(path, "OpenCV cannot read it as this network", "Download it again") from error
