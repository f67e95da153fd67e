"""One person's keypoints over a clip: the value that detection, alignment and drawing share.

Layouts (OpenPose / COCO, as the official pose videos use them):

* body, 18 points: nose, neck, then shoulder, elbow, wrist (right, left), hip, knee, ankle (right, left),
  eyes (right, left), ears (right, left). Right and left are the person's own.
* hands, 21 points each: wrist, then four points a finger from thumb to little finger.
* face, 68 points: the iBUG order (jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, mouth 48-67), in which
  the picture's left comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from xdyna.errors import InputError

BODY_NAMES = (
    "nose", "neck",
    "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
    "right_eye", "left_eye", "right_ear", "left_ear",
)  # fmt: skip
"""Names of the 18 body points, in order."""

PARTS = {"body": 18, "left_hand": 21, "right_hand": 21, "face": 68}
"""Names of the four groups of points and how many points each has."""


@dataclass(frozen=True)
class Keypoints:
    """Keypoints of one person over `f` frames.

    Attributes:
        body: (f 18 3) float32; x and y in pixels, then a score in [0, 1]; 0 means "not there".
        left_hand: (f 21 3) float32, the person's own left hand.
        right_hand: (f 21 3) float32.
        face: (f 68 3) float32.
        size: (height, width) in pixels of the frames the coordinates belong to. Points may lie outside.
    """

    body: np.ndarray
    left_hand: np.ndarray
    right_hand: np.ndarray
    face: np.ndarray
    size: tuple[int, int]

    def __post_init__(self) -> None:
        frames = len(self.body)
        for name, count in PARTS.items():
            shape = getattr(self, name).shape
            if shape != (frames, count, 3):
                raise ValueError(f"Keypoints.{name} must be ({frames}, {count}, 3), got {shape}")

    def __len__(self) -> int:
        return len(self.body)

    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> Keypoints:
        """A clip of the chosen frames (a slice or a sequence of indices, never a single int)."""
        return replace(self, **{name: getattr(self, name)[index] for name in PARTS})

    def moved(self, matrix: np.ndarray, size: tuple[int, int]) -> Keypoints:
        """The same points after an affine map: `matrix` is (2 3), or (f 2 3) for one map a frame."""
        matrices = np.broadcast_to(np.asarray(matrix, np.float32), (len(self), 2, 3))

        def move(points: np.ndarray) -> np.ndarray:
            xy = np.einsum("fij,fnj->fni", matrices[:, :, :2], points[..., :2]) + matrices[:, None, :, 2]
            return np.concatenate([xy, points[..., 2:]], axis=-1).astype(np.float32)

        return Keypoints(**{name: move(getattr(self, name)) for name in PARTS}, size=size)

    @staticmethod
    def empty(frames: int, size: tuple[int, int]) -> Keypoints:
        """A clip of `frames` frames in which nothing was found."""
        return Keypoints(**{n: np.zeros((frames, c, 3), np.float32) for n, c in PARTS.items()}, size=size)

    @staticmethod
    def concatenate(clips: Sequence[Keypoints]) -> Keypoints:
        """Several clips of one size, one after the other."""
        return Keypoints(
            **{name: np.concatenate([getattr(clip, name) for clip in clips]) for name in PARTS},
            size=clips[0].size,
        )

    def save(self, path: str | Path) -> None:
        """Write a compressed .npz that `load` reads."""
        with open(path, "wb") as file:
            np.savez_compressed(
                file, size=np.array(self.size), **{name: getattr(self, name) for name in PARTS}
            )

    @staticmethod
    def load(path: str | Path) -> Keypoints:
        """Read a .npz written by `save`.

        Raises:
            InputError: the file is missing, is no .npz, or lacks one of the arrays.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                parts = {name: np.asarray(data[name], np.float32) for name in PARTS}
                height, width = (int(n) for n in data["size"])
            return Keypoints(**parts, size=(height, width))
        except FileNotFoundError:
            raise InputError(path, "no such file", "Check the path") from None
        except Exception as error:
            raise InputError(
                path,
                f"is not a keypoints file of ours ({error})",
                "Give a keypoints.npz written by `xdyna conditions`",
            ) from error
