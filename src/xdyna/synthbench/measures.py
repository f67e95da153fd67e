"""What is measured on held-out synthetic clips.

The truth is exact, so a generated video is measured three ways: against the true pixels (PSNR), by the judge (does the
person do what the driver does), and by its own changes from frame to frame (does a scene move as much as the true one,
does a still wall stay still, does anything flicker). Every clip is measured alone (`read_pixels`, `read_person`);
`evaluation.figures` makes figures of many clips.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from xdyna.data.synthetic import SCENES, SyntheticBatch
from xdyna.evaluation.figures import Part, mean, paired
from xdyna.evaluation.judge import JUDGED_EXPRESSIONS, Judge, expected_joints, visible_joints
from xdyna.evaluation.scene_motion import background, flicker, motion_where

REPORTED_EXPRESSIONS = ("mouth_open", "smile", "lid", "gaze_x", "gaze_y", "brow", "yaw", "pitch")
LARGE_HEAD = 24.0
"""Half height in pixels from which on a head counts as large: eyes and mouths of smaller ones are a few pixels."""
LEAST_MOTION = 0.5
"""Background motion, 0..255, from which on a scene's motion can be compared with another."""
PCK_SHARE = 0.05
"""PCK: a joint is right within this share of the picture's width."""
JUDGE_BATCH = 64

Reading = dict[str, Part]
"""What one clip adds to every figure that it can be measured by."""


@dataclass(frozen=True)
class Truth:
    """What is known of some clips, the reference frame left out.

    Attributes:
        frames: (n f 3 h w) float in [0, 1].
        mask: (n f 1 h w) in [0, 1].
        body: (n f 18 3) and head: (n f 3), in pixels.
        expression: (n f 8).
        human: (n,) bool; still: (n,) bool, nothing in the background moves.
        travels: (n,) bool, the camera moves; company: (n,) bool, there is a second person.
        scene: (n,) int, places in `SCENES`.
    """

    frames: torch.Tensor
    mask: torch.Tensor
    body: torch.Tensor
    head: torch.Tensor
    expression: torch.Tensor
    human: torch.Tensor
    still: torch.Tensor
    travels: torch.Tensor
    company: torch.Tensor
    scene: torch.Tensor

    @staticmethod
    def of(batch: SyntheticBatch) -> Truth:
        """Of rendered clips."""
        resting = torch.tensor([1.0, 0, 0, 0], device=batch.camera.device)
        travels = ((batch.camera - resting).abs() > 1e-6).flatten(1).any(1)
        return Truth(
            frames=batch.frames[:, 1:].float(), mask=batch.mask[:, 1:].float(), body=batch.body[:, 1:].float(),
            head=batch.head[:, 1:].float(), expression=batch.expression[:, 1:].float(), human=batch.human,
            still=batch.still, travels=travels, company=batch.company, scene=batch.scene,
        )  # fmt: skip


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
        average = error.mean((1, 2, 3, 4))
    else:
        covered = where.sum((1, 2, 3, 4)) * error.shape[2]
        average = torch.where(covered > 0, (error * where).sum((1, 2, 3, 4)) / covered, torch.nan)
    return -10 * average.clamp(min=1e-6).log10()


def head_discs(head: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Discs around heads: (n f 3) -> (n f 1 h w) of 0 and 1."""
    y = torch.arange(size[0], device=head.device).view(-1, 1) + 0.5
    x = torch.arange(size[1], device=head.device) + 0.5
    cx, cy, radius = (head[..., i, None, None] for i in range(3))
    return (((x - cx) ** 2 + (y - cy) ** 2) < radius**2).float()[:, :, None]


def read_pixels(video: torch.Tensor, truth: Truth) -> list[Reading]:
    """Measure generated clips against the true pixels and by their own changes.

    Returns:
        for each clip, of these what applies to it:

        * psnr_all: of every clip; psnr: with a person; psnr_still: with a person, before what stands still;
        * psnr_person: of the person's pixels; psnr_head: of the disc round the head whose radius is half the head's
          height, so that it holds the head and hardly anything of a wall that is easy to get right; psnr_head_large:
          of heads of `LARGE_HEAD` and more in the clip's mean;
        * scene_motion: background motion, generated over true, of moving scenes before a steady camera and without a
          second person (the ratio of the sums); scene_motion_median: the median of the clips' ratios;
          scene_motion_by_kind.KIND; scene_motion_mean: the generated one itself, 0..255; scene_motion_true;
          camera_motion: the ratio for moving cameras;
        * still_motion: 0..255, background pixels of clips in which nothing stirs behind the person;
        * flicker_still: 0..255, of the same pixels; flicker_scene and flicker_person: generated over true, of moving
          scenes' backgrounds and of people.
    """
    size = (video.shape[-2], video.shape[-1])
    scene, person = background(truth.mask), (truth.mask > 0.5).float()
    values = {
        "whole": psnr(video, truth.frames),
        "person": psnr(video, truth.frames, where=truth.mask),
        "head": psnr(video, truth.frames, where=head_discs(truth.head, size)),
        "head_size": truth.head[..., 2].mean(1),
        "moved": motion_where(video, scene),
        "true": motion_where(truth.frames, scene),
        "flickers": flicker(video, scene),
        "flickers_true": flicker(truth.frames, scene),
        "person_flickers": flicker(video, person),
        "person_flickers_true": flicker(truth.frames, person),
        "human": truth.human,
        "still": truth.still,
        "travels": truth.travels,
        "company": truth.company,
        "scene": truth.scene,
    }
    table = {name: value.tolist() for name, value in values.items()}
    clips = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    return [_pixel_parts(clip, video.shape[1]) for clip in clips]


def _pixel_parts(clip: dict[str, float], frames: int) -> Reading:
    """The parts of one clip from its values, those that are NaN left out."""
    parts = {"psnr_all": mean(clip["whole"], frames)}
    if clip["human"]:
        parts["psnr"] = mean(clip["whole"], frames)
        parts["psnr_person"] = mean(clip["person"], frames)
        parts["psnr_head"] = mean(clip["head"], frames)
        if clip["still"]:
            parts["psnr_still"] = parts["psnr"]
        if clip["head_size"] >= LARGE_HEAD:
            parts["psnr_head_large"] = parts["psnr_head"]
        parts["flicker_person"] = _compared(clip["person_flickers"], clip["person_flickers_true"], frames)
    if clip["still"]:
        parts["still_motion"] = mean(clip["moved"], frames)
        parts["flicker_still"] = mean(clip["flickers"], frames)
    elif clip["true"] > LEAST_MOTION and not clip["travels"] and not clip["company"]:
        kind = SCENES[int(clip["scene"])]
        motion = _compared(clip["moved"], clip["true"], frames)
        parts["scene_motion"] = parts[f"scene_motion_by_kind.{kind}"] = motion
        parts["scene_motion_median"] = Part("median", motion.sums, frames)
        parts["scene_motion_mean"] = mean(clip["moved"], frames)
        parts["scene_motion_true"] = mean(clip["true"], frames)
        parts["flicker_scene"] = _compared(clip["flickers"], clip["flickers_true"], frames)
    elif clip["true"] > LEAST_MOTION and clip["travels"]:
        parts["camera_motion"] = _compared(clip["moved"], clip["true"], frames)
    return {name: part for name, part in parts.items() if not np.isnan(part.sums).any()}


@torch.no_grad()
def read_person(
    video: torch.Tensor,
    *,
    body: torch.Tensor,
    head: torch.Tensor,
    expression: torch.Tensor,
    judge: Judge,
    mask: torch.Tensor | None = None,
    truth: torch.Tensor | None = None,
) -> list[Reading]:
    """What the judge reads off clips with people, against where and how the person should be.

    Args:
        video: (n f 3 h w) in [0, 1].
        body: (n f 18 3) and head: (n f 3), in pixels.
        expression: (n f 8).
        judge: the judge.
        mask: (n f 1 h w), where known.
        truth: (n f 3 h w), the true frames, where there are some.

    Returns:
        for each clip joint_error_pct (mean distance of the joints inside of the picture from where they should be,
        percent of the width), pck (share of them within `PCK_SHARE` of the width), akd_pct (average keypoint distance,
        Siarohin et al. 2019: of the same joints from where the judge sees them in the true frames, so that its own
        errors do not count), mask_iou, and the correlation of each expression: expressions.NAME over the frames whose
        head's middle is in the picture, expressions_large.NAME over those whose head is `LARGE_HEAD` or more as well.
    """
    clips, frames = video.shape[:2]
    size = (video.shape[-2], video.shape[-1])
    if not clips:
        return []
    flat, heads = video.flatten(0, 1) * 2 - 1, head.flatten(0, 1)
    parts = [judge(f, h) for f, h in zip(flat.split(JUDGE_BATCH), heads.split(JUDGE_BATCH), strict=True)]
    logits, likely, found = (torch.cat(values) for values in zip(*parts, strict=True))
    joints = expected_joints(likely)
    places, seen = visible_joints(body.flatten(0, 1), size)
    scale = torch.tensor([1.0, size[0] / size[1]], device=video.device)
    apart = ((joints - places) * scale).norm(dim=-1)
    distance = (apart * seen).unflatten(0, (clips, frames)).sum((1, 2))
    drift = None
    if truth is not None:
        true_parts = [judge.figure(f)[1] for f in (truth.flatten(0, 1) * 2 - 1).split(JUDGE_BATCH)]
        drift = ((joints - expected_joints(torch.cat(true_parts))) * scale).norm(dim=-1) * seen
        drift = drift.unflatten(0, (clips, frames)).sum((1, 2))
    near = ((apart <= PCK_SHARE) * seen).unflatten(0, (clips, frames)).sum((1, 2))
    counted = seen.unflatten(0, (clips, frames)).sum((1, 2))
    overlap = None if mask is None else _overlap(logits, mask.flatten(0, 1)).unflatten(0, (clips, frames))
    read = found.unflatten(0, (clips, frames)).float().cpu().numpy()
    wanted, known = expression.float().cpu().numpy(), head.float().cpu().numpy()
    x, y, half = np.moveaxis(known, -1, 0)
    inside = (x > 0) & (x < size[1]) & (y > 0) & (y < size[0])
    large = inside & (half >= LARGE_HEAD)
    readings = []
    for clip in range(clips):
        reading: Reading = {}
        if counted[clip] > 0:
            reading["joint_error_pct"] = Part(
                "ratio", (100 * distance[clip].item(), counted[clip].item()), frames
            )
            if drift is not None:
                reading["akd_pct"] = Part("ratio", (100 * drift[clip].item(), counted[clip].item()), frames)
            reading["pck"] = Part("ratio", (near[clip].item(), counted[clip].item()), frames)
        if overlap is not None:
            reading["mask_iou"] = mean(overlap[clip].mean().item(), frames)
        for group, picks in (("expressions", inside[clip]), ("expressions_large", large[clip])):
            for name in REPORTED_EXPRESSIONS if picks.any() else ():
                index = JUDGED_EXPRESSIONS.index(name)
                reading[f"{group}.{name}"] = paired(read[clip, picks, index], wanted[clip, picks, index])
        readings.append(reading)
    return readings


def _compared(generated: float, true: float, frames: int) -> Part:
    return Part("ratio", (generated, true), frames)


def _overlap(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Intersection over union (n,) of what the judge takes for the person and the true mask (n 1 h w)."""
    true = functional.interpolate(mask.float(), logits.shape[-2:], mode="area") > 0.5
    found = logits > 0
    union = (found | true).flatten(1).sum(1).clamp(min=1)
    return ((found & true).flatten(1).sum(1) / union).float()
