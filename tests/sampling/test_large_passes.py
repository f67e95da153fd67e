"""Passes in pieces and what is stored between windows: the numbers stay, the memory is bounded."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from tests.sampling.test_loop import FRAMES, SIDE, conditions, networks, run
from tests.tiny import tiny_components
from xdyna.sampling import ControlResiduals, Controls, Tokens, predict
from xdyna.sampling import controls as signals
from xdyna.sampling.controls import share_text
from xdyna.windows import step_windows


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    return tiny_components()


def test_halves_and_frames_in_pieces_give_the_same(parts: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"guidance": 3.0, "negative": Tokens()}
    together = run(parts, **settings)
    calls: list[int] = []
    hooks = [
        parts[name].register_forward_pre_hook(
            lambda _, given, named: calls.append(len(given[0])), with_kwargs=True
        )
        for name in ("unet", "pose_controlnet", "face_controlnet")
    ]
    for bound in ("PIXELS_AT_ONCE", "CONTROLLED_AT_ONCE"):
        monkeypatch.setattr(signals, bound, 2 * SIDE * SIDE)
    apart = run(parts, **settings)
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(apart, together, atol=1e-4, rtol=1e-4)
    assert max(calls) == 2  # two frames of a ControlNet, one half of the denoiser


def test_one_residual_serves_both_halves(parts: dict) -> None:
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(1, 4, 4, SIDE, SIDE, generator=generator)
    given = {"latents": latents, "reference": latents[:, :, 0], "timestep": torch.tensor(500)}
    with torch.inference_mode():
        kept = ControlResiduals(
            networks(parts), Controls(conditions(3)[1]), latents, torch.tensor(500), [Tokens()] * 2,
            [[0, 1, 2, 3]],
        )  # fmt: skip
        down, mid = kept.of_window(0)
        assert mid.shape[0] == 1
        doubled = [torch.cat([value] * 2) for value in (*down, mid)]
        halves = {"halves": [Tokens()] * 2, **given}
        one = predict(parts["unet"], down_residuals=[v.clone() for v in down], mid_residual=mid, **halves)
        two = predict(parts["unet"], down_residuals=doubled[:-1], mid_residual=doubled[-1], **halves)
    torch.testing.assert_close(one, two)


def test_texts_that_are_equal_become_one() -> None:
    mine, same, other = torch.zeros(1, 7, 3), torch.zeros(1, 7, 3), torch.ones(1, 7, 3)
    first, second = share_text([Tokens(text=mine), Tokens(text=same)])
    assert first.text is second.text
    first, second = share_text([Tokens(text=mine), Tokens(text=other)])
    assert first.text is not second.text


def most_stored(parts: dict, frames: int) -> int:
    """Bytes that residuals of a step take between windows, at most."""
    latents = torch.randn(1, 4, frames, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    windows = step_windows(frames, size=4, overlap=1, loop="closed", offset=2)

    def source(indices: Any) -> torch.Tensor:
        return torch.zeros(1, len(indices), 3, 8 * SIDE, 8 * SIDE)

    kept = ControlResiduals(
        networks(parts), Controls(pose=source), latents, torch.tensor(500), [Tokens()] * 2, windows
    )
    stored = []
    with torch.inference_mode():
        for number in range(len(windows)):
            kept.of_window(number)
            stored.append(kept.stored())
    assert stored[-1] == 0
    return max(stored)


def test_what_is_stored_does_not_grow_with_the_clip(parts: dict) -> None:
    assert 0 < most_stored(parts, 24) == most_stored(parts, 48)
    # two frames: one shared with the next window, one of the first window that the last comes back to
    down, mid = networks(parts).pose_controlnet(
        torch.zeros(1, 4, SIDE, SIDE), 1, None, torch.zeros(1, 3, 8 * SIDE, 8 * SIDE), return_dict=False
    )
    frame = sum(value.numel() * 4 for value in (*down, mid))
    assert most_stored(parts, 48) == 2 * frame
    assert most_stored(parts, FRAMES) == 4 * frame  # of seven frames the last window comes back to three


def test_residuals_that_wait_elsewhere_are_the_same_and_come_back(
    parts: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = torch.randn(1, 4, FRAMES, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    windows = step_windows(FRAMES, size=4, overlap=1, loop="closed", offset=2)
    moves: list[torch.device] = []
    original = torch.Tensor.to

    def to(self: torch.Tensor, *given: Any, **named: Any) -> torch.Tensor:
        moves.extend(one for one in given if one == torch.device("cpu"))
        return original(self, *given, **named)

    def residuals(store: torch.device | None) -> list[torch.Tensor]:
        kept = ControlResiduals(
            dataclasses.replace(networks(parts), store=store), Controls(conditions(3)[1]), latents,
            torch.tensor(500), [Tokens()] * 2, windows,
        )  # fmt: skip
        with torch.inference_mode():
            made = [kept.of_window(number) for number in range(len(windows))]
        return [value for down, mid in made for value in (*down, mid)]

    here = residuals(None)
    monkeypatch.setattr(torch.Tensor, "to", to)
    there = residuals(torch.device("cpu"))
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))
    assert len(moves) > len(windows)
