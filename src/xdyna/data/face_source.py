"""The socket for another person's face: what keeps identity out of the face condition (stage 2 of the paper)."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class FaceSource(Protocol):
    """Gives, for the frames of a clip, another person's face in the same place, pose and expression.

    It is called once a sample, so that one clip shows one other person.
    """

    def __call__(
        self, frames: np.ndarray, landmarks: np.ndarray, *, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pictures to cut the face condition from.

        Args:
            frames: (f h w 3) uint8 of one clip; the first may be from another moment than the rest.
            landmarks: (f 68 3) float32, the face in pixels of the frames, score 0 for a point that is missing.
            generator: the only source of chance.

        Returns:
            Pictures like `frames`, and landmarks like `landmarks` of the face in them; scores 0 where there is
            none.
        """
        ...
