"""Synthetic people with known proportions, for the tests of this room."""

from __future__ import annotations

import numpy as np

from xdyna.conditions.keypoints import Keypoints

BODY = np.array(
    [
        (0, -40), (0, 0), (-33, 0), (-45, 55), (-50, 105), (33, 0), (45, 55), (50, 105),
        (-19, 100), (-22, 184), (-24, 265), (19, 100), (22, 184), (24, 265),
        (-7, -47), (7, -47), (-15, -44), (15, -44),
    ],
    np.float64,
)  # fmt: skip
"""A person of usual proportions standing upright: neck at (0, 0), torso 100."""


def person(
    frames: int = 1,
    *,
    torso: float = 1.0,
    legs: float = 1.0,
    arms: float = 1.0,
    shoulders: float = 1.0,
    head: float = 1.0,
    size: tuple[int, int] = (600, 400),
    at: tuple[float, float] = (200, 150),
    motion: float = 0.0,
    scale: float = 1.0,
) -> Keypoints:
    """A clip of a person; the factors multiply parts, `at` is the neck, `motion` swings limbs and sways the body."""
    points = np.repeat(BODY[None], frames, 0)
    time = np.arange(frames)[:, None]
    swing = motion * np.sin(2 * np.pi * time / 16)

    def turned(vector: np.ndarray, angle: np.ndarray) -> np.ndarray:
        c, s = np.cos(angle)[:, 0], np.sin(angle)[:, 0]
        return np.stack([c * vector[0] - s * vector[1], s * vector[0] + c * vector[1]], -1)

    def bone(parent: int, child: int, factor: float, angle: np.ndarray) -> None:
        points[:, child] = points[:, parent] + factor * turned(BODY[child] - BODY[parent], angle)

    still = np.zeros((frames, 1))
    for child, factor in ((0, head), (2, shoulders), (5, shoulders)):
        bone(1, child, factor, still)
    for chain, side in (((2, 3, 4), 1), ((5, 6, 7), -1)):
        bone(chain[0], chain[1], arms, side * swing)
        bone(chain[1], chain[2], arms, side * 2 * swing)
    middle = torso * np.array([0.0, 100.0])
    for hip, knee, ankle in ((8, 9, 10), (11, 12, 13)):
        points[:, hip] = middle + (BODY[hip] - [0, 100]) * shoulders
        bone(hip, knee, legs, 0.3 * swing)
        bone(knee, ankle, legs, still)
    for child in (14, 15, 16, 17):
        bone(0, child, head, still)
    body = np.ones((frames, 18, 3))
    place = np.array(at) + scale * 20 * np.concatenate([swing, still], 1)
    body[..., :2] = points * scale + place[:, None]
    angle = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    face = np.ones((frames, 68, 3))
    face[..., :2] = body[:, :1, :2] + scale * head * 16 * np.stack([np.cos(angle), np.sin(angle)], -1)
    hands = {}
    for name, wrist in (("left_hand", 7), ("right_hand", 4)):
        hand = np.ones((frames, 21, 3))
        grid = np.stack([np.arange(21) % 5, np.arange(21) // 5], -1) * 4.0
        hand[..., :2] = body[:, wrist : wrist + 1, :2] + scale * arms * grid
        hands[name] = hand.astype(np.float32)
    return Keypoints(body.astype(np.float32), **hands, face=face.astype(np.float32), size=size)


def without(keypoints: Keypoints, points: list[int]) -> Keypoints:
    """The same with some body points missing in every frame."""
    body = keypoints.body.copy()
    body[:, points] = 0
    return Keypoints(body, keypoints.left_hand, keypoints.right_hand, keypoints.face, keypoints.size)


def mirrored(keypoints: Keypoints) -> Keypoints:
    """The picture flipped: x turned round, the person's left and right swapped."""
    swap = [0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16]
    width = keypoints.size[1]

    def flip(points: np.ndarray) -> np.ndarray:
        out = points.copy()
        out[..., 0] = np.where(points[..., 2] > 0, width - points[..., 0], 0)
        return out

    return Keypoints(
        flip(keypoints.body)[:, swap],
        flip(keypoints.right_hand),
        flip(keypoints.left_hand),
        flip(keypoints.face),
        keypoints.size,
    )


def bone_length(keypoints: Keypoints, a: int, b: int) -> np.ndarray:
    """(f) length in pixels."""
    return np.hypot(*(keypoints.body[:, a, :2] - keypoints.body[:, b, :2]).T)
