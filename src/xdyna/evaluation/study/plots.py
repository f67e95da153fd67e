"""The plots of an analysis as SVG, written by hand: they need no plotting package and open in every browser."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from xml.sax.saxutils import escape

import numpy as np

from xdyna.evaluation.study.analysis import Analysis, Pair
from xdyna.evaluation.study.questions import HIGHEST, LABELS, LOWEST, OVERALL

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
"""Paul Tol's bright scheme, which colour-blind people can tell apart."""
SIGNIFICANT = 0.05
_INK, _GRID = "#222", "#ddd"


def plot_means(analysis: Analysis) -> str:
    """Bars of Table 3's means with intervals; a dot for every participant's mean."""
    methods = analysis.ratings.methods
    bar = max(12.0, min(34.0, 150.0 / len(methods)))
    left, top, height, gap = 46.0, 20.0, 260.0, 28.0
    width = left + len(analysis.scores) * (len(methods) * bar + gap) + 10
    parts = []

    def y(value: float) -> float:
        return top + height * (1 - (value - LOWEST) / (HIGHEST - LOWEST))

    for tick in range(LOWEST, HIGHEST + 1):
        parts.append(_line(left, y(tick), width - 10, y(tick), _GRID))
        parts.append(_text(left - 8, y(tick) + 4, str(tick), "end"))
    for place, score in enumerate(analysis.scores):
        start = left + gap / 2 + place * (len(methods) * bar + gap)
        for m, cell in enumerate(score.methods):
            x, mean, colour = start + m * bar, cell.of_participants, COLOURS[m % len(COLOURS)]
            if math.isnan(mean.mean):
                continue
            parts.append(
                f'<rect x="{x + 1:.1f}" y="{y(mean.mean):.1f}" width="{bar - 2:.1f}" '
                f'height="{max(0.0, y(LOWEST) - y(mean.mean)):.1f}" fill="{colour}" fill-opacity="0.75"/>'
            )
            parts += _dots(cell.participant_means, x, bar, y, f"{score.key} {cell.method}")
            if not math.isnan(mean.low):
                # an interval of few participants may leave the scale; the plot does not
                low, high = y(max(mean.low, LOWEST)), y(min(mean.high, HIGHEST))
                middle = x + bar / 2
                parts.append(_line(middle, low, middle, high, _INK, 1.6))
                parts += [_line(middle - 4, end, middle + 4, end, _INK, 1.6) for end in (low, high)]
        middle = start + len(methods) * bar / 2
        parts.append(_text(middle, top + height + 18, LABELS[score.key], "middle"))
    parts += _legend(methods, left, top + height + 38)
    level = f"{100 * analysis.confidence:g} %"
    caption = f"Mean of participant means with {level} interval; a dot is one participant"
    parts.append(_text(left, top + height + 44 + 18 * len(methods), caption, size=11))
    return _svg(width, top + height + 56 + 18 * len(methods), parts, "Ratings by method")


def plot_pairs(analysis: Analysis) -> str:
    """Differences between methods within participants, Overall; filled where Holm-corrected p is below 0.05."""
    pairs = analysis.score(OVERALL).pairs
    shown = [pair for pair in pairs if not math.isnan(pair.test.difference)]
    reach = max([0.5, *(abs(end) for pair in shown for end in _ends(pair))])
    name = 12 + 7.6 * max([len(_name(pair)) for pair in shown], default=10)
    plot, row, top = 420.0, 24.0, 34.0
    bottom = top + row * max(len(shown), 1)
    parts = []

    def x(value: float) -> float:
        return name + plot * (value + reach) / (2 * reach)

    for tick in _ticks(reach):
        parts.append(_line(x(tick), top - 6, x(tick), bottom, _INK if tick == 0 else _GRID))
        parts.append(_text(x(tick), bottom + 16, f"{tick:g}", "middle"))
    for place, pair in enumerate(shown):
        y = top + row * (place + 0.5)
        low, high = _ends(pair)
        parts.append(_text(name - 8, y + 4, _name(pair), "end"))
        parts.append(_line(x(low), y, x(high), y, COLOURS[0], 2))
        fill = COLOURS[0] if pair.p_holm < SIGNIFICANT else "#fff"
        parts.append(
            f'<circle cx="{x(pair.test.difference):.1f}" cy="{y:.1f}" r="5" fill="{fill}" '
            f'stroke="{COLOURS[0]}" stroke-width="2"/>'
        )
    level = f"{100 * analysis.confidence:g} %"
    caption = (
        f"Overall: first minus second, {level} interval (not corrected); filled: Holm-corrected p below 0.05"
    )
    parts.append(_text(8, 16, caption, size=11))
    if not shown:
        parts.append(_text(8, top + 16, "No participant rated all methods."))
    return _svg(max(name + plot + 30, 640), bottom + 28, parts, "Differences between methods")


def _ends(pair: Pair) -> tuple[float, float]:
    """An interval as it is drawn: of few participants it may reach beyond what ratings can differ by."""
    test, most = pair.test, float(HIGHEST - LOWEST)
    if math.isnan(test.low):
        return test.difference, test.difference
    return max(test.low, -most), min(test.high, most)


def _name(pair: Pair) -> str:
    return f"{_cut(pair.first)} − {_cut(pair.second)}"


def _cut(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"


def _ticks(reach: float) -> Iterator[float]:
    step = next(step for step in (0.1, 0.25, 0.5, 1.0, 2.0) if reach / step <= 6)
    for number in range(-int(reach / step), int(reach / step) + 1):
        yield number * step


def _dots(values: np.ndarray, x: float, bar: float, y: Callable[[float], float], name: str) -> Iterator[str]:
    """Dots spread sideways in a way that follows from names alone, so that the same data give the same file."""
    for place, value in enumerate(values):
        if not math.isnan(value):
            spread = hashlib.sha256(f"{name} {place}".encode()).digest()[0] / 255
            centre = x + bar * (0.2 + 0.6 * spread)
            yield f'<circle cx="{centre:.1f}" cy="{y(value):.1f}" r="1.8" fill="{_INK}" fill-opacity="0.35"/>'


def _legend(methods: tuple[str, ...], x: float, y: float) -> Iterator[str]:
    for m, method in enumerate(methods):
        colour = COLOURS[m % len(COLOURS)]
        yield f'<rect x="{x:.1f}" y="{y + 18 * m - 9:.1f}" width="12" height="12" fill="{colour}"/>'
        yield _text(x + 18, y + 18 * m + 1, _cut(method))


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1.0) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{colour}" stroke-width="{width:g}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str = "start", *, size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _svg(width: float, height: float, parts: list[str], title: str) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="sans-serif" fill="{_INK}">\n'
        f'<title>{escape(title)}</title>\n<rect width="100%" height="100%" fill="#fff"/>\n{body}\n</svg>\n'
    )
