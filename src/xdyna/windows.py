"""Overlapping windows of a long clip.

The motion modules see a few frames at a time (16 as run, 24 at most), so a longer clip is denoised in
overlapping windows whose predictions are averaged. Two ways to lay them:

* `closed`: the official code's. The clip is a ring: the last window wraps around, so that the clip's last
  and first frames stand side by side in temporal attention (spec.md 9 and 12.12).
* `open`: the windows stay inside the clip; the last one is pulled back to end with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


def context_windows(
    frames: int,
    *,
    size: int = 16,
    overlap: int = 4,
    closed_loop: bool = True,
    offset: int = 0,
    stride: int = 1,
    step: int = 0,
) -> list[list[int]]:
    """Windows exactly as the official `uniform` scheduler lays them (fixture vii).

    Args:
        frames: length of the clip.
        size: frames in a window.
        overlap: frames shared by neighbours.
        closed_loop: as in the official code; `False` drops a last window that would hold nothing new, but
            windows still wrap around. See `open_windows` for windows that do not.
        offset: shift of all windows along the ring. Unused when one window holds the clip.
        stride: number of zoom levels; level k takes every 2^k-th frame. The official run uses 1.
        step: denoising step; shifts the windows by a bit-reversed fraction of the clip. The official run
            always passes 0.

    Returns:
        Lists of frame indices in window order: the order is the temporal position inside the network.
    """
    if frames <= size:
        return [list(range(frames))]
    levels = min(stride, math.ceil(math.log2(frames / size)) + 1)
    fraction = _bit_reversed_fraction(step)
    windows = []
    for level in range(levels):
        spacing = 1 << level
        pad = round(frames * fraction)
        stop = frames + pad - (0 if closed_loop else overlap)
        for start in range(int(fraction * spacing) + pad, stop, size * spacing - overlap):
            windows.append([(start + k * spacing + offset) % frames for k in range(size)])
    return windows


def open_windows(frames: int, *, size: int = 16, overlap: int = 4, offset: int = 0) -> list[list[int]]:
    """Windows that never wrap: the first starts at frame 0, the last ends with the clip.

    `offset` moves the seams between, so that they fall elsewhere at every denoising step.
    """
    if frames <= size:
        return [list(range(frames))]
    hop = size - overlap
    inner = range(hop - offset % hop, frames - size, hop)
    starts = sorted({0, *inner, frames - size})
    return [list(range(start, start + size)) for start in starts]


def step_windows(frames: int, *, size: int, overlap: int, loop: str, offset: int) -> list[list[int]]:
    """The windows of one denoising step, laid as `loop` says ("closed" or "open")."""
    if loop == "closed":
        return context_windows(frames, size=size, overlap=overlap, offset=offset)
    return open_windows(frames, size=size, overlap=overlap, offset=offset)


def runs(places: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Stretches of consecutive numbers: (first index, index after the last, number at the first).

    A window is one of them, or two where the ring closes: so frames are taken and added to by slices. A list as an
    index would have the host wait for all that the GPU was asked to do before.
    """
    begin = 0
    for index in range(1, len(places) + 1):
        if index == len(places) or places[index] != places[index - 1] + 1:
            yield begin, index, places[begin]
            begin = index


@dataclass(frozen=True)
class WindowPlan:
    """How a long clip is cut: frames in a window, frames shared, and what happens at the end."""

    size: int = 16
    overlap: int = 4
    loop: str = "closed"

    def windows(self, frames: int) -> int:
        """How many windows a step of such a clip takes; in an open loop, one more or less with the offset."""
        return len(step_windows(frames, size=self.size, overlap=self.overlap, loop=self.loop, offset=0))


def _bit_reversed_fraction(number: int) -> float:
    """Van der Corput sequence in base 2: 0, 1/2, 1/4, 3/4, 1/8, ..."""
    fraction, bit = 0.0, 0.5
    while number:
        fraction += bit * (number & 1)
        number >>= 1
        bit /= 2
    return fraction
