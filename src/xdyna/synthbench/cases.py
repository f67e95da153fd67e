"""The frozen held-out cases: which they are, how they are rendered, and who drives whom.

A case is one clip of the synthetic world with its reference. Case n is the same whatever the number of cases, the
device, and how many are rendered together; so is who drives it. All people of the frozen cases are drawn and all motion
is made up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from xdyna.conditions.keypoints import PARTS, Keypoints
from xdyna.data.synthetic import HELD_OUT_SEED, SyntheticBatch, SyntheticParams, render, sample_params
from xdyna.synthbench.options import FROZEN_CASES

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
        reference_pose: (n 3 h w), the reference people's own poses, for models that are told them.
        reference_body: (n 18 3) their points, score 0 where there is nobody; body: (n f 18 3) those of the frames.
        points: all of a case's keypoints, 1+f frames, the reference's first; None where there is nobody. For close-ups.
    """

    reference: torch.Tensor
    pose: torch.Tensor
    face: torch.Tensor
    seeds: tuple[int, ...]
    reference_pose: torch.Tensor | None = None
    reference_body: torch.Tensor | None = None
    body: torch.Tensor | None = None
    points: tuple[Keypoints | None, ...] | None = None


def case_params(cases: Sequence[int], *, frames: int, modelled_share: float = 0.0) -> SyntheticParams:
    """The parameters of some cases, by number.

    Args:
        cases: numbers from 0.
        frames: of each, the reference left out.
        modelled_share: share of people modelled in three dimensions; the frozen cases have none. All else of a case
            is the same with any share.
    """
    drawn: dict[int, SyntheticParams] = {}
    singles = []
    for case in cases:
        chunk, row = divmod(case, CHUNK)
        if chunk not in drawn:
            drawn[chunk] = sample_params(
                HELD_OUT_SEED + chunk, CHUNK, frames=frames, human_share=HUMAN_SHARE, still_share=STILL_SHARE,
                modelled_share=modelled_share,
            )  # fmt: skip
        singles.append(_each(lambda value, row=row: value[row : row + 1], drawn[chunk]))
    return _each(lambda *values: torch.cat(values), *singles)


def people_of(cases: int = FROZEN_CASES, *, frames: int) -> list[int]:
    """Which of the first `cases` have a person."""
    return case_params(range(cases), frames=frames).human.nonzero().flatten().tolist()


def driver_of(case: int, people: Sequence[int]) -> int:
    """Who drives a person in cross-driving: the next one of `people`, all people of the frozen cases in order."""
    return people[(people.index(case) + 1) % len(people)]


def render_params(
    params: SyntheticParams, *, size: tuple[int, int], device: str | torch.device, landmarks: bool = False
) -> SyntheticBatch:
    """Render whatever the parameters say, with landmarks in the pose maps for a model that was trained so."""
    return render(
        params.identity, params.motion, params.foreign, params.scene, params.times, size,
        human=params.human, company=params.company, modelled=params.modelled, device=device, landmarks=landmarks,
    )  # fmt: skip


def own_job(batch: SyntheticBatch, cases: Sequence[int]) -> Job:
    """Every case driven by its own clip, through the face of somebody else."""
    face = torch.cat([batch.face_local, batch.face_global], 2)[:, 1:].float()
    body = known_points(batch)
    return Job(
        batch.frames[:, 0].float(), batch.pose[:, 1:].float(), face, tuple(cases), batch.pose[:, 0].float(),
        body[:, 0], body[:, 1:],
        tuple(keypoints_of(batch, row) if there else None for row, there in enumerate(batch.human.tolist())),
    )  # fmt: skip


def keypoints_of(batch: SyntheticBatch, row: int, frames: slice = slice(None)) -> Keypoints:
    """A clip's keypoints in some of its frames, the reference being frame 0."""
    size = (batch.frames.shape[-2], batch.frames.shape[-1])
    return Keypoints(
        **{name: getattr(batch, name)[row, frames].float().cpu().numpy() for name in PARTS}, size=size
    )


def known_points(batch: SyntheticBatch) -> torch.Tensor:
    """The people's points (n 1+f 18 3), score 0 where a scene has nobody."""
    there = batch.human.to(batch.body).view(-1, 1, 1, 1)
    return torch.cat([batch.body[..., :2], batch.body[..., 2:] * there], -1).float()


def moved_like(params: SyntheticParams, drivers: SyntheticParams) -> SyntheticParams:
    """The same people and scenes with the drivers' motions; size and place in the picture stay."""
    motion = {**drivers.motion, **{name: params.motion[name] for name in KEPT}}
    return dataclasses.replace(params, motion=motion)


def to_bytes(pictures: torch.Tensor) -> np.ndarray:
    """(n 3 h w) in [0, 1] -> (n h w 3) uint8."""
    scaled = (pictures.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(scaled.permute(0, 2, 3, 1).cpu().numpy())


def from_bytes(pictures: np.ndarray) -> torch.Tensor:
    """(... h w c) uint8 -> (... c h w) float in [0, 1]."""
    return torch.from_numpy(pictures).movedim(-1, -3).float() / 255


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
