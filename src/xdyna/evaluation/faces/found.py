"""A face found in a picture, and what finds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from xdyna.errors import OptionError

PICKS = ("score", "largest")


@dataclass(frozen=True)
class Face:
    """One face.

    Attributes:
        box: (4) float64 left, top, right, bottom in pixels.
        points: (5 2) float64 x, y of the picture's left and right eye, nose, left and right mouth corner.
        score: 0 to 1.
    """

    box: np.ndarray
    points: np.ndarray
    score: float

    @property
    def area(self) -> float:
        """Square pixels of the box."""
        return float(max(self.box[2] - self.box[0], 0) * max(self.box[3] - self.box[1], 0))


class FaceDetector(Protocol):
    """Finds faces.

    Attributes:
        name: goes into metrics' names: "mtcnn", "yunet".
    """

    name: str

    def find(self, picture: np.ndarray) -> list[Face]:
        """All faces of a (h w 3) uint8 RGB picture, best score first; [] where there is none."""
        ...


def pick_face(faces: Sequence[Face], by: str = "score") -> Face | None:
    """The face that a metric looks at: the one of the best score (as AdaFace's own tools do), or the largest.

    Raises:
        OptionError: `by` is neither "score" nor "largest".
    """
    if by not in PICKS:
        raise OptionError("pick", f"{by!r} is unknown", f"Known are {', '.join(PICKS)}")
    key = (lambda face: face.score) if by == "score" else (lambda face: face.area)
    return max(faces, key=key, default=None)
