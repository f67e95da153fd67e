"""The report as tables: the bars of the embedded model and what was measured, the model's parts, the knob."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xdyna.synthbench.report import PLAIN, lookup


@dataclass(frozen=True)
class Bar:
    """What the embedded model is to reach in one figure.

    Attributes:
        label: what it is called.
        block, name: where the report has it; dots go down.
        least, aim: bounds that count as met; (low, high) where the figure should lie between two values.
        more: whether more is better.
    """

    label: str
    block: str
    name: str
    least: float | tuple[float, float]
    aim: float | tuple[float, float]
    more: bool = True

    def verdict(self, value: float | None) -> str:
        """How a value stands to the bar."""
        if value is None:
            return "not measured"
        for word, bound in (("aim", self.aim), ("met", self.least)):
            if isinstance(bound, tuple):
                reached = bound[0] <= value <= bound[1]
            else:
                reached = value >= bound if self.more else value <= bound
            if reached:
                return word
        return "**missed**"


BARS = (
    Bar("autoencoder reconstruction, dB", "autoencoder", "psnr", 33, 36),
    Bar("PSNR, still-camera scenes, dB", "model", "psnr_still", 26, 28),
    Bar("joint error, % of width", "model", "joint_error_pct", 1.2, 0.9, more=False),
    Bar("cross-driven joint error, % (retargeted)", "cross_driven", "joint_error_pct", 2.5, 1.5, more=False),
    Bar("mouth correlation", "model", "expressions.mouth_open", 0.92, 0.95),
    Bar("smile correlation", "model", "expressions.smile", 0.75, 0.85),
    Bar("lid correlation", "model", "expressions.lid", 0.70, 0.80),
    Bar("gaze correlation (gaze_x)", "model", "expressions.gaze_x", 0.85, 0.90),
    Bar("identity: head crop PSNR, dB", "model", "psnr_head", 19, 21),
    Bar("scene motion, generated / true", "model", "scene_motion", (0.9, 1.1), (0.95, 1.05)),
    Bar("false motion on still walls, 0-255", "model", "still_motion", 0.5, 0.2, more=False),
)

BESIDE = {
    "autoencoder": "its autoencoder alone",
    "truth": "true frames",
    "copy_reference": "copying the reference",
}
"""What stands beside a model's figures."""

_KNOB = {
    "moving scenes, 0-255": "scene_motion_mean", "still walls, 0-255": "still_motion",
    "joint error, %": "joint_error_pct", "its change": "change.joint_error_pct", "person, dB": "psnr_person",
    "its change, dB": "change.psnr_person",
}  # fmt: skip


_PARTS = {
    "copy_reference": "the reference, copied", "no_adapter": "no adapter", "no_face": "no face", "no_pose": "no pose",
    "full": "full", "truth": "the true frames",
}  # fmt: skip
_PART_FIGURES = {
    "PSNR, still camera, dB": "psnr_still", "person, dB": "psnr_person", "head, dB": "psnr_head",
    "joint error, %": "joint_error_pct", "AKD, %": "akd_pct", "mouth": "expressions.mouth_open",
    "smile": "expressions.smile", "lid": "expressions.lid", "gaze": "expressions.gaze_x",
    "scene motion": "scene_motion",
    "false motion, 0-255": "still_motion", "face_cos": "face_cos", "dtfvd_synth": "dtfvd_synth.all",
    "its person": "dtfvd_synth.fg", "its scene": "dtfvd_synth.bg",
}  # fmt: skip


def markdown(report: Mapping[str, Any]) -> str:
    """All tables; lines of suites that did not run are left out."""
    lines = [_protocol(report), ""]
    if any(bar.block in report for bar in BARS):
        lines += _bars(report)
    if "parts" in report:
        lines += [
            "",
            "What each part is for: the same people driven by their own clips, a part left out at a time. "
            "A star: the difference from the full model, clip by clip, has an interval without 0.",
            "",
            *_parts(report["parts"]),
        ]  # fmt: skip
    if "knob" in report:
        lines += ["", "Told how lively the scene is (--motion):", "", *_knob(report["knob"])]
    for name, reason in report["unavailable"].items():
        lines += ["", f"{name}: {reason}"]
    return "\n".join(lines) + "\n"


def summary(report: Mapping[str, Any]) -> list[str]:
    """The report's plain numbers, a line each."""
    lines = []
    for name in PLAIN:
        place: Any = report
        for step in name.split("."):
            place = place[step]
        reason = report["unavailable"].get(name.split(".")[0], "not measured")
        lines.append(f"{name}: {reason if place is None else format(place, '.4g')}")
    return lines


def _protocol(report: Mapping[str, Any]) -> str:
    speed = "" if report["seconds_per_clip"] is None else f", {report['seconds_per_clip']} s a clip"
    apart = "" if report["frozen"] else " (not the whole frozen set)"
    return (
        f"{report['folder']}: {report['cases']} held-out cases ({report['people']} with people){apart}, "
        f"{report['frames']} frames, {report['steps']} steps, seed {report['seed']}, "
        f"{report['size'][0]} x {report['size'][1]}, {report['device']}, {report['dtype']}{speed}. "
        "In brackets: 95 % bootstrap interval over clips, clips."
    )


def _parts(parts: Mapping[str, Any]) -> list[str]:
    shown = {
        label: name
        for label, name in _PART_FIGURES.items()
        if any(lookup(block, name) is not None for block in parts.values())
    }
    lines = [_row(["", *shown]), _row(["---"] * (1 + len(shown)))]
    for name, label in _PARTS.items():
        if name in parts:
            cells = [
                _cell(lookup(parts[name], figure)) + _mark(lookup(parts[name], f"change.{figure}"))
                for figure in shown.values()
            ]
            lines.append(_row([label, *cells]))
    return lines


def _mark(change: Mapping[str, Any] | None) -> str:
    """A star where the interval of a change leaves out 0."""
    if change is None or change["low"] is None:
        return ""
    return " *" if change["low"] > 0 or change["high"] < 0 else ""


def _knob(knob: Mapping[str, Any]) -> list[str]:
    lines = [_row(["--motion", *_KNOB]), _row(["---"] * (1 + len(_KNOB)))]
    for told, block in knob.items():
        label = {"none": "not told", "true": "told the truth"}.get(told, told)
        lines.append(_row([label, *(_cell(lookup(block, name)) for name in _KNOB.values())]))
    return lines


def _bars(report: Mapping[str, Any]) -> list[str]:
    lines = [
        _row(["figure", "at least", "aim", "measured", "", *BESIDE.values()]),
        _row(["---"] * (5 + len(BESIDE))),
    ]
    for bar in BARS:
        if bar.block in report:
            found = lookup(report[bar.block], bar.name)
            verdict = bar.verdict(None if found is None else found["value"])
            beside = _beside(report, bar.name, bar.block)
            lines.append(
                _row([bar.label, _bound(bar.least), _bound(bar.aim), _cell(found), verdict, *beside])
            )
    shown = {(bar.block, bar.name) for bar in BARS}
    for block in ("model", "scene_only", "cross_driven", "cross_rendered"):
        for name in _names(report.get(block, {})):
            if (block, name) not in shown:
                beside = _beside(report, name, block)
                cell = _cell(lookup(report[block], name))
                lines.append(
                    _row([name if block == "model" else f"{block}.{name}", "", "", cell, "", *beside])
                )
    return lines


def _names(block: Mapping[str, Any]) -> list[str]:
    names = []
    for name, value in block.items():
        names += [name] if "value" in value else [f"{name}.{inner}" for inner in _names(value)]
    return names


def _beside(report: Mapping[str, Any], name: str, block: str) -> list[str]:
    """What is known beside a block's figure: of cross_rendered the true frames only."""
    others = {"model": list(BESIDE), "cross_rendered": ["", "cross_rendered_truth", ""]}.get(
        block, [""] * len(BESIDE)
    )
    found = [lookup(report.get(other, {}), name) for other in others]
    return ["" if one is None or one["value"] is None else f"{one['value']:.3g}" for one in found]


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None or found["value"] is None:
        return "-"
    if found["low"] is None:
        return f"{found['value']:.3g} ({found['clips']})"
    return f"{found['value']:.3g} ({found['low']:.3g} to {found['high']:.3g}, {found['clips']})"


def _bound(bound: float | tuple[float, float]) -> str:
    return f"{bound[0]} to {bound[1]}" if isinstance(bound, tuple) else f"{bound:g}"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
