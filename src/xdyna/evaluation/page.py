"""A page of a report: values with intervals, every clip's values, curves over time, the worst frames with pictures.

One HTML file without scripts; pictures of the worst frames lie beside it in `worst/`. All text from outside is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from xdyna import media
from xdyna.evaluation.metrics import METRICS, SUITES, split_name, title_of
from xdyna.evaluation.pairs import Pair
from xdyna.media.files import whole_file, write_failure

WORST = 6
"""Frames that are shown."""
WORST_BY = ("psnr", "l1_disco", "joint_error_pct")
"""The metric that says which are worst: the first of these that the report has a curve of."""
BARS = 80
"""Clips that a plot has room for; of more, those at the ends."""

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:.5em 0}td,th{border-bottom:1px solid #ddd;padding:.25em .8em;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}svg{background:#fafafa;border:1px solid #eee}
figure{display:inline-block;margin:.5em;vertical-align:top}figcaption{font-size:12px;color:#555}img{max-width:300px}
.grey{color:#777}
"""


def write_page(
    report: Mapping[str, Any], folder: Path, pairs: Sequence[Pair], unavailable: Mapping[str, Sequence[str]]
) -> None:
    """Write report.html and worst/*.png.

    Args:
        report: as in report.json.
        folder: where it goes.
        pairs: the clips, for the pictures.
        unavailable: titles of metrics by what they lack.
    """
    about = report["about"]
    body = [
        f"<h1>{escape(report['name'])}</h1>",
        f"<p>{about['clips']} clips, {about['frames']} frames, {escape(', '.join(about['sizes']))}. "
        f"{escape(about['made'])}, xdyna {escape(about['versions']['xdyna'])}. Values with bootstrap intervals of "
        "95 % over clips.</p>",
        "".join(f"<p class=grey>{escape(n)}: {escape(str(t))}</p>" for n, t in about["protocol"].items()),
    ]
    for suite in SUITES:
        names = [n for n in report["metrics"] if (split_name(n)[0] or METRICS["mae"]).suite == suite]
        if names:
            body.append(f"<h2>{escape(suite)}</h2>" + _table(names, report["metrics"]))
            body += [_per_clip(name, report["clips"]) for name in names]
    if unavailable:
        rows = "".join(
            f"<tr><td>{escape(', '.join(titles))}</td><td>{escape(why)}</td></tr>"
            for why, titles in unavailable.items()
        )
        body.append(f"<h2>not measured</h2><table>{rows}</table>")
    body.append(_curves(report["clips"]))
    body.append(_worst(report, folder, {pair.name: pair for pair in pairs}))
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width'>"
        f"<title>{escape(report['name'])}</title><style>{_STYLE}</style>{''.join(body)}</html>\n"
    )
    with whole_file(folder / "report.html", overwrite=True) as place:
        place.write_text(page, encoding="utf-8")


def _table(names: Sequence[str], metrics: Mapping[str, Any]) -> str:
    rows = []
    for name in names:
        found, (metric, _) = metrics[name], split_name(name)
        arrow = {"more": "&uarr;", "less": "&darr;", "one": "&rarr; 1"}[metric.better] if metric else ""
        low, high = found["low"], found["high"]
        span = "" if low is None else f"{low:.4g} &ndash; {high:.4g}"
        value = "&ndash;" if found["value"] is None else f"{found['value']:.4g}"
        tip = escape(metric.about) if metric else ""
        rows.append(
            f"<tr title='{tip}'><td>{escape(title_of(name))} {arrow}</td><td class=n>{value}</td>"
            f"<td class=n>{span}</td>"
            f"<td class=grey>{escape(metric.unit) if metric else ''}</td></tr>"
        )
    return "<table>" + "".join(rows) + "</table>"


def _per_clip(name: str, clips: Mapping[str, Any]) -> str:
    """A bar for every clip, in order of the value."""
    values = sorted(
        ((c["values"][name], clip) for clip, c in clips.items() if c["values"].get(name) is not None),
        reverse=True,
    )
    if len(values) < 2:
        return ""
    left = f", the {BARS // 2} at each end of {len(values)}" if len(values) > BARS else ""
    shown = values if len(values) <= BARS else [*values[: BARS // 2], *values[-BARS // 2 :]]
    top = max(max(v for v, _ in shown), 0.0)
    low = min(min(v for v, _ in shown), 0.0)
    scale, width, height = (top - low) or 1.0, 12, 90
    bars = []
    for place, (value, clip) in enumerate(shown):
        y0, y1 = sorted((height * (top - max(value, 0)) / scale, height * (top - min(value, 0)) / scale))
        bars.append(
            f"<rect x='{place * width + 1}' y='{y0:.1f}' width='{width - 2}' height='{max(y1 - y0, 0.5):.1f}' "
            f"fill='#4a7db5'><title>{escape(clip)}: {value:.4g}</title></rect>"
        )
    return (
        f"<details><summary>{escape(title_of(name))}: every clip{left}</summary>"
        f"<svg width='{len(shown) * width}' height='{height}'>{''.join(bars)}</svg></details>"
    )


def _curves(clips: Mapping[str, Any]) -> str:
    """Every metric of frames over time: the mean of all clips, and each clip's own line."""
    names: dict[str, list[tuple[str, list[float | None]]]] = {}
    for clip, found in clips.items():
        for name, curve in found["curves"].items():
            if ":" not in name and sum(v is not None for v in curve) > 1:
                names.setdefault(name, []).append((clip, curve))
    if not names:
        return ""
    plots = "".join(f"<h3>{escape(title_of(name))}</h3>{_plot(lines)}" for name, lines in names.items())
    return f"<h2>over time</h2>{plots}"


def _plot(lines: Sequence[tuple[str, Sequence[float | None]]]) -> str:
    width, height, pad = 640, 160, 34
    longest = max(len(curve) for _, curve in lines)
    table = np.full((len(lines), longest), np.nan)
    for row, (_, curve) in enumerate(lines):
        table[row, : len(curve)] = [np.nan if v is None else v for v in curve]
    low, high = float(np.nanmin(table)), float(np.nanmax(table))
    span = (high - low) or 1.0

    def path(values: np.ndarray) -> str:
        points = [
            f"{pad + (width - pad - 4) * t / max(longest - 1, 1):.1f},{4 + (height - 24) * (high - v) / span:.1f}"
            for t, v in enumerate(values)
            if np.isfinite(v)
        ]
        return " ".join(points)

    drawn = [
        f"<polyline points='{path(row)}' fill='none' stroke='#4a7db5' stroke-opacity='.25'>"
        f"<title>{escape(clip)}</title></polyline>"
        for row, (clip, _) in zip(table[:60], lines[:60], strict=True)
    ]
    there = np.isfinite(table).any(0)
    mean = np.full(longest, np.nan)
    mean[there] = np.nanmean(table[:, there], axis=0)
    drawn.append(f"<polyline points='{path(mean)}' fill='none' stroke='#b5454a' stroke-width='2'/>")
    marks = (
        f"<text x='2' y='12' font-size='10'>{high:.3g}</text>"
        f"<text x='2' y='{height - 22}' font-size='10'>{low:.3g}</text>"
        f"<text x='{pad}' y='{height - 6}' font-size='10'>frame 0 to {longest - 1}; red: mean of the clips</text>"
    )
    return f"<svg width='{width}' height='{height}'>{''.join(drawn)}{marks}</svg>"


def _worst(report: Mapping[str, Any], folder: Path, pairs: Mapping[str, Pair]) -> str:
    """The frames that are furthest from the truth, beside it."""
    clips = report["clips"]
    by = next((n for n in WORST_BY if any(n in c["curves"] for c in clips.values())), None)
    if by is None:
        return ""
    metric = METRICS[by]
    frames = [
        (metric.distance(value), clip, number)
        for clip, found in clips.items()
        for number, value in enumerate(found["curves"].get(by, ()))
        if value is not None
    ]
    chosen: list[tuple[float, str, int]] = []
    for frame in sorted(frames, reverse=True):  # one of each clip
        if all(frame[1] != other[1] for other in chosen) and len(chosen) < WORST:
            chosen.append(frame)
    figures = []
    if chosen:
        try:
            (folder / "worst").mkdir(exist_ok=True)
        except OSError as error:
            raise write_failure(folder / "worst", error) from None
    for place, (distance, clip, number) in enumerate(chosen):
        pair = pairs[clip]
        shown = [pair.read_pred()[number]]
        if pair.truth is not None:
            shown.append(pair.read_truth()[number])
        name = f"{place:02d}.png"
        media.write_image(
            folder / "worst" / name, media.sheet([shown], labels=["generated, true"], height=256)
        )
        value = -distance if metric.better == "more" else distance
        figures.append(
            f"<figure><img src='worst/{name}' alt=''><figcaption>{escape(clip)}, frame {number}: "
            f"{value:.4g} {escape(metric.unit)}</figcaption></figure>"
        )
    return f"<h2>worst frames by {escape(metric.title)}</h2>{''.join(figures)}" if figures else ""
