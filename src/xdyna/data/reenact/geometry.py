"""Faces in space: an average face, the pose of 68 landmarks, and the landmarks with the pose taken out.

Coordinates of the average face: x to the picture's right, y down, z away from the viewer, (0, 0, 0) between the
outer corners of the eyes, which lie at x = -1 and 1. A pose is a weak perspective: turn, scale, drop z, shift.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

AVERAGE_FACE = np.array(
    [
        (-1.53, 0.12, 1.03), (-1.52, 0.42, 1.08), (-1.51, 0.73, 1.03), (-1.46, 1.05, 0.93),  # jaw
        (-1.36, 1.39, 0.75), (-1.22, 1.65, 0.51), (-0.86, 2.01, 0.04), (-0.5, 2.21, -0.3),
        (0, 2.3, -0.46), (0.5, 2.21, -0.3), (0.86, 2.01, 0.04), (1.22, 1.65, 0.51),
        (1.36, 1.39, 0.75), (1.46, 1.05, 0.93), (1.51, 0.73, 1.03), (1.52, 0.42, 1.08),
        (1.53, 0.12, 1.03),
        (-1.23, -0.32, 0.07), (-1.09, -0.44, -0.08), (-0.89, -0.51, -0.22), (-0.63, -0.51, -0.35),  # brows
        (-0.33, -0.48, -0.42),
        (0.33, -0.48, -0.42), (0.63, -0.51, -0.35), (0.89, -0.51, -0.22), (1.09, -0.44, -0.08), (1.23, -0.32, 0.07),
        (0, -0.08, -0.46), (0, 0.22, -0.71), (0, 0.48, -0.99), (0, 0.64, -1.06),  # nose
        (-0.38, 0.88, -0.55), (-0.17, 0.91, -0.69), (0, 0.92, -0.73), (0.17, 0.91, -0.69),
        (0.38, 0.88, -0.55),
        (-1, 0, 0), (-0.85, -0.08, -0.13), (-0.63, -0.09, -0.17), (-0.41, 0.03, -0.12),  # eyes
        (-0.59, 0.05, -0.17), (-0.81, 0.06, -0.13), (0.41, 0.03, -0.12), (0.63, -0.09, -0.17),
        (0.85, -0.08, -0.13), (1, 0, 0), (0.81, 0.06, -0.13), (0.59, 0.05, -0.17),
        (-0.58, 1.38, -0.35), (-0.45, 1.28, -0.54), (-0.17, 1.17, -0.71), (0, 1.19, -0.72),  # mouth
        (0.17, 1.17, -0.71), (0.45, 1.28, -0.54), (0.58, 1.38, -0.35), (0.44, 1.48, -0.53),
        (0.17, 1.56, -0.66), (0, 1.57, -0.67), (-0.17, 1.56, -0.66), (-0.44, 1.48, -0.53),
        (-0.52, 1.38, -0.39), (-0.27, 1.31, -0.56), (0, 1.31, -0.63), (0.27, 1.31, -0.56),
        (0.52, 1.38, -0.39), (0.27, 1.41, -0.56), (0, 1.42, -0.62), (-0.27, 1.41, -0.56),
    ]
)  # fmt: skip
"""(68 3): an average face at rest with open eyes, made symmetric. Our own measurement: the mean of what MediaPipe's
face mesh gives for two dozen pictures of four people, rounded to 0.01."""

MIRRORED = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31]
    + [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55]
    + [64, 63, 62, 61, 60, 67, 66, 65]
)
"""For each of the 68 points the one on the other side of the face."""

LIDS = np.array([(37, 41), (38, 40), (43, 47), (44, 46)])
"""Upper and lower lid points, one above the other; the first two pairs are of the eye on the picture's left."""

INNER_LIPS = np.array([(61, 67), (62, 66), (63, 65)])
"""Upper and lower points of the inner lips, one above the other."""

# How much a point tells about the head's pose: bones much, skin that moves with the expression little.
_RIGID = np.full(68, 0.05)
_RIGID[:17], _RIGID[17:27], _RIGID[27:36], _RIGID[[36, 39, 42, 45]] = 0.12, 0.2, 1.0, 1.0
_RIGID[6:11] = 0.05


@dataclass(frozen=True)
class HeadPose:
    """Weak perspective of f heads.

    Attributes:
        rotation: (f 3 3), rows: the picture's x, y and depth in the face's coordinates.
        scale: (f) pixels per unit of the average face.
        shift: (f 2) where the face's origin lies, pixels.
    """

    rotation: np.ndarray
    scale: np.ndarray
    shift: np.ndarray

    def __getitem__(self, index: int | slice | np.ndarray) -> HeadPose:
        """The chosen frames; a single int keeps an axis of length 1."""
        index = slice(index, index + 1) if isinstance(index, int) else index
        return HeadPose(self.rotation[index], self.scale[index], self.shift[index])

    @property
    def yaw(self) -> np.ndarray:
        """(f) radians; positive when the nose points to the picture's right."""
        return np.arctan2(-self.rotation[:, 0, 2], self.rotation[:, 2, 2])

    def project(self, points: np.ndarray) -> np.ndarray:
        """Places in the picture (f n 2), pixels, of points (n 3) or (f n 3) of the face."""
        turned = np.broadcast_to(points, (len(self.scale), *points.shape[-2:])) @ self.rotation.transpose(
            0, 2, 1
        )
        return turned[..., :2] * self.scale[:, None, None] + self.shift[:, None]

    def depth(self, points: np.ndarray) -> np.ndarray:
        """(f n), larger is farther; arguments as for `project`."""
        return (
            np.broadcast_to(points, (len(self.scale), *points.shape[-2:])) @ self.rotation[:, 2, :, None]
        )[..., 0]

    def moved(self, *, size: float = 1.0, shift: np.ndarray | None = None) -> HeadPose:
        """The same heads `size` times as large, shifted by (2) units of the face."""
        offset = 0 if shift is None else self.scale[:, None] * shift
        return HeadPose(self.rotation, self.scale * size, self.shift + offset)


@dataclass(frozen=True)
class FaceReading:
    """Landmarks taken apart.

    Attributes:
        pose: of f frames.
        shape: (68 3) the person's face: the average face with this person's proportions and usual expression.
        points: (f 68 3) the face of each frame with the pose taken out; `pose.project(points)` gives the landmarks.
    """

    pose: HeadPose
    shape: np.ndarray
    points: np.ndarray


def read_faces(landmarks: np.ndarray, *, rounds: int = 3) -> FaceReading:
    """Take the landmarks of one person apart into pose and face.

    What the pose of the average face does not explain is laid into the plane of the picture and turned back; its
    mean over the frames, made symmetric, corrects the shape, and the poses are found again.

    Args:
        landmarks: (f 68 2 or 3) pixels, all 68 points there.
        rounds: how often the shape is corrected.
    """
    xy = np.asarray(landmarks, np.float64)[..., :2]
    shape = AVERAGE_FACE.copy()
    for _ in range(rounds):
        pose = _pose(xy, shape)
        points = _unposed(xy, pose, shape)
        mean = points.mean(0)
        other = mean[MIRRORED] * (-1, 1, 1)
        # What differs between the sides is expression or error of the pose; bones are symmetric.
        shape = (mean + other) / 2
        shape -= (shape[36] + shape[45]) / 2
        shape /= max(float(shape[45, 0] - shape[36, 0]) / 2, 0.2)
    pose = _pose(xy, shape)
    return FaceReading(pose, shape, _unposed(xy, pose, shape))


def _pose(xy: np.ndarray, shape: np.ndarray, *, steps: int = 12) -> HeadPose:
    """Weak perspective of (f 68 2): depths are guessed, a similarity in space is fitted, and again."""
    weight = _RIGID / _RIGID.sum()
    centre = weight @ shape
    model = shape - centre
    middle = weight @ xy
    flat = xy - middle[:, None]
    spread = (weight[:, None] * model[:, :2] ** 2).sum()
    scale = np.sqrt((weight[:, None] * flat**2).sum((1, 2)) / spread).clip(1e-6)
    # A start from the affine camera, which knows the turn but not that it is one.
    ridge = 1e-4 * np.eye(3)
    camera = np.einsum("n,fni,nj->fij", weight, flat, model) @ np.linalg.inv(
        (weight * model.T) @ model + ridge
    )
    rows = camera / scale[:, None, None]
    depth = np.einsum("fj,nj->fn", np.cross(rows[:, 0], rows[:, 1]), model) * scale[:, None]
    rotation = np.tile(np.eye(3), (len(xy), 1, 1))
    norm = (weight[:, None] * model**2).sum()
    for _ in range(steps):
        space = np.concatenate([flat, depth[..., None]], -1)
        left, values, right = np.linalg.svd(np.einsum("n,fni,nj->fij", weight, space, model))
        sign = np.sign(np.linalg.det(left @ right))
        signs = np.stack([np.ones_like(sign), np.ones_like(sign), sign], -1)
        rotation = (left * signs[:, None]) @ right
        scale = ((values * signs).sum(1) / norm).clip(1e-6)
        depth = scale[:, None] * (model @ rotation.transpose(0, 2, 1))[..., 2]
    shift = middle - scale[:, None] * (rotation @ centre)[:, :2]
    return HeadPose(rotation, scale, shift)


def _unposed(xy: np.ndarray, pose: HeadPose, shape: np.ndarray) -> np.ndarray:
    rest = (xy - pose.project(shape)) / pose.scale[:, None, None]
    return shape + rest @ pose.rotation[:, :2]
