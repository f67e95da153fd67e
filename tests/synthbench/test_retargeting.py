from __future__ import annotations

import dataclasses

import numpy as np
import torch

from xdyna.conditions.keypoints import PARTS
from xdyna.synthbench.cases import case_params, people_of, render_params
from xdyna.synthbench.retargeting import carried_heads, retargeted


def test_somebody_driven_by_themselves_is_where_they_were() -> None:
    case = people_of(8, frames=3)[1]
    batch = render_params(case_params([case], frames=3), size=(96, 96), device="cpu")
    # With the first driven frame as its reference, retargeting has nothing to change.
    batch.frames[:, 0], batch.head[:, 0] = batch.frames[:, 1], batch.head[:, 1]
    for name in PARTS:
        getattr(batch, name)[:, 0] = getattr(batch, name)[:, 1]
    driven = retargeted(batch, batch, [case])
    seen = (batch.body[:, 1:, :14, 2] > 0) & (driven.body[:, :, :14, 2] > 0)
    gap = (driven.body[:, :, :14, :2] - batch.body[:, 1:, :14, :2]).norm(dim=-1)
    assert seen.any()
    assert gap[seen].max() < 0.12 * 96
    assert gap[seen].mean() < 0.03 * 96
    assert (driven.job.pose - batch.pose[:, 1:]).abs().mean() < 0.02
    torch.testing.assert_close(driven.expression, batch.expression[:, 1:])
    assert (driven.head[..., 2] / batch.head[:, 1:, 2] - 1).abs().max() < 0.1


def test_a_driver_of_another_size_is_brought_to_the_references() -> None:
    batch = render_params(case_params([5], frames=3), size=(96, 96), device="cpu")
    small = dataclasses.replace(batch)
    for name in PARTS:
        points = getattr(batch, name).clone()
        points[..., :2] = points[..., :2] * 0.5 + torch.tensor([30.0, 8.0])
        setattr(small, name, points)
    plain, shrunk = retargeted(batch, batch, [5]), retargeted(batch, small, [5])
    seen = (plain.body[..., :14, 2] > 0) & (shrunk.body[..., :14, 2] > 0)
    gap = (plain.body[..., :14, :2] - shrunk.body[..., :14, :2]).norm(dim=-1)
    assert gap[seen].max() < 2, "half the size and elsewhere, yet the same on the reference"


def test_heads_move_with_their_faces() -> None:
    matrix = np.array([[[2.0, 0, 5], [0, 2, -3]]])
    assert carried_heads(np.array([[10.0, 20, 4]]), matrix).tolist() == [[25, 37, 8]]
