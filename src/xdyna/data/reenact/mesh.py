"""The triangles that carry a face's picture: the 68 points, the forehead, the skull and a ring far outside."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from xdyna.data.reenact.geometry import AVERAGE_FACE, MIRRORED, HeadPose

_HEAD = np.array(
    [
        (-1.42, -0.55, 0.75), (-1.05, -1.1, 0.15), (-0.5, -1.4, -0.1), (0.0, -1.5, -0.15),
        (0.5, -1.4, -0.1), (1.05, -1.1, 0.15), (1.42, -0.55, 0.75),  # forehead
        (-1.75, 1.0, 1.5), (-1.8, 0.1, 1.6), (-1.75, -0.9, 1.4), (-1.3, -1.8, 1.1), (-0.6, -2.3, 0.9),
        (0.0, -2.4, 0.85), (0.6, -2.3, 0.9), (1.3, -1.8, 1.1), (1.75, -0.9, 1.4), (1.8, 0.1, 1.6),
        (1.75, 1.0, 1.5), (1.3, 2.0, 1.2), (0.75, 2.75, 0.9), (0.0, 2.9, 0.6), (-0.75, 2.75, 0.9),
        (-1.3, 2.0, 1.2),  # skull, hair and neck
    ]
)  # fmt: skip
"""Points of an average head beyond the 68; in its coordinates."""

_RING = np.stack([3.4 * np.sin(np.arange(16) * np.pi / 8), 0.3 - 3.6 * np.cos(np.arange(16) * np.pi / 8)], -1)
"""Points round the head that follow it without turning: what lies farther is background."""

_FAR = 4.0
_HIDDEN_AREA = 0.05
"""Triangles of fewer square pixels show nothing."""

_MUCH_SMALLER = 1.9
"""A side of a face seen so many times smaller than the other is taken from the other."""


@cache
def triangles() -> np.ndarray:
    """(t 3) indices into the points of `mesh_points`, found once: Delaunay over the average head from the front."""
    flat = np.concatenate([AVERAGE_FACE[:, :2], _HEAD[:, :2], _RING]) * 1000 + 10_000
    space = cv2.Subdiv2D((0, 0, 20_000, 20_000))
    for x, y in flat:
        space.insert((float(x), float(y)))
    corners = space.getTriangleList().reshape(-1, 3, 2)
    corners = corners[((corners > 0) & (corners < 20_000)).all((1, 2))]
    distance = np.abs(corners[:, :, None] - flat[None, None]).sum(-1)
    found = distance.argmin(-1)[distance.min(-1).max(-1) < 1]
    return np.array(found[signed_areas(flat[found]) != 0])


def signed_areas(corners: np.ndarray) -> np.ndarray:
    """(t 3 2) -> (t): twice the area, positive clockwise in the picture."""
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def head_points(face: np.ndarray) -> np.ndarray:
    """(n 3): the points beyond the 68 for a face (68 3) of its own width and height."""
    wide = float(face[16, 0] - face[0, 0]) / (AVERAGE_FACE[16, 0] - AVERAGE_FACE[0, 0])
    tall = float(face[8, 1]) / AVERAGE_FACE[8, 1]
    return _HEAD * (np.clip(wide, 0.6, 1.6), np.clip(tall, 0.6, 1.6), 1)


def mesh_points(landmarks: np.ndarray, head: np.ndarray, pose: HeadPose) -> np.ndarray:
    """(m 2): places in a picture of all points: the landmarks as they are, the rest of the head by the pose.

    Args:
        landmarks: (68 2) pixels.
        head: of `head_points`.
        pose: of one frame.
    """
    ring = _RING * pose.scale[0] + pose.shift[0]
    return np.concatenate([landmarks, pose.project(head)[0], ring])


def visible(points: np.ndarray, face: np.ndarray, head: np.ndarray, pose: HeadPose) -> np.ndarray:
    """Which triangles show, from the farthest to the nearest.

    Args:
        points: (m 2) of `mesh_points`.
        face: (68 3) the face with the pose taken out.
        head, pose: as for `mesh_points`.

    Returns:
        (k) indices into `triangles()`. A triangle seen from behind (the far cheek of a turned head) is left out.
    """
    depth = np.concatenate([pose.depth(np.concatenate([face, head]))[0], np.full(len(_RING), _FAR)])
    corners = triangles()
    order = np.argsort(-depth[corners].mean(1), kind="stable")
    front = np.sign(signed_areas(_frontal()[corners]))
    return order[(signed_areas(points[corners]) * front)[order] > _HIDDEN_AREA]


@cache
def _frontal() -> np.ndarray:
    return np.concatenate([AVERAGE_FACE[:, :2], _HEAD[:, :2], _RING])


def hidden_side(landmarks: np.ndarray) -> int:
    """Which side of a face (68 2) its picture hides or squeezes: -1 the picture's left, 1 its right, 0 none."""
    # Seen from the front one goes round these counter-clockwise and clockwise.
    left = max(-_polygon_area(landmarks[[0, 4, 8, 30, 27]]), 0.0)
    right = max(_polygon_area(landmarks[[16, 12, 8, 30, 27]]), 0.0)
    if min(left, right) * _MUCH_SMALLER > max(left, right):
        return 0
    return -1 if left < right else 1


def seen_corners(mesh: np.ndarray, hidden: int) -> np.ndarray:
    """Where a source's picture shows the triangles: on themselves, or on the other side of the face.

    Faces are symmetric, so the triangles of a hidden side take the picture of their mirrored ones.

    Args:
        mesh: (m 2) of `mesh_points`, in the source.
        hidden: of `hidden_side`.

    Returns:
        (t 3 2) places in the source of the corners of `triangles()`.
    """
    corners = triangles()
    beside = _frontal()[:, 0] * hidden > -0.02
    beside[-len(_RING) :] = False
    other = hidden != 0 and beside[corners].all(1)
    return np.where(np.reshape(other, (-1, 1, 1)), mesh[_mirrored_points()[corners]], mesh[corners])


def _polygon_area(points: np.ndarray) -> float:
    x, y = points[:, 0], points[:, 1]
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2


@cache
def _mirrored_points() -> np.ndarray:
    """For each point of the mesh the one on the other side; points of the ring are their own."""
    other = np.abs(_HEAD[:, None] - _HEAD[None] * (-1, 1, 1)).sum(-1).argmin(1)
    ring = np.arange(len(_RING))
    return np.concatenate([MIRRORED, 68 + other, 68 + len(_HEAD) + ring])


def affine_maps(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(t 2 3): the maps that take the triangles `start` (t 3 2) to `end` (t 3 2); NaN where `start` is flat."""
    corners = np.concatenate([start, np.ones((*start.shape[:2], 1))], -1)
    flat = np.abs(np.linalg.det(corners)) < 1e-6
    corners[flat] = np.eye(3)
    maps = (np.linalg.inv(corners) @ end).transpose(0, 2, 1)
    maps[flat] = np.nan
    return maps
