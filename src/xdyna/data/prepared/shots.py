"""Shot boundaries: hard cuts, dissolves and fades, found while the frames stream by.

Three small values describe a frame: a thumbnail in Lab, and a colour histogram. A hard cut is a jump of both that
stands out from the jumps around it, and after which the picture does not come back (a flash does). In a dissolve
the middle frame is the mean of one some frames before and one some frames after, which no camera move brings about;
a fade is a dissolve with black or white.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

LEAST_JUMP = 6.0
"""Mean difference of thumbnails, 0 to 255, below which nothing is a cut."""

STANDS_OUT = 3.0
"""How many times the jump must exceed the median of the jumps around it."""

LEAST_COLOUR_CHANGE = 0.18
"""Half the summed difference of the histograms, 0 to 1, below which nothing is a cut."""

LEAST_DISSOLVE = 16.0
"""Mean difference of the two ends of a dissolve."""

MIXED = 0.2
"""How far, as a share of the ends' difference, the middle of a dissolve may be from their mean."""

REACH = 6
"""How many frames to each side are looked at: half of the shortest dissolve that is seen well."""

_SIDE = 32


@dataclass(frozen=True)
class _Look:
    """A frame in small: (32 32 3) float32 Lab thumbnail and (512,) float32 histogram of its colours, sum 1."""

    thumbnail: np.ndarray
    colours: np.ndarray


def find_shots(frames: Iterable[np.ndarray]) -> tuple[list[tuple[int, int]], int]:
    """The shots of a video.

    Args:
        frames: (h w 3) uint8 RGB each; only 13 small descriptions are kept at a time.

    Returns:
        (first, last + 1) of each shot in order, without the frames of dissolves between them; and how many
        frames there were.
    """
    looks: deque[_Look] = deque(maxlen=2 * REACH + 1)
    jumps: list[float] = []
    cuts: list[int] = []
    dissolves: list[int] = []
    count = 0
    for count, frame in enumerate(frames, 1):
        looks.append(_look(frame))
        jumps.append(_distance(looks[-2], looks[-1]) if count > 1 else 0.0)
        del jumps[: -(2 * REACH + 1)]
        _judge(list(looks), jumps, count, cuts, dissolves, middle=len(looks) - 1 - REACH)
    # The frames at the end have fewer after them.
    for late in range(min(REACH, count - 1), 0, -1):
        _judge(list(looks), jumps, count, cuts, dissolves, middle=len(looks) - late)
    return _shots(cuts, dissolves, count), count


def _judge(
    looks: list[_Look],
    jumps: list[float],
    count: int,
    cuts: list[int],
    dissolves: list[int],
    *,
    middle: int,
) -> None:
    """Add what happens at the look number `middle`, if anything, to `cuts` or `dissolves`."""
    if middle < 1:
        return
    number = count - len(looks) + middle
    jump = jumps[middle]
    around = [*jumps[max(1, middle - REACH) : middle], *jumps[middle + 1 : middle + 1 + REACH]]
    usual = float(np.median(around)) if around else 0.0
    before, after = looks[middle - 1], looks[min(middle + 2, len(looks) - 1)]
    if (
        jump >= LEAST_JUMP
        and jump >= STANDS_OUT * usual
        and jump >= max([*around, 0.0]) * 0.999
        and _colour_change(before, looks[middle]) >= LEAST_COLOUR_CHANGE
        and _distance(before, after) >= 0.5 * jump
    ):
        cuts.append(number)
        return
    if len(looks) < 2 * REACH + 1 or middle != REACH:
        return
    first, last, last_place = looks[0], looks[-1], len(looks) - 1
    ends = _distance(first, last)
    if ends < LEAST_DISSOLVE or max(jumps) > 0.5 * ends:
        return  # still, or a hard cut within
    change = last.thumbnail - first.thumbnail
    # Where the mixture stands a quarter, half and three quarters of the way, as far as it keeps the pace.
    errors = [
        float(np.abs(looks[i].thumbnail - first.thumbnail - i / last_place * change).mean())
        for i in (last_place // 4, last_place // 2, last_place - last_place // 4)
    ]
    mixed = errors[1] <= MIXED * ends and max(errors) <= 2 * MIXED * ends
    if mixed and _colour_change(first, last) >= LEAST_COLOUR_CHANGE:
        dissolves.append(number)


def _shots(cuts: list[int], dissolves: list[int], count: int) -> list[tuple[int, int]]:
    gaps = [(cut, cut) for cut in cuts]
    gaps += [(max(0, number - REACH), min(count, number + REACH)) for number in dissolves]
    shots, begin = [], 0
    for low, high in sorted(gaps):
        if low > begin:
            shots.append((begin, low))
        begin = max(begin, high)
    if begin < count:
        shots.append((begin, count))
    return shots


def _look(frame: np.ndarray) -> _Look:
    small = cv2.resize(frame, (2 * _SIDE, 2 * _SIDE), interpolation=cv2.INTER_AREA)
    colours = cv2.calcHist([small], [0, 1, 2], None, [8, 8, 8], [0, 256] * 3).ravel()
    tiny = cv2.resize(small, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(tiny, cv2.COLOR_RGB2LAB).astype(np.float32)
    return _Look(lab, colours / max(float(colours.sum()), 1.0))


def _distance(a: _Look, b: _Look) -> float:
    return float(np.abs(a.thumbnail - b.thumbnail).mean())


def _colour_change(a: _Look, b: _Look) -> float:
    return float(np.abs(a.colours - b.colours).sum() / 2)
