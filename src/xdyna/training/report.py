"""What is measured on held-out synthetic clips, and the sheets to look at.

The truth is exact, so a generated video is measured three ways: against the true pixels (PSNR), by the judge (does the
person do what the driver does), and by its own changes from frame to frame where no person is (does a scene move as
much as the true one, and does a still wall stay still).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from xdyna.training.judge import JUDGED_EXPRESSIONS, Judge, visible_joints

REPORTED_EXPRESSIONS = ("mouth_open", "smile", "lid", "gaze_x", "gaze_y", "brow", "yaw")
JUDGE_BATCH = 64


@dataclass(frozen=True)
class Truth:
    """What is known of some clips, the reference frame left out.

    Attributes:
        frames: (n f 3 h w) float in [0, 1].
        mask: (n f 1 h w) in [0, 1].
        body: (n f 18 3) and head: (n f 3), in pixels.
        expression: (n f 8).
        human: (n,) bool; still: (n,) bool, nothing in the background moves.
    """

    frames: torch.Tensor
    mask: torch.Tensor
    body: torch.Tensor
    head: torch.Tensor
    expression: torch.Tensor
    human: torch.Tensor
    still: torch.Tensor


def psnr(video: torch.Tensor, truth: torch.Tensor, *, where: torch.Tensor | None = None) -> torch.Tensor:
    """Peak signal-to-noise ratio of each clip.

    Args:
        video: (n f 3 h w) in [0, 1].
        truth: the same.
        where: (n f 1 h w) weights; only what they cover counts. NaN for a clip that they do not touch.

    Returns:
        (n,) in dB, 60 at most.
    """
    error = (video - truth).square()
    if where is None:
        mean = error.mean((1, 2, 3, 4))
    else:
        covered = where.sum((1, 2, 3, 4)) * error.shape[2]
        mean = torch.where(covered > 0, (error * where).sum((1, 2, 3, 4)) / covered, torch.nan)
    return -10 * mean.clamp(min=1e-6).log10()


def background_motion(video: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean absolute change from frame to frame where no person is, in 0..255.

    Args:
        video: (n f 3 h w) in [0, 1].
        mask: (n f 1 h w) of the **true** person.

    Returns:
        (n,); NaN for a clip without background.
    """
    empty = ((mask[:, 1:] < 0.01) & (mask[:, :-1] < 0.01)).float()
    change = video.diff(dim=1).abs() * empty
    covered = 3 * empty.sum((1, 2, 3, 4))
    return torch.where(covered > 0, 255 * change.sum((1, 2, 3, 4)) / covered.clamp(min=1), torch.nan)


def head_discs(head: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Discs around heads: (n f 3) -> (n f 1 h w) of 0 and 1."""
    y = torch.arange(size[0], device=head.device).view(-1, 1) + 0.5
    x = torch.arange(size[1], device=head.device) + 0.5
    cx, cy, radius = (head[..., i, None, None] for i in range(3))
    return (((x - cx) ** 2 + (y - cy) ** 2) < radius**2).float()[:, :, None]


def pixel_measures(video: torch.Tensor, truth: Truth) -> dict[str, float]:
    """PSNR and motion of generated clips.

    Returns:
        psnr (clips with people), psnr_still (those of them before still scenes), psnr_head, scene_motion_ratio
        (generated / true, moving scenes), still_motion (0..255, still scenes).
    """
    people, still = truth.human, truth.still
    whole = psnr(video, truth.frames)
    head = psnr(video, truth.frames, where=head_discs(truth.head, _size(video)))
    moved, true = background_motion(video, truth.mask), background_motion(truth.frames, truth.mask)
    # A scene that hardly moves would make its ratio anything.
    moving = ~still & (true > 0.5)
    return {
        "psnr": _mean(whole[people]),
        "psnr_still": _mean(whole[people & still]),
        "psnr_head": _mean(head[people]),
        "scene_motion_ratio": _mean(moved[moving]) / max(_mean(true[moving]), 1e-6),
        "still_motion": _mean(moved[still]),
    }


@torch.no_grad()
def judged_measures(video: torch.Tensor, truth: Truth, *, judge: Judge) -> dict[str, float]:
    """What the judge reads off generated clips with people, against the truth of their driver.

    Returns:
        joint_error_pct (mean distance, percent of the width), mask_iou, and the correlation of each expression.
    """
    people = truth.human
    frames = video[people].flatten(0, 1) * 2 - 1
    body, head = truth.body[people].flatten(0, 1), truth.head[people].flatten(0, 1)
    if not len(frames):
        return {"joint_error_pct": float("nan"), "mask_iou": float("nan")}
    parts = [judge(f, h) for f, h in zip(frames.split(JUDGE_BATCH), head.split(JUDGE_BATCH), strict=True)]
    logits, joints, expression = (torch.cat(values) for values in zip(*parts, strict=True))
    places, seen = visible_joints(body, _size(video))
    height, width = _size(video)
    scale = torch.tensor([1.0, height / width], device=video.device)
    distance = ((joints - places) * scale).norm(dim=-1)
    true_mask = (
        functional.interpolate(truth.mask[people].flatten(0, 1).float(), logits.shape[-2:], mode="area") > 0.5
    )
    read_mask = logits > 0
    union = (read_mask | true_mask).flatten(1).sum(1).clamp(min=1)
    iou = (read_mask & true_mask).flatten(1).sum(1) / union
    measures = {
        "joint_error_pct": 100 * ((distance * seen).sum() / seen.sum().clamp(min=1)).item(),
        "mask_iou": iou.float().mean().item(),
    }
    target = truth.expression[people].flatten(0, 1)
    for name in REPORTED_EXPRESSIONS:
        index = JUDGED_EXPRESSIONS.index(name)
        measures[f"{name}_correlation"] = correlation(expression[:, index], target[:, index])
    return measures


def correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    """Pearson's correlation of two (n,) tensors; 0 where one of them does not vary."""
    first, second = first.double() - first.double().mean(), second.double() - second.double().mean()
    scale = first.norm() * second.norm()
    return (first @ second / scale).item() if scale > 1e-9 else 0.0


def sheet(rows: Sequence[torch.Tensor], *, columns: int = 8) -> np.ndarray:
    """A contact sheet.

    Args:
        rows: clips (f 3 h w) in [0, 1]; a clip of one frame is shown in the first column only.
        columns: at most so many frames of each, evenly spread.

    Returns:
        (h w 3) uint8
    """
    height, width = _size(rows[0])
    picture = np.full((len(rows) * (height + 2), columns * (width + 2), 3), 255, np.uint8)
    for number, clip in enumerate(rows):
        picks = torch.linspace(0, len(clip) - 1, min(columns, len(clip))).round().long().tolist()
        for column, pick in enumerate(picks):
            frame = (clip[pick].detach().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            top, left = number * (height + 2), column * (width + 2)
            picture[top : top + height, left : left + width] = frame
    return picture


def _size(video: torch.Tensor) -> tuple[int, int]:
    return video.shape[-2], video.shape[-1]


def _mean(values: torch.Tensor) -> float:
    """Mean of what is not NaN; NaN for nothing."""
    values = values[~values.isnan()]
    return values.mean().item() if len(values) else float("nan")
