from __future__ import annotations

import pytest
import torch

from xdyna.data.synthetic import HELD_OUT_SEED, make_batch
from xdyna.synthbench.cases import (
    CHUNK,
    HUMAN_SHARE,
    STILL_SHARE,
    case_params,
    driver_of,
    moved_like,
    people_of,
    render_params,
)
from xdyna.synthbench.options import FROZEN_CASES

SIZE = (64, 64)


def test_cases_are_those_of_the_world_whatever_their_number() -> None:
    batch = make_batch(HELD_OUT_SEED + 1, CHUNK, frames=2, size=(32, 32), human_share=HUMAN_SHARE,
                       still_share=STILL_SHARE)  # fmt: skip
    picked = render_params(case_params([0, CHUNK + 3], frames=2), size=(32, 32), device="cpu")
    torch.testing.assert_close(picked.frames[1], batch.frames[3])
    torch.testing.assert_close(picked.body[1], batch.body[3])
    assert people_of(6, frames=2) == [c for c in range(6) if c in people_of(16, frames=2)]


def test_another_ones_motion_moves_a_person_where_they_stand() -> None:
    own, theirs = (case_params([case], frames=2) for case in (4, 5))
    swapped = moved_like(own, theirs)
    assert torch.equal(swapped.motion["framing"], own.motion["framing"])
    assert torch.equal(swapped.motion["phase"], theirs.motion["phase"])
    before, after = (
        render_params(params, size=SIZE, device="cpu", landmarks=False) for params in (own, swapped)
    )
    assert not torch.equal(before.expression, after.expression)
    assert torch.equal(before.scene, after.scene)


PEOPLE = [
    0, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 21, 22, 23, 24, 25, 27, 28, 29, 31, 32, 33, 34, 35, 36,
    38, 39, 40, 41, 42, 43, 44, 45, 47, 49,
]  # fmt: skip
STILL = [0, 4, 6, 7, 8, 10, 11, 13, 14, 15, 16, 18, 19, 25, 28, 35, 36, 38, 42]
KINDS = [
    13, 15, 26, 2, 0, 14, 13, 13, 13, 9, 13, 10, 14, 10, 13, 11, 12, 25, 12, 4, 19, 16, 26, 19, 27, 0, 21, 23, 13, 4,
    19, 14, 16, 16, 10, 0, 0, 30, 0, 0, 7, 10, 13, 14, 3, 1, 23, 5, 26, 6,
]  # fmt: skip


def test_the_frozen_cases_are_those_of_before() -> None:
    """Published figures stand on these; whoever changes them must raise `run.EDITION`, too."""
    params = case_params(range(FROZEN_CASES), frames=16)
    assert people_of(frames=16) == PEOPLE
    assert params.scene.still().nonzero().flatten().tolist() == STILL
    assert params.scene.kind.tolist() == KINDS
    assert not params.modelled["here"].any()
    means = [params.times, params.motion["fill"], params.identity["head_height"], params.scene.knobs]
    assert [value.double().mean().item() for value in means] == pytest.approx(
        [9.4967906, 0.5347419, 0.1544404, 0.5003743], abs=1e-5
    )


def test_the_frozen_cases_look_as_before() -> None:
    batch = render_params(case_params([0, 1, 4], frames=16), size=SIZE, device="cpu")
    frames = batch.frames.double()
    assert frames.mean((1, 2, 3, 4)).tolist() == pytest.approx([0.4358, 0.53357, 0.5201], abs=1e-3)
    assert frames.std((1, 2, 3, 4)).tolist() == pytest.approx([0.26466, 0.20624, 0.15944], abs=1e-3)


def test_modelled_people_change_nothing_else() -> None:
    drawn, modelled = (case_params([4], frames=2, modelled_share=share) for share in (0.0, 1.0))
    assert torch.equal(drawn.scene.knobs, modelled.scene.knobs)
    assert torch.equal(drawn.motion["phase"], modelled.motion["phase"])
    first, second = (render_params(params, size=SIZE, device="cpu") for params in (drawn, modelled))
    assert not torch.equal(first.frames, second.frames)
    assert second.modelled.tolist() == [True]


def test_who_drives_whom_depends_on_nothing() -> None:
    people = people_of(frames=16)
    drivers = [driver_of(case, people) for case in people]
    assert sorted(drivers) == people
    assert drivers[-1] == people[0]
    assert all(driver != case for driver, case in zip(drivers, people, strict=True))
