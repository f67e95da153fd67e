from __future__ import annotations

import cv2
import numpy as np
import pytest

from xdyna.data.prepared.shots import find_shots


def scene(seed: int, frames: int = 30) -> np.ndarray:
    """Blobs of colour, filmed by a camera that pans a little, with a block that moves across."""
    draws = np.random.default_rng(seed)
    base = draws.integers(20, 235, 3)
    wide = np.clip(base + draws.normal(0, 45, (7, 14, 3)), 0, 255).astype(np.uint8)
    wide = cv2.resize(wide, (140, 48), interpolation=cv2.INTER_CUBIC)
    clip = np.stack([wide[:, i // 4 : i // 4 + 64] for i in range(frames)])
    for index, frame in enumerate(clip):
        frame[20:30, 2 * index % 54 : 2 * index % 54 + 10] = 255 - base
    return clip


FIRST, SECOND = scene(0), scene(1)


def shots(*parts: np.ndarray) -> list[tuple[int, int]]:
    frames = np.concatenate(parts)
    found, count = find_shots(iter(frames))
    assert count == len(frames)
    return found


def mixed(count: int) -> np.ndarray:
    share = np.linspace(0, 1, count)[:, None, None, None]
    return ((1 - share) * FIRST[10 : 10 + count] + share * SECOND[:count]).astype(np.uint8)


@pytest.mark.parametrize("at", [1, 2, 5, 13, 28])
def test_a_hard_cut_is_found_to_the_frame(at: int) -> None:
    assert shots(FIRST[:at], SECOND[:20]) == [(0, at), (at, at + 20)]


@pytest.mark.parametrize("left", [1, 3, 7])
def test_a_cut_near_the_end_is_found(left: int) -> None:
    assert shots(FIRST[:20], SECOND[:left]) == [(0, 20), (20, 20 + left)]


def test_one_shot_is_one_shot() -> None:
    for frames in (FIRST, FIRST[:1], FIRST[:2], np.repeat(FIRST[:1], 20, 0)):
        assert shots(frames) == [(0, len(frames))]


def test_camera_moves_and_flashes_are_no_cuts() -> None:
    wide = np.concatenate([FIRST[0], FIRST[0][:, ::-1], FIRST[0] // 2 + 40], 1)
    pan = np.stack([wide[:, 3 * i : 3 * i + 64] for i in range(40)])
    assert shots(pan) == [(0, 40)]
    flash = FIRST.copy()
    flash[12] = 255 - (255 - flash[12]) // 5
    assert shots(flash) == [(0, 30)]


@pytest.mark.parametrize("length", [8, 12, 18])
def test_frames_of_a_dissolve_belong_to_no_shot(length: int) -> None:
    found = shots(FIRST[:18], mixed(length), SECOND[length:])
    assert len(found) == 2
    assert found[0][1] <= 18 + 2
    assert found[1][0] >= 18 + length - 3


def test_a_fade_through_black_ends_a_shot() -> None:
    share = np.linspace(1, 0, 12)[:, None, None, None]
    fade = (FIRST[18:30] * share).astype(np.uint8)
    found = shots(FIRST[:18], fade, np.zeros_like(fade), SECOND)
    assert found[0][1] <= 20
    assert found[-1] == (42, 72)


def test_no_frames() -> None:
    assert find_shots(iter([])) == ([], 0)
