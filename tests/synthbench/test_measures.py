from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from xdyna.data.synthetic import SCENES, make_batch
from xdyna.evaluation.figures import figure
from xdyna.evaluation.judge import JOINTS, JUDGED_EXPRESSIONS, SIDE, Judge, expected_joints
from xdyna.synthbench.measures import (
    LARGE_HEAD,
    Reading,
    Truth,
    head_discs,
    psnr,
    read_person,
    read_pixels,
)


def truth(frames: torch.Tensor, *, human: bool = True, still: bool = False) -> Truth:
    clips, count = frames.shape[:2]
    flags = torch.ones(clips, dtype=torch.bool)
    return Truth(
        frames=frames, mask=torch.zeros(clips, count, 1, *frames.shape[-2:]),
        body=torch.full((clips, count, 18, 3), 10.0), head=torch.tensor([8.0, 8.0, 4.0]).expand(clips, count, 3),
        expression=torch.rand(clips, count, 8), human=flags & human, still=flags & still, travels=~flags,
        company=~flags, scene=torch.full((clips,), SCENES.index("fire")),
    )  # fmt: skip


def values(readings: list[Reading]) -> dict[str, float]:
    names = {name for reading in readings for name in reading}
    return {name: figure([r[name] for r in readings if name in r], draws=0).value for name in names}


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


def test_a_head_disc_has_its_area() -> None:
    disc = head_discs(torch.tensor([[[20.0, 16.0, 10.0]]]), (40, 48))
    assert disc.shape == (1, 1, 1, 40, 48)
    assert disc.sum().item() == pytest.approx(math.pi * 100, rel=0.03)
    assert disc[0, 0, 0, 16, 20] == 1


def test_a_perfect_and_a_frozen_video() -> None:
    torch.manual_seed(0)
    frames = torch.rand(2, 4, 3, 16, 16)
    perfect = values(read_pixels(frames, truth(frames)))
    assert perfect["psnr"] == perfect["psnr_all"] == pytest.approx(60, abs=1e-3)
    assert perfect["scene_motion"] == perfect["scene_motion_median"] == pytest.approx(1)
    assert perfect["scene_motion_by_kind.fire"] == pytest.approx(1)
    assert perfect["flicker_scene"] == pytest.approx(1)
    assert perfect["scene_motion_mean"] == perfect["scene_motion_true"] > 50
    assert not {"still_motion", "psnr_still", "flicker_still", "camera_motion"} & set(perfect)
    frozen = frames[:, :1].expand_as(frames)
    assert values(read_pixels(frozen, truth(frames)))["scene_motion"] == 0
    walls = values(read_pixels(frames, truth(frozen, still=True)))
    assert walls["still_motion"] > 50
    assert walls["flicker_still"] > 50
    assert walls["psnr_still"] == walls["psnr"] < 20
    assert "scene_motion" not in walls


def test_whose_background_moves_for_other_reasons_is_no_scene() -> None:
    frames = torch.rand(1, 4, 3, 16, 16)
    known, yes = truth(frames), torch.tensor([True])
    company = values(read_pixels(frames, dataclasses.replace(known, company=yes)))
    assert not {"scene_motion", "still_motion", "camera_motion"} & set(company)
    travelling = values(read_pixels(frames, dataclasses.replace(known, travels=yes)))
    assert travelling["camera_motion"] == pytest.approx(1)
    assert not {"scene_motion", "still_motion"} & set(travelling)


def test_heads_count_as_large_by_their_size() -> None:
    frames = torch.rand(2, 2, 3, 80, 80)
    head = torch.tensor([[40.0, 40.0, LARGE_HEAD], [40.0, 40.0, LARGE_HEAD - 1]])[:, None].expand(2, 2, 3)
    first, second = read_pixels(frames, dataclasses.replace(truth(frames), head=head))
    assert "psnr_head_large" in first
    assert "psnr_head_large" not in second
    people = read_person(
        frames,
        body=torch.full((2, 2, 18, 3), 40.0),
        head=head,
        expression=torch.rand(2, 2, 8),
        judge=Judge(8),
    )
    assert ["expressions_large.smile" in reading for reading in people] == [True, False]
    assert all(reading["expressions.smile"].frames == 2 for reading in people)


def test_joint_error_is_in_percent_of_the_width_whatever_the_aspect() -> None:
    torch.manual_seed(0)
    size, judge = (64, 32), Judge(8).eval()
    video = torch.rand(1, 4, 3, *size)
    head = torch.tensor([16.0, 32.0, 5.0]).expand(1, 4, 3)
    with torch.no_grad():
        _, likely, expression = judge(video[0] * 2 - 1, head[0])
        joints = expected_joints(likely)
    body = torch.ones(1, 4, 18, 3)
    # The joints are where the judge sees them, but for 5 % of a height that is twice the width.
    body[0][:, list(JOINTS), :2] = (joints - torch.tensor([0, 0.05])) * torch.tensor([32.0, 64.0])
    (reading,) = read_person(video, body=body, head=head, expression=1 - 2 * expression[None], judge=judge)
    assert figure([reading["joint_error_pct"]]).value == pytest.approx(10, rel=1e-4)
    assert figure([reading["pck"]]).value == 0, "ten percent of the width is more than five"
    assert reading["expressions.lid"].frames == 4
    correlations = [figure([reading[f"expressions.{name}"]]).value for name in JUDGED_EXPRESSIONS]
    assert correlations == pytest.approx([-1] * 8, abs=1e-3)


def test_akd_leaves_the_judges_own_errors_out() -> None:
    torch.manual_seed(0)
    judge, video = Judge(8).eval(), torch.rand(1, 4, 3, 64, 32)
    known = {"body": torch.full((1, 4, 18, 3), 10.0), "head": torch.full((1, 4, 3), 16.0)}
    known["expression"] = torch.rand(1, 4, 8)
    (same,) = read_person(video, **known, judge=judge, truth=video)
    assert figure([same["joint_error_pct"]]).value > 1, "this judge knows nothing"
    assert figure([same["akd_pct"]]).value == 0
    other = torch.rand(1, 4, 3, 64, 32)
    (apart,) = read_person(video, **known, judge=judge, truth=other)
    with torch.no_grad():
        seen, true = (expected_joints(judge.figure(clip[0] * 2 - 1)[1]) for clip in (video, other))
    expected = 100 * ((seen - true) * torch.tensor([1.0, 2.0])).norm(dim=-1).mean().item()
    assert figure([apart["akd_pct"]]).value == pytest.approx(expected, rel=1e-4)
    (alone,) = read_person(video, **known, judge=judge)
    assert "akd_pct" not in alone


def test_mask_overlap_with_what_the_judge_sees() -> None:
    torch.manual_seed(0)
    judge, video, head = Judge(8).eval(), torch.rand(1, 2, 3, SIDE, SIDE), torch.full((1, 2, 3), 40.0)
    with torch.no_grad():
        seen = (judge(video[0] * 2 - 1, head[0])[0] > 0).float()[None]
    assert 0 < seen.mean() < 1

    def overlap(mask: torch.Tensor) -> float:
        (reading,) = read_person(
            video,
            body=torch.ones(1, 2, 18, 3),
            head=head,
            expression=torch.rand(1, 2, 8),
            judge=judge,
            mask=mask,
        )
        return figure([reading["mask_iou"]]).value

    assert overlap(seen) == pytest.approx(1)
    assert overlap(1 - seen) == 0
    assert overlap(torch.ones_like(seen)) == pytest.approx(seen.mean((2, 3, 4)).mean().item())


def test_a_face_outside_of_the_picture_is_not_read() -> None:
    head = torch.tensor([[[-5.0, 20.0, 30.0], [20.0, 20.0, 30.0]]])
    (reading,) = read_person(
        torch.rand(1, 2, 3, 64, 64), body=torch.zeros(1, 2, 18, 3), head=head, expression=torch.rand(1, 2, 8),
        judge=Judge(8),
    )  # fmt: skip
    assert reading["expressions.smile"].frames == 1
    assert "joint_error_pct" not in reading, "no joint is there"


def test_rendered_clips_are_measured() -> None:
    batch = make_batch(3, 3, frames=3, size=(64, 64), human_share=0.7, still_share=0.0, company_share=0.0,
                       moving_camera_share=0.0, frozen_share=0.0)  # fmt: skip
    known = Truth.of(batch)
    assert not known.travels.any()
    found = values(read_pixels(known.frames, known))
    assert found["scene_motion"] == pytest.approx(1)
    people = known.human
    readings = read_person(
        known.frames[people], body=known.body[people], head=known.head[people],
        expression=known.expression[people], mask=known.mask[people], judge=Judge(8).eval(),
    )  # fmt: skip
    assert len(readings) == people.sum() > 0
    measured = values(readings)
    assert 0 < measured["joint_error_pct"] < 100
    assert 0 <= measured["mask_iou"] <= 1
    assert {f"expressions.{name}" for name in JUDGED_EXPRESSIONS} <= set(measured)


def test_a_moving_camera_is_noticed() -> None:
    batch = make_batch(4, 3, frames=2, size=(32, 32), maps=False, moving_camera_share=1.0)
    assert Truth.of(batch).travels.all()
