from __future__ import annotations

import pytest

from xdyna.windows import WindowPlan, context_windows, open_windows, step_windows


@pytest.mark.parametrize("frames", [1, 15, 16])
def test_a_short_clip_is_one_window(frames: int) -> None:
    assert context_windows(frames, offset=7) == [list(range(frames))] == open_windows(frames, offset=7)


def test_closed_windows_wrap_around() -> None:
    windows = context_windows(20, offset=1)
    assert windows[0] == list(range(1, 17))
    assert windows[1] == [*range(13, 20), *range(9)]


def test_official_window_count() -> None:
    assert len(context_windows(192, offset=3)) == 16


@pytest.mark.parametrize("loop", ["closed", "open"])
@pytest.mark.parametrize("frames", [17, 29, 50, 97])
@pytest.mark.parametrize("offset", [0, 5, 15])
def test_every_frame_is_covered(loop: str, frames: int, offset: int) -> None:
    windows = step_windows(frames, size=16, overlap=4, loop=loop, offset=offset)
    assert {frame for window in windows for frame in window} == set(range(frames))
    assert all(len(window) == 16 for window in windows)


@pytest.mark.parametrize("offset", range(12))
def test_open_windows_never_wrap_and_overlap(offset: int) -> None:
    windows = open_windows(61, offset=offset)
    assert all(window == list(range(window[0], window[0] + 16)) for window in windows)
    for left, right in zip(windows, windows[1:], strict=False):
        assert left[-1] - right[0] + 1 >= 4
    assert windows[0][0] == 0
    assert windows[-1][-1] == 60


def test_open_seams_move_with_the_offset() -> None:
    seams = {tuple(window[0] for window in open_windows(61, offset=offset)) for offset in range(12)}
    assert len(seams) > 6


@pytest.mark.parametrize(
    ("loop", "frames", "windows"), [("closed", 192, 16), ("closed", 16, 1), ("open", 28, 2)]
)
def test_a_plan_counts_its_windows(loop: str, frames: int, windows: int) -> None:
    assert WindowPlan(loop=loop).windows(frames) == windows
