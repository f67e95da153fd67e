"""People driven by others as `xdyna animate` drives them, and where they should be then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from xdyna.conditions.align import align, warp_frame
from xdyna.conditions.draw import draw_pose
from xdyna.conditions.face import FaceTracker
from xdyna.conditions.keypoints import Keypoints
from xdyna.data.synthetic import SyntheticBatch
from xdyna.synthbench.cases import Job, from_bytes, keypoints_of, known_points, to_bytes


@dataclass(frozen=True)
class Driven:
    """People driven by others through retargeting, and where they should be then.

    Attributes:
        job: for the model.
        body: (n f 18 3), the driver's retargeted to the reference person; head: (n f 3), carried with the face.
        expression: (n f 8), the driver's.
    """

    job: Job
    body: torch.Tensor
    head: torch.Tensor
    expression: torch.Tensor


def retargeted(
    people: SyntheticBatch, drivers: SyntheticBatch, cases: Sequence[int], *, landmarks: bool = False
) -> Driven:
    """People driven by others the way `xdyna animate` does it, keypoints exact instead of detected.

    The driver's keypoints are aligned to the reference's (`conditions.align`, retarget), poses drawn from them, and
    the driver's own face carried along and cut (`condition_clips.make_conditions`).

    Args:
        people: n rendered clips; of each the reference is used, keypoints included.
        drivers: n clips, the reference left out.
        cases: numbers of the people's cases.
        landmarks: draw the face's landmarks, for a model that was trained so.
    """
    device, size = people.frames.device, (people.frames.shape[-2], people.frames.shape[-1])
    poses, faces, bodies, heads, points = [], [], [], [], []
    for row in range(len(people.frames)):
        reference = keypoints_of(people, row, slice(0, 1))
        aligned = align(keypoints_of(drivers, row, slice(1, None)), reference, canvas=size)
        frames, tracker = to_bytes(drivers.frames[row, 1:]), FaceTracker()
        pictures = []
        for index, frame in enumerate(frames):
            warped = warp_frame(frame, aligned.frame_to_canvas[index], size)
            pictures.append(np.concatenate(tracker.step(warped, aligned.keypoints.face[index]), -1))
        faces.append(np.stack(pictures))
        poses.append(
            np.stack([draw_pose(aligned.keypoints, i, landmarks=landmarks) for i in range(len(frames))])
        )
        bodies.append(aligned.keypoints.body)
        points.append(Keypoints.concatenate([reference, aligned.keypoints]))
        heads.append(carried_heads(drivers.head[row, 1:].float().cpu().numpy(), aligned.frame_to_canvas))
    body = torch.from_numpy(np.stack(bodies)).to(device)
    pose, face = (from_bytes(np.stack(part)).to(device) for part in (poses, faces))
    return Driven(
        Job(
            people.frames[:, 0].float(),
            pose,
            face,
            tuple(cases),
            people.pose[:, 0].float(),
            known_points(people)[:, 0],
            body,
            tuple(points),
        ),
        body=body,
        head=torch.from_numpy(np.stack(heads)).to(device),
        expression=drivers.expression[:, 1:].float(),
    )


def carried_heads(heads: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """Heads (f 3) after the maps (f 2 3) of their faces: the middle moved, the half height scaled."""
    middles = np.einsum("fij,fj->fi", matrices[:, :, :2], heads[:, :2]) + matrices[:, :, 2]
    scales = np.sqrt(np.abs(np.linalg.det(matrices[:, :, :2])))
    return np.concatenate([middles, (scales * heads[:, 2])[:, None]], 1).astype(np.float32)
