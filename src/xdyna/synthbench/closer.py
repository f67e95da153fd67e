"""Jobs of heads' close-ups, as `condition_clips` makes them of files, from what a job has in memory."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from xdyna.conditions.align import warp_frame
from xdyna.conditions.closeup import NOISE, CloseUp, plan_close_up
from xdyna.conditions.draw import draw_pose
from xdyna.synthbench.cases import Job, from_bytes, to_bytes


@dataclass(frozen=True)
class Closer:
    """The close-ups of some of a job's cases.

    Attributes:
        rows: which cases they are of.
        paths: one a close-up.
        job: for the model.
    """

    rows: list[int]
    paths: list[CloseUp]
    job: Job

    def put_back(self, video: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
        """Clips with their heads replaced.

        Args:
            video: (n f 3 h w) in [0, 1], of the whole job.
            near: (k f 3 s s) in [0, 1], of the close-ups.

        Returns:
            (n f 3 h w), of 8 bits.
        """
        mixed = video.clone()
        for row, path, clip in zip(self.rows, self.paths, near, strict=True):
            pairs = zip(to_bytes(video[row]), to_bytes(clip), strict=True)
            frames = [path.put_back(frame, part, index) for index, (frame, part) in enumerate(pairs)]
            mixed[row] = from_bytes(np.stack(frames)).to(video)
        return mixed


def closer(job: Job, *, side: int, landmarks: bool = False) -> Closer | None:
    """The close-ups of a job's small heads, `side` pixels wide and high; None if there is none.

    Args:
        job: with `points`.
        side: of the close-ups.
        landmarks: draw the face's landmarks, for a model that was trained so.
    """
    rows, paths, parts = [], [], []
    for row, points in enumerate(job.points or ()):
        path = None if points is None else plan_close_up(points[1:], points[:1], side=side)
        if points is None or path is None:
            continue
        size, maps = (side, side), path.matrices()
        driven, own = points[1:].moved(maps, size), points[:1].moved(path.reference_matrix(), size)
        reference = _cut(job.reference[row : row + 1], path.reference_matrix()[None], size)
        face = torch.cat([_cut(part, maps, size) for part in job.face[row].split(3, 1)], 1)
        drawn = [draw_pose(driven, index, landmarks=landmarks) for index in range(len(driven))]
        rows.append(row)
        paths.append(path)
        parts.append(
            (
                reference[0], from_bytes(np.stack(drawn)), face,
                from_bytes(draw_pose(own, 0, landmarks=landmarks)),
                torch.from_numpy(own.body[0]), torch.from_numpy(driven.body),
            )
        )  # fmt: skip
    if not rows:
        return None
    reference, pose, face, own_pose, own_body, body = (
        torch.stack(part).to(job.reference.device) for part in zip(*parts, strict=True)
    )
    seeds = tuple(job.seeds[row] + NOISE for row in rows)
    return Closer(rows, paths, Job(reference, pose, face, seeds, own_pose, own_body, body))


def _cut(pictures: torch.Tensor, maps: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """(f 3 h w) in [0, 1], each carried by its map (f 2 3): (f 3 size), of 8 bits."""
    pairs = zip(to_bytes(pictures), maps, strict=True)
    return from_bytes(
        np.stack([warp_frame(picture, one, size, enlarging=cv2.INTER_CUBIC) for picture, one in pairs])
    )
