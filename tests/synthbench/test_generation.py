from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from xdyna.conditions.keypoints import PARTS, Keypoints
from xdyna.options import AnimateOptions
from xdyna.pipeline import XDynaPipeline
from xdyna.sampling import still
from xdyna.synthbench.cases import (
    Job,
    case_params,
    keypoints_of,
    own_job,
    people_of,
    render_params,
    to_bytes,
)
from xdyna.synthbench.closer import closer
from xdyna.synthbench.generation import Animator, Strengths
from xdyna.synthbench.retargeting import retargeted

SIZE = (64, 64)


@pytest.fixture(scope="module")
def job() -> Job:
    batch = render_params(case_params([4, 5], frames=3), size=SIZE, device="cpu")
    return own_job(batch, [4, 5])


def test_a_case_gives_the_same_clip_alone_and_among_others(pipeline: XDynaPipeline, job: Job) -> None:
    animator = Animator(pipeline)
    both = animator(job)
    assert both.shape == (2, 3, 3, *SIZE)
    alone = animator(Job(**{name: None if part is None else part[1:] for name, part in vars(job).items()}))
    assert (both[1] - alone[0]).abs().max() <= 1 / 255 + 1e-6
    assert animator.clips == 3
    assert animator.seconds > 0


@pytest.mark.parametrize("hold", [False, True])
def test_a_case_gives_what_the_product_gives(
    pipeline: XDynaPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hold: bool
) -> None:
    """The pipeline, fed the case's own picture, video and keypoints, makes the clip that is measured."""
    if hold:
        # an untrained model's clip is nowhere near the picture
        monkeypatch.setattr(still, "STILL", 1e3)
        monkeypatch.setattr(still, "ALIVE", 2e3)
    cases = people_of(8, frames=3)[:2]
    own, theirs = (render_params(case_params([case], frames=3), size=SIZE, device="cpu") for case in cases)
    driven = retargeted(own, theirs, cases[:1])
    measured = Animator(pipeline, hold_still=hold)(driven.job)[0]
    if hold:
        assert (measured - Animator(pipeline)(driven.job)[0]).abs().mean() > 2 / 255
    for name, batch, frames in (("driver", theirs, slice(1, None)), ("reference", own, slice(0, 1))):
        points = {part: getattr(batch, part)[0, frames].numpy() for part in PARTS}
        Keypoints(**points, size=SIZE).save(tmp_path / f"{name}.npz")
    options = AnimateOptions(
        model="tiny", detector="given", keypoints=str(tmp_path / "driver.npz"), seed=cases[0],
        reference_keypoints=str(tmp_path / "reference.npz"), size="64x64", hold_still=hold,
    )  # fmt: skip
    output = pipeline(to_bytes(own.frames[0, :1])[0], to_bytes(theirs.frames[0, 1:]), options=options)
    gap = np.abs(output.frames.astype(int) - to_bytes(measured).astype(int))
    assert gap.max() <= 1


def test_small_heads_are_made_again_as_the_product_makes_them(
    pipeline: XDynaPipeline, tmp_path: Path
) -> None:
    case, other = people_of(20, frames=2)[:2]
    size = (128, 128)
    own, theirs = (render_params(case_params([n], frames=2), size=size, device="cpu") for n in (case, other))
    job = retargeted(own, theirs, [case]).job
    side = pipeline.preset.height
    near = closer(job, side=side)
    assert near is not None
    assert near.rows == [0]
    plain, refined = (Animator(pipeline, steps=1, refine_face=refine)(job) for refine in (False, True))
    assert torch.equal(plain, Animator(pipeline, steps=1)(job)), "the model's own choice"
    x, y, half = near.paths[0].heads[0].tolist()
    down, across = torch.meshgrid(torch.arange(128) + 0.5, torch.arange(128) + 0.5, indexing="ij")
    away = ((across - x) ** 2 + (down - y) ** 2).sqrt() / half
    changed = (plain - refined)[0, 0].abs().amax(0)
    assert changed[away < 1].mean() > 4 / 255
    assert not changed[away > 1.75].any()
    for name, batch, frames in (("driver", theirs, slice(1, None)), ("reference", own, slice(0, 1))):
        keypoints_of(batch, 0, frames).save(tmp_path / f"{name}.npz")
    options = AnimateOptions(
        model="tiny", detector="given", keypoints=str(tmp_path / "driver.npz"), seed=case, steps=1, size="128x128",
        reference_keypoints=str(tmp_path / "reference.npz"), refine_face=True,
    )  # fmt: skip
    pictures = to_bytes(own.frames[0, :1])[0], to_bytes(theirs.frames[0, 1:])
    prepared = pipeline.prepare(*pictures, options)
    assert prepared.close_up is not None
    with prepared.conditions:
        # but for the driver's face, which the product cuts from sharper pixels
        assert (prepared.close_up.conditions.pose([0, 1]) == to_bytes(near.job.pose[0])).all()
        assert np.abs(prepared.close_up.reference.astype(int) - to_bytes(near.job.reference)[0]).max() <= 1
        faces = prepared.close_up.conditions.face_global([0])[0].astype(int)
        assert np.abs(faces - to_bytes(near.job.face[:, 0, 3:])[0]).mean() < 6


def test_energy_reaches_the_network(pipeline: XDynaPipeline, job: Job) -> None:
    animator = Animator(pipeline)
    still, lively = animator(job, energy=0.0), animator(job, energy=17.0)
    assert not torch.equal(still, lively)
    each = animator(job, energy=torch.tensor([0.0, 17.0]))
    assert (each[0] - still[0]).abs().max() <= 1 / 255 + 1e-6
    assert (each[1] - lively[1]).abs().max() <= 1 / 255 + 1e-6


def test_the_knob_sets_energy_and_start_noise(pipeline: XDynaPipeline, job: Job) -> None:
    animator, preset = Animator(pipeline, steps=1), pipeline.preset
    torch.testing.assert_close(animator(job, motion=1.0), animator(job, energy=preset.energy(1)))
    still, noisy = animator(job, motion=0.0), animator(job, energy=0.0)
    assert (still.diff(dim=1).abs().mean() < 0.5 * noisy.diff(dim=1).abs().mean()).item()


@pytest.mark.parametrize("part", ["pose", "face", "reference"])
def test_a_part_is_left_out_as_the_product_leaves_it_out(
    pipeline: XDynaPipeline, job: Job, part: str
) -> None:
    animator = Animator(pipeline)
    without = animator(job, strengths=Strengths(**{part: 0.0}))
    assert not torch.equal(without, animator(job))
    if part != "reference":
        # what is left out cannot matter
        other = {"pose": torch.zeros_like(job.pose), "face": torch.zeros_like(job.face)}[part]
        swapped = dataclasses.replace(job, **{part: other})
        assert torch.equal(without, animator(swapped, strengths=Strengths(**{part: 0.0})))
