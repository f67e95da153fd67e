from __future__ import annotations

import pytest
import torch

from xdyna.evaluation.scene_motion import background_motion, flicker


def test_background_motion_ignores_the_person() -> None:
    video = torch.zeros(1, 3, 3, 8, 8)
    video[:, 1, :, :, :4] = 1.0  # flashes in the left half
    mask = torch.zeros(1, 3, 1, 8, 8)
    assert background_motion(video, mask).item() == pytest.approx(255 / 2)
    mask[..., :4] = 1
    assert background_motion(video, mask).item() == 0
    assert background_motion(video, torch.ones_like(mask)).isnan().all()


def test_the_margin_widens_the_person_on_all_sides() -> None:
    mask = torch.zeros(1, 2, 1, 64, 64)
    mask[..., 32, 32] = 1
    video = torch.zeros(1, 2, 3, 64, 64)
    video[:, 1, :, 30:35, 30:35] = 1  # within two pixels of the person
    assert background_motion(video, mask).item() > 0
    assert background_motion(video, mask, margin=2 / 64).item() == 0
    video[:, 1, :, 32, 35] = 1
    assert background_motion(video, mask, margin=2 / 64).item() == pytest.approx(255 / (64 * 64 - 25))


def test_steady_change_is_no_flicker() -> None:
    time = torch.arange(5.0).view(1, 5, 1, 1, 1)
    everywhere = torch.ones(1, 5, 1, 4, 4)
    assert flicker((0.1 * time).expand(1, 5, 3, 4, 4), everywhere).item() == pytest.approx(0, abs=1e-4)
    to_and_fro = (0.1 * (time % 2)).expand(1, 5, 3, 4, 4)
    assert flicker(to_and_fro, everywhere).item() == pytest.approx(25.5, rel=1e-4)
    assert flicker(to_and_fro[:, :2], everywhere[:, :2]).isnan().all()
