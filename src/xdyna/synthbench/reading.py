"""Everything that is read off a clip: pixels, motion, the judge, and what the networks at hand say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from xdyna.evaluation.figures import Part, mean
from xdyna.evaluation.judge import Judge
from xdyna.evaluation.networks.texture import FRAMES, PARTS
from xdyna.synthbench.cases import to_bytes
from xdyna.synthbench.measures import Reading, Truth, read_person, read_pixels
from xdyna.synthbench.records import Features, Measured

LEAST_PERSON = 0.005
"""Share of a clip's pixels that the person must cover for its foreground to count."""

TextureReader = Callable[..., np.ndarray]
"""(clips, *, masks, part, device) -> features (n d), as `evaluation.networks.texture.texture_features`."""
FaceComparer = Callable[[np.ndarray, np.ndarray, np.ndarray], "list[float | None]"]
"""Generated and true frames (f h w 3) uint8, heads (f 3) -> each frame's cosine, None where a face is missing."""


OF_ONE_PERSON = ("joint_error_pct", "akd_pct", "pck", "mask_iou")
"""What the judge can read where there is one person only: of two, it cannot know which one is meant."""


@dataclass(frozen=True)
class Reader:
    """Reads clips.

    Attributes:
        judge: the judge.
        texture: the dynamic-texture network, or None.
        faces: the face network, or None.
        unavailable: for each figure that cannot be had, "unavailable: needs ...".
        networks: what identifies the networks that are there.
    """

    judge: Judge
    texture: TextureReader | None = None
    faces: FaceComparer | None = None
    unavailable: dict[str, str] = field(default_factory=dict)
    networks: dict[str, Any] = field(default_factory=dict)

    @torch.no_grad()
    def __call__(self, video: torch.Tensor, truth: Truth, *, distances: bool = True) -> list[Measured]:
        """Read clips whose truth is known.

        Args:
            video: (n f 3 h w) in [0, 1].
            truth: of the same clips.
            distances: also ask the texture network.

        Returns:
            one for each clip.
        """
        parts = read_pixels(video, truth)
        people = truth.human.nonzero().flatten().tolist()
        picks = torch.tensor(people, dtype=torch.long, device=video.device)
        readings = read_person(
            video[picks], body=truth.body[picks], head=truth.head[picks], expression=truth.expression[picks],
            mask=truth.mask[picks], truth=truth.frames[picks], judge=self.judge,
        )  # fmt: skip
        for row, reading in zip(people, _told_apart(readings, truth.company[picks]), strict=True):
            parts[row].update(reading)
            parts[row].update(self._faces(video[row], truth, row))
        features: list[Features] = [{} for _ in parts]
        if distances and self.texture is not None:
            features = self._features(video, truth)
        return [Measured(*pair) for pair in zip(parts, features, strict=True)]

    def person(
        self,
        video: torch.Tensor,
        *,
        body: torch.Tensor,
        head: torch.Tensor,
        expression: torch.Tensor,
        company: torch.Tensor,
    ) -> list[Measured]:
        """Read people of whom only pose and expression are known.

        Args:
            video, body, head, expression: as of `measures.read_person`.
            company: (n,) bool, whether there is a second person.
        """
        readings = read_person(video, body=body, head=head, expression=expression, judge=self.judge)
        return [Measured(reading) for reading in _told_apart(readings, company)]

    def _faces(self, video: torch.Tensor, truth: Truth, row: int) -> dict[str, Part]:
        """face_cos: mean cosine over the frames in which both faces are found; face_found: share of such frames."""
        if self.faces is None:
            return {}
        heads = truth.head[row].float().cpu().numpy()
        cosines = self.faces(to_bytes(video), to_bytes(truth.frames[row]), heads)
        found = [value for value in cosines if value is not None]
        parts = {"face_found": mean(len(found) / len(cosines), len(cosines))}
        if found:
            parts["face_cos"] = mean(sum(found) / len(found), len(found))
        return parts

    def _features(self, video: torch.Tensor, truth: Truth) -> list[Features]:
        assert self.texture is not None
        clips = [to_bytes(clip) for clip in video]
        masks = [(clip[:, 0] > 0.5).cpu().numpy() for clip in truth.mask]
        out: list[Features] = [{} for _ in clips]
        shown = [index for index, mask in enumerate(masks) if mask.mean() >= LEAST_PERSON]
        for part in PARTS:
            rows = [
                (row, window)
                for row in (shown if part == "fg" else range(len(clips)))
                for window in _windows(len(clips[row]))
            ]
            found = self.texture(
                [clips[row][window] for row, window in rows],
                masks=[masks[row][window] for row, window in rows],
                part=part,
                device=video.device,
            )
            for (row, _), values in zip(rows, found, strict=True):
                out[row].setdefault(part, []).append([float(np.float32(value)) for value in values])
        return out


def _told_apart(readings: list[Reading], company: torch.Tensor) -> list[Reading]:
    """Readings without what two people leave open."""
    return [
        {name: part for name, part in reading.items() if not two or name not in OF_ONE_PERSON}
        for reading, two in zip(readings, company.tolist(), strict=True)
    ]


def _windows(frames: int) -> list[slice]:
    """Windows of as many frames as the network takes, side by side; the rest of a long clip is not read."""
    if frames < FRAMES:
        return [slice(None)]
    return [slice(begin, begin + FRAMES) for begin in range(0, frames - FRAMES + 1, FRAMES)]
