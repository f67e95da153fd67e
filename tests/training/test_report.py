from __future__ import annotations

import math

import pytest
import torch

from xdyna.data.synthetic import make_batch
from xdyna.training.judge import Judge
from xdyna.training.report import (
    Truth,
    background_motion,
    correlation,
    head_discs,
    judged_measures,
    pixel_measures,
    psnr,
    sheet,
)


def truth(frames: torch.Tensor, *, human: bool = True, still: bool = True) -> Truth:
    clips, count = frames.shape[:2]
    head = torch.tensor([8.0, 8.0, 4.0]).expand(clips, count, 3)
    body = torch.full((clips, count, 18, 3), 10.0)
    flags = torch.ones(clips, dtype=torch.bool)
    return Truth(
        frames=frames, mask=torch.zeros(clips, count, 1, *frames.shape[-2:]), body=body, head=head,
        expression=torch.rand(clips, count, 8), human=flags & human, still=flags & still,
    )  # fmt: skip


def test_psnr_of_a_known_error() -> None:
    frames = torch.full((1, 2, 3, 16, 16), 0.5)
    assert psnr(frames + 0.1, frames).item() == pytest.approx(20, abs=1e-3)
    assert psnr(frames, frames).item() == pytest.approx(60, abs=1e-3)


def test_psnr_counts_only_what_is_covered() -> None:
    frames = torch.zeros(2, 1, 3, 16, 16)
    video = frames.clone()
    video[..., :8] = 0.1
    where = torch.zeros(2, 1, 1, 16, 16)
    where[0, ..., :8] = 1
    measured = psnr(video, frames, where=where)
    assert measured[0].item() == pytest.approx(20, abs=1e-3)
    assert measured[1].isnan()


def test_background_motion_ignores_the_person() -> None:
    video = torch.zeros(1, 3, 3, 8, 8)
    video[:, 1, :, :, :4] = 1.0  # flashes in the left half
    mask = torch.zeros(1, 3, 1, 8, 8)
    assert background_motion(video, mask).item() == pytest.approx(255 / 2)
    mask[..., :4] = 1
    assert background_motion(video, mask).item() == 0
    assert background_motion(video, torch.ones_like(mask)).isnan().all()


def test_a_head_disc_has_its_area() -> None:
    disc = head_discs(torch.tensor([[[20.0, 16.0, 10.0]]]), (40, 48))
    assert disc.shape == (1, 1, 1, 40, 48)
    assert disc.sum().item() == pytest.approx(math.pi * 100, rel=0.03)
    assert disc[0, 0, 0, 16, 20] == 1


def test_pixel_measures_of_a_perfect_and_a_frozen_video() -> None:
    torch.manual_seed(0)
    frames = torch.rand(2, 4, 3, 16, 16)
    perfect = pixel_measures(frames, truth(frames, still=False))
    assert perfect["psnr"] == pytest.approx(60, abs=1e-3)
    assert perfect["scene_motion_ratio"] == pytest.approx(1)
    frozen = frames[:, :1].expand_as(frames)
    assert pixel_measures(frozen, truth(frames, still=False))["scene_motion_ratio"] == 0
    assert pixel_measures(frames, truth(frozen))["still_motion"] > 50
    assert math.isnan(pixel_measures(frames, truth(frames, still=False))["psnr_still"])


def test_correlation() -> None:
    line = torch.arange(10.0)
    assert correlation(line, 3 * line + 1) == pytest.approx(1)
    assert correlation(line, -line) == pytest.approx(-1)
    assert correlation(line, torch.ones(10)) == 0


def test_the_judge_measures_rendered_clips() -> None:
    batch = make_batch(3, 2, frames=2, size=(64, 64), human_share=1.0)
    known = Truth(
        frames=batch.frames[:, 1:], mask=batch.mask[:, 1:], body=batch.body[:, 1:], head=batch.head[:, 1:],
        expression=batch.expression[:, 1:], human=batch.human, still=batch.still,
    )  # fmt: skip
    measures = judged_measures(known.frames, known, judge=Judge(8).eval())
    assert 0 < measures["joint_error_pct"] < 100
    assert 0 <= measures["mask_iou"] <= 1
    assert -1 <= measures["mouth_open_correlation"] <= 1


def test_a_sheet_has_a_row_for_each_clip() -> None:
    red = torch.zeros(12, 3, 8, 8)
    red[:, 0] = 1
    picture = sheet([red, torch.zeros(1, 3, 8, 8)], columns=4)
    assert picture.shape == (20, 40, 3)
    assert picture[0, 0].tolist() == [255, 0, 0]
    assert picture[0, 31].tolist() == [255, 0, 0]
    assert picture[12, 0].tolist() == [0, 0, 0]
    assert picture[12, 12].tolist() == [255, 255, 255], "one frame is shown once"
