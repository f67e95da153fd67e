from __future__ import annotations

from pathlib import Path

import pytest
import torch

from xdyna.data.synthetic import EXPRESSIONS
from xdyna.errors import InputError
from xdyna.evaluation.judge import (
    HEAD_SIDE,
    JOINTS,
    JUDGED_EXPRESSIONS,
    Judge,
    expected_joints,
    head_crops,
    joint_targets,
    judge_loss,
    visible_joints,
)


def test_the_judge_reads_the_expressions_that_are_rendered() -> None:
    assert tuple(EXPRESSIONS) == JUDGED_EXPRESSIONS


@pytest.mark.parametrize("size", [(128, 128), (96, 64)])
def test_shapes_do_not_depend_on_the_pictures_size(size: tuple[int, int]) -> None:
    mask, places, expression = Judge(16)(
        torch.rand(2, 3, *size) * 2 - 1, torch.tensor([[30.0, 30.0, 9.0]] * 2)
    )
    assert mask.shape == (2, 1, 128, 128)
    joints = expected_joints(places)
    assert joints.shape == (2, len(JOINTS), 2)
    assert expression.shape == (2, 8)
    assert ((joints > 0) & (joints < 1)).all()


def test_head_crops_are_centred_on_the_head() -> None:
    pictures = torch.zeros(1, 3, 64, 96)
    pictures[..., 18:22, 58:62] = 1  # centre at x 60, y 20
    crop = head_crops(pictures, torch.tensor([[60.0, 20.0, 8.0]]))
    assert crop.shape == (1, 3, HEAD_SIDE, HEAD_SIDE)
    line = torch.arange(HEAD_SIDE, dtype=torch.float32)
    weight = crop[0, 0] / crop[0, 0].sum()
    middle = (HEAD_SIDE - 1) / 2
    assert abs((weight.sum(0) @ line).item() - middle) < 0.5
    assert abs((weight.sum(1) @ line).item() - middle) < 0.5


def test_only_joints_inside_the_picture_count() -> None:
    body = torch.zeros(1, 18, 3)
    body[..., :2], body[..., 2] = 20.0, 1.0
    body[0, 2] = torch.tensor([200.0, 20.0, 1.0])
    body[0, 3, 2] = 0
    places, seen = visible_joints(body, (40, 80))
    assert places[0, 0].tolist() == [0.25, 0.5]
    assert seen[0].tolist() == [1, 0, 0] + [1] * 10


def test_the_expected_place_of_a_target_is_the_joint() -> None:
    joints = torch.tensor([[[0.3, 0.61], [0.5, 0.25]]])
    target = joint_targets(joints)
    assert target.shape == (1, 2, 32, 32)
    torch.testing.assert_close(target.sum((2, 3)), torch.ones(1, 2))
    torch.testing.assert_close(expected_joints(target.log()), joints, atol=1e-3, rtol=0)


def test_people_teach_joints_and_faces_scenes_only_the_mask() -> None:
    judge = Judge(8)
    arguments = {
        "mask": torch.zeros(2, 1, 64, 64),
        "body": torch.full((2, 18, 3), 32.0),
        "head": torch.tensor([[32.0, 32.0, 8.0]] * 2),
        "expression": torch.ones(2, 8),
    }
    pictures = torch.rand(2, 3, 64, 64)
    people = judge_loss(judge, pictures, **arguments, human=torch.tensor([True, True]))
    scenes = judge_loss(judge, pictures, **arguments, human=torch.tensor([False, False]))
    assert people["joints"] > 0
    assert people["expression"] > 0
    assert scenes["joints"] == 0
    assert scenes["expression"] == 0
    assert scenes["mask"] > 0


def test_a_judge_learns_where_a_square_is() -> None:
    torch.manual_seed(0)
    judge = Judge(16)
    optimiser = torch.optim.AdamW(judge.parameters(), lr=5e-3)
    losses = []
    for _ in range(30):
        place = torch.rand(4, 2) * 80 + 24
        pictures = -torch.ones(4, 3, 128, 128)
        for picture, (x, y) in zip(pictures, place.int().tolist(), strict=True):
            picture[:, y - 8 : y + 8, x - 8 : x + 8] = 1
        body = torch.cat([place[:, None].expand(4, 18, 2), torch.ones(4, 18, 1)], -1)
        loss = judge_loss(
            judge, pictures, mask=(pictures[:, :1] + 1) / 2, body=body,
            head=torch.cat([place, torch.full((4, 1), 10.0)], 1), expression=torch.zeros(4, 8),
            human=torch.ones(4, dtype=torch.bool),
        )  # fmt: skip
        optimiser.zero_grad()
        loss["loss"].backward()
        optimiser.step()
        losses.append(loss["joints"].item())
    assert sum(losses[-5:]) / 5 < 0.08
    assert sum(losses[-5:]) < 0.3 * sum(losses[:5])


def test_a_saved_judge_reads_the_same(tmp_path: Path) -> None:
    judge = Judge(8).eval()
    judge.save(tmp_path / "judge.safetensors")
    loaded = Judge.load(tmp_path / "judge.safetensors")
    pictures, head = torch.rand(1, 3, 64, 64), torch.tensor([[30.0, 30.0, 9.0]])
    for first, second in zip(judge(pictures, head), loaded(pictures, head), strict=True):
        torch.testing.assert_close(first, second, atol=6e-2, rtol=6e-2)


def test_the_largest_judge_stays_below_two_mebibytes(tmp_path: Path) -> None:
    Judge(96).save(tmp_path / "judge.safetensors")
    assert (tmp_path / "judge.safetensors").stat().st_size < 2 * 2**20


def test_a_file_that_is_no_judge_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "judge.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"judge\.safetensors"):
        Judge.load(tmp_path / "judge.safetensors")
    with pytest.raises(InputError, match="absent"):
        Judge.load(tmp_path / "absent")
