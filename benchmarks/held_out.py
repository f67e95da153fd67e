"""The held-out cases of `embedded_model`: which they are, how they are rendered, and who drives whom.

A case is one clip of the synthetic world with its reference. Case n is the same whatever the number of cases, the
device, and how many are rendered together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from xdyna.conditions.align import align, warp_frame
from xdyna.conditions.draw import draw_pose
from xdyna.conditions.face import FaceTracker
from xdyna.conditions.keypoints import PARTS, Keypoints
from xdyna.data.synthetic import HELD_OUT_SEED, SyntheticBatch, SyntheticParams, render, sample_params

CHUNK = 8
"""Cases drawn from one seed."""
HUMAN_SHARE, STILL_SHARE = 0.8, 0.5
KEPT = ("framing", "fill", "top", "place", "sit")
"""What a person keeps when another's motion moves them: how large and where in the picture they are, and a chair."""


@dataclass(frozen=True)
class Job:
    """What a model is given for some cases, and which noise it starts from.

    Attributes:
        reference: (n 3 h w) in [0, 1].
        pose: (n f 3 h w); face: (n f 6 h w), local then global.
        seeds: n numbers, one a case.
    """

    reference: torch.Tensor
    pose: torch.Tensor
    face: torch.Tensor
    seeds: tuple[int, ...]


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


def case_params(cases: Sequence[int], *, frames: int) -> SyntheticParams:
    """The parameters of some cases, by number."""
    drawn: dict[int, SyntheticParams] = {}
    singles = []
    for case in cases:
        chunk, row = divmod(case, CHUNK)
        if chunk not in drawn:
            drawn[chunk] = sample_params(
                HELD_OUT_SEED + chunk, CHUNK, frames=frames, human_share=HUMAN_SHARE, still_share=STILL_SHARE
            )
        singles.append(_each(lambda value, row=row: value[row : row + 1], drawn[chunk]))
    return _each(lambda *values: torch.cat(values), *singles)


def people_of(cases: int, *, frames: int) -> list[int]:
    """Which of the first `cases` have a person."""
    return case_params(range(cases), frames=frames).human.nonzero().flatten().tolist()


def render_params(
    params: SyntheticParams, *, size: tuple[int, int], device: str | torch.device, landmarks: bool = False
) -> SyntheticBatch:
    """Render whatever the parameters say, with landmarks in the pose maps for a model that was trained so."""
    return render(
        params.identity, params.motion, params.foreign, params.scene, params.times, size,
        human=params.human, company=params.company, device=device, landmarks=landmarks,
    )  # fmt: skip


def own_job(batch: SyntheticBatch, cases: Sequence[int]) -> Job:
    """Every case driven by its own clip, through the face of somebody else."""
    face = torch.cat([batch.face_local, batch.face_global], 2)[:, 1:].float()
    return Job(batch.frames[:, 0].float(), batch.pose[:, 1:].float(), face, tuple(cases))


def moved_like(params: SyntheticParams, drivers: SyntheticParams) -> SyntheticParams:
    """The same people and scenes with the drivers' motions; size and place in the picture stay."""
    motion = {**drivers.motion, **{name: params.motion[name] for name in KEPT}}
    return dataclasses.replace(params, motion=motion)


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
    poses, faces, bodies, heads = [], [], [], []
    for row in range(len(people.frames)):
        reference = _keypoints(people, row, slice(0, 1))
        aligned = align(_keypoints(drivers, row, slice(1, None)), reference, canvas=size)
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
        heads.append(carried_heads(drivers.head[row, 1:].float().cpu().numpy(), aligned.frame_to_canvas))
    pose, face = (from_bytes(np.stack(part)).to(device) for part in (poses, faces))
    return Driven(
        Job(people.frames[:, 0].float(), pose, face, tuple(cases)),
        body=torch.from_numpy(np.stack(bodies)).to(device),
        head=torch.from_numpy(np.stack(heads)).to(device),
        expression=drivers.expression[:, 1:].float(),
    )


def carried_heads(heads: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """Heads (f 3) after the maps (f 2 3) of their faces: the middle moved, the half height scaled."""
    middles = np.einsum("fij,fj->fi", matrices[:, :, :2], heads[:, :2]) + matrices[:, :, 2]
    scales = np.sqrt(np.abs(np.linalg.det(matrices[:, :, :2])))
    return np.concatenate([middles, (scales * heads[:, 2])[:, None]], 1).astype(np.float32)


def to_bytes(pictures: torch.Tensor) -> np.ndarray:
    """(n 3 h w) in [0, 1] -> (n h w 3) uint8."""
    scaled = (pictures.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(scaled.permute(0, 2, 3, 1).cpu().numpy())


def from_bytes(pictures: np.ndarray) -> torch.Tensor:
    """(... h w c) uint8 -> (... c h w) float in [0, 1]."""
    return torch.from_numpy(pictures).movedim(-1, -3).float() / 255


def _keypoints(batch: SyntheticBatch, row: int, frames: slice) -> Keypoints:
    size = (batch.frames.shape[-2], batch.frames.shape[-1])
    return Keypoints(
        **{name: getattr(batch, name)[row, frames].float().cpu().numpy() for name in PARTS}, size=size
    )


def _each(function: Any, *values: Any) -> Any:
    """A function of the tensors at the same place in values that are tensors, dicts or dataclasses of such."""
    first = values[0]
    if isinstance(first, torch.Tensor):
        return function(*values)
    if isinstance(first, dict):
        return {name: _each(function, *(value[name] for value in values)) for name in first}
    fields = [field.name for field in dataclasses.fields(first)]
    return dataclasses.replace(
        first, **{name: _each(function, *(getattr(value, name) for value in values)) for name in fields}
    )
