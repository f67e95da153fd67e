"""The report of an evaluation: every number with what it was measured on, as JSON, Markdown, LaTeX and a page."""

from __future__ import annotations

import dataclasses
import datetime
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xdyna import media
from xdyna.errors import InputError
from xdyna.evaluation.distances import SetResults
from xdyna.evaluation.metrics import METRICS, PARTS, SUITES, split_name, title_of
from xdyna.evaluation.options import EvaluateOptions
from xdyna.evaluation.page import write_page
from xdyna.evaluation.pairs import Pair
from xdyna.evaluation.readings import ClipReadings, Reading, Result
from xdyna.media.files import whole_file

FORMAT = 1
"""Of report.json."""


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        name: of the system: what --name says, or the folder's name.
        about: date, versions, machine, folders, options, sizes, a hash of all that was compared.
        metrics: by full name: value, low, high, clips, frames, coverage, and for sets what else defines the number.
        unavailable: metrics that could not be measured, and why.
        clips: by clip: frames, sizes, values by metric, curves by metric.
    """

    name: str
    about: dict[str, Any]
    metrics: dict[str, dict[str, Any]]
    unavailable: dict[str, str]
    clips: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def gather(
        cls,
        pairs: Sequence[Pair],
        suites: Mapping[str, Mapping[str, ClipReadings]],
        sets: SetResults | None,
        *,
        folders: Mapping[str, str | Path | None],
        options: EvaluateOptions,
        digests: Mapping[str, str],
    ) -> Report:
        """Make the report of what the suites measured."""
        readings: dict[str, dict[str, Reading]] = {}
        unavailable: dict[str, str] = dict(sets.unavailable) if sets else {}
        protocol: dict[str, str] = dict(sets.protocol) if sets else {}
        for clips in suites.values():
            for clip, found in clips.items():
                for name, reading in found.readings.items():
                    readings.setdefault(name, {})[clip] = reading
                unavailable.update(found.unavailable)
                protocol.update(found.protocol)
        metrics = {name: Result.over(list(by.values())).to_json() for name, by in readings.items()}
        metrics |= sets.metrics if sets else {}
        unavailable = {name: why for name, why in unavailable.items() if name not in metrics}
        about = {
            "format": FORMAT,
            "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "versions": _versions(),
            "machine": f"{platform.machine()}, {platform.system()}",
            "folders": {name: str(folder) for name, folder in folders.items() if folder is not None},
            "options": dataclasses.asdict(options) | {"name": one_line(options.name)},
            "protocol": protocol,
            "clips": len(pairs),
            "frames": sum(pair.frames for pair in pairs),
            "sizes": _sizes(pairs),
            "content": media_hash(digests),
        }
        name = one_line(options.name or Path(str(folders["pred"])).resolve().name)
        clips_by_name = {pair.name: _clip(pair, readings) for pair in pairs}
        return cls(name, about, _ordered(metrics), _ordered(unavailable), clips_by_name)

    def to_json(self) -> dict[str, Any]:
        """For report.json."""
        return {
            "name": self.name, "about": self.about, "metrics": self.metrics, "unavailable": self.unavailable,
            "clips": self.clips,
        }  # fmt: skip

    @classmethod
    def read(cls, path: str | Path) -> Report:
        """A report.json, or the folder it lies in.

        Raises:
            InputError: no such file, or it is no report of this format.
        """
        place = Path(path)
        place = place / "report.json" if place.is_dir() else place
        value = media.read_json(place)
        try:
            if value["about"]["format"] != FORMAT:
                raise InputError(place, f"is a report of format {value['about']['format']}", "Evaluate anew")
            return cls(value["name"], value["about"], value["metrics"], value["unavailable"], value["clips"])
        except (KeyError, TypeError):
            raise InputError(place, "is no report of xdyna evaluate", "Give its report.json") from None


def write_report(report: Report, folder: Path, pairs: Sequence[Pair]) -> None:
    """Write report.json, report.md, report.tex and report.html; the clips are for its pictures."""
    media.write_json(folder / "report.json", report.to_json())
    for name, text in (("report.md", markdown(report)), ("report.tex", latex(report))):
        with whole_file(folder / name, overwrite=True) as place:
            place.write_text(text, encoding="utf-8")
    write_page(report.to_json(), folder, pairs, by_reason(report.unavailable))


def markdown(report: Report) -> str:
    """All metrics as tables, one a suite, with intervals, and what is missing."""
    about = report.about
    lines = [
        f"# {report.name}",
        "",
        f"{about['clips']} clips, {about['frames']} frames, {', '.join(about['sizes'])}; {about['made']}; "
        f"xdyna {about['versions']['xdyna']}. In brackets: bootstrap interval of 95 % over clips.",
    ]
    lines += [f"- {name}: {text}" for name, text in about["protocol"].items()]
    for suite in SUITES:
        names = [n for n in report.metrics if (split_name(n)[0] or METRICS["mae"]).suite == suite]
        if names:
            lines += ["", f"## {suite}", "", "| metric | value | measured on |", "| --- | --- | --- |"]
            lines += [
                f"| {_label(n)} | {cell(n, report.metrics[n])} | {_measured_on(report.metrics[n])} |"
                for n in names
            ]
    if report.unavailable:
        lines += ["", "## not measured", ""]
        lines += [
            f"- {', '.join(titles)}: {one_line(why)}" for why, titles in by_reason(report.unavailable).items()
        ]
    return "\n".join(lines) + "\n"


def latex(report: Report) -> str:
    """Head and row for a LaTeX table."""
    names = list(report.metrics)
    values = [report.metrics[name]["value"] for name in names]
    cells = [
        "--" if value is None else number(name, value) for name, value in zip(names, values, strict=True)
    ]
    rows = (["Method", *(tex_text(title_of(name)) for name in names)], [tex_text(report.name), *cells])
    return "".join(" & ".join(row) + r" \\" + "\n" for row in rows)


def by_reason(unavailable: Mapping[str, str]) -> dict[str, list[str]]:
    """What cannot be measured, by what is missing; a metric's parts are not listed beside the whole."""
    found: dict[str, list[str]] = {}
    for name, why in unavailable.items():
        _, part = split_name(name)
        whole = part == "all" or name.partition(":")[2] not in unavailable
        if whole:
            found.setdefault(why.removeprefix("unavailable: "), []).append(title_of(name))
    return found


def best_of(name: str, reports: Sequence[Report]) -> set[str]:
    """Which systems are best in a metric; several where the printed numbers are equal."""
    metric, _ = split_name(name)
    if metric is None:
        return set()
    there = {
        r.name: r.metrics[name]["value"] for r in reports if r.metrics.get(name, {}).get("value") is not None
    }
    if not there:
        return set()
    least = min(metric.distance(value) for value in there.values())
    shown = {number(name, value) for value in there.values() if metric.distance(value) == least}
    return {system for system, value in there.items() if number(name, value) in shown}


def cell(name: str, found: Mapping[str, Any]) -> str:
    """A value with its interval."""
    if found["value"] is None:
        return "-"
    text = number(name, found["value"])
    if found["low"] is not None:
        text += f" ({number(name, found['low'])} to {number(name, found['high'])})"
    return text


def number(name: str, value: float) -> str:
    """A value with the digits that its metric is printed with."""
    metric, _ = split_name(name)
    digits = metric.digits if metric else 4
    text = f"{value:#.{digits}g}"
    return f"{value:.{digits - 1}e}" if "e" in text else text.rstrip(".")


def tex_text(text: str) -> str:
    """A text with what LaTeX would take for commands escaped."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, "\\" + c if c in "&%$#_{}" else c) for c in text)


def one_line(text: str) -> str:
    """A text that goes into a line of a table: without line breaks, and UTF-8 whatever bytes a name had."""
    return " ".join(text.encode(errors="backslashreplace").decode().split())


def media_hash(digests: Mapping[str, str]) -> str:
    """One hash of all that was compared."""
    import hashlib

    return hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()


def _label(name: str) -> str:
    metric, _ = split_name(name)
    arrow = {"more": "up", "less": "down", "one": "to 1"}[metric.better] if metric else ""
    unit = f", {metric.unit}" if metric and metric.unit else ""
    return f"{title_of(name)}{unit} ({arrow})"


def _measured_on(found: Mapping[str, Any]) -> str:
    if "samples" in found:
        first, second = found["samples"]
        size = "mixed sizes" if found["size"] is None else f"{found['size'][1]} x {found['size'][0]}"
        return (
            f"{first} against {second} rows of {found['dimensions']} ({found['covariance']}), step {found['step']}, "
            f"{size}; {found['protocol']}"
        )
    text = f"{found['clips']} clips, {found['frames']} frames"
    return text if found["coverage"] > 0.9999 else f"{text}, {100 * found['coverage']:.1f} % of them"


def _ordered(values: Mapping[str, Any]) -> dict[str, Any]:
    """In the order of the table of metrics, the whole picture before its parts."""
    places = {name: place for place, name in enumerate(METRICS)}
    parts = list(PARTS)

    def place(full: str) -> tuple[int, int, str]:
        metric, part = split_name(full)
        return places[metric.name] if metric else len(places), parts.index(part) if part in parts else 9, full

    return {name: values[name] for name in sorted(values, key=place)}


def _clip(pair: Pair, readings: Mapping[str, Mapping[str, Reading]]) -> dict[str, Any]:
    held = {name: by[pair.name] for name, by in readings.items() if pair.name in by}
    return {
        "pred": str(pair.pred.path),
        "truth": str(pair.truth.path) if pair.truth else None,
        "frames": pair.frames,
        "size": list(pair.truth_size or pair.pred_size),
        "pred_size": list(pair.pred_size),
        "values": {name: reading.value for name, reading in _ordered(held).items()},
        "curves": {name: list(reading.curve) for name, reading in _ordered(held).items() if reading.curve},
    }


def _sizes(pairs: Sequence[Pair]) -> list[str]:
    """The sizes that were compared, and which generated clips were resized to them."""
    sizes = sorted({f"{w} x {h}" for h, w in (pair.truth_size or pair.pred_size for pair in pairs)})
    resized = sum(pair.resized for pair in pairs)
    return [*sizes, f"{resized} generated clips resized to the true size"] if resized else sizes


def _versions() -> dict[str, str]:
    import cv2
    import numpy
    import torch

    from xdyna import __version__

    return {
        "xdyna": __version__, "python": platform.python_version(), "torch": torch.__version__,
        "numpy": numpy.__version__, "opencv": cv2.__version__,
    }  # fmt: skip
