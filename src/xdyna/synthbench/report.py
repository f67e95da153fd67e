"""From records to the report: the figures that issue and tables ask for, and all others with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xdyna.evaluation.figures import Figure, Tally, nested
from xdyna.evaluation.frechet import frechet_with_interval
from xdyna.evaluation.networks.texture import PARTS
from xdyna.synthbench.plan import KNOBS, TOLD
from xdyna.synthbench.records import Features, Record

PLAIN: dict[str, tuple[str, str]] = {
    "psnr_still": ("model", "psnr_still"),
    "joint_error_pct": ("model", "joint_error_pct"),
    "joint_error_cross_pct": ("cross_driven", "joint_error_pct"),
    "expression_corr.mouth": ("model", "expressions.mouth_open"),
    "expression_corr.smile": ("model", "expressions.smile"),
    "expression_corr.lid": ("model", "expressions.lid"),
    "expression_corr.gaze": ("model", "expressions.gaze_x"),
    "scene_motion_ratio": ("model", "scene_motion"),
    "still_motion": ("model", "still_motion"),
    "dtfvd_synth.all": ("model", "dtfvd_synth.all"),
    "dtfvd_synth.fg": ("model", "dtfvd_synth.fg"),
    "dtfvd_synth.bg": ("model", "dtfvd_synth.bg"),
    "face_cos": ("model", "face_cos"),
}
"""The report's plain numbers, and which figure of which block each is."""
TRUTH_OF = {
    "cross_rendered": "cross_rendered_truth", "cross_rendered_truth": "cross_rendered_truth", "parts": "parts.truth",
}  # fmt: skip
"""Which block holds the true clips of a block; "truth" for all others."""
KEPT_BY_KNOB = ("joint_error_pct", "psnr_person", "psnr_head")
"""What the knob should not change."""
CHANGED_BY_PARTS = (
    "psnr_still", "psnr_person", "psnr_head", "joint_error_pct", "akd_pct", "expressions.mouth_open",
    "expressions.smile", "expressions.lid", "expressions.gaze_x", "scene_motion", "still_motion",
)  # fmt: skip
"""What leaving out a part may change."""


class Findings:
    """All that the records say.

    Args:
        records: in any order; a figure does not depend on it.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self.tally = Tally()
        self._features: dict[str, dict[int, Features]] = {}
        self._frames: dict[int, int] = {}
        for record in sorted(records, key=lambda one: (one.case, one.unit)):
            for block, measured in record.blocks.items():
                self._count(block, record.case, measured.parts, measured.features)
                if record.unit == "scene" and block == "model":
                    self._count("scene_only", record.case, measured.parts, measured.features)

    def _count(self, block: str, case: int, parts: Mapping[str, Any], features: Features) -> None:
        self.tally.add(block, [parts])
        if features:
            self._features.setdefault(block, {})[case] = features
            self._frames[case] = max(part.frames for part in parts.values())

    def figures(self, block: str) -> dict[str, Figure]:
        """All figures of a block, distances to the true clips included."""
        return {**self.tally.figures(block), **self._distances(block)}

    def _distances(self, block: str) -> dict[str, Figure]:
        """dtfvd_synth.PART: Frechet distance of the texture network's features from those of the true clips."""
        true = self._features.get(TRUTH_OF.get(block.split(".")[0], "truth"), {})
        made, found = self._features.get(block, {}), {}
        for part in PARTS:
            cases = [case for case in made if case in true and part in made[case] and part in true[case]]
            if len(cases) < 2:
                continue
            sets = [np.concatenate([np.array(held[case][part]) for case in cases]) for held in (made, true)]
            ids = np.repeat(cases, [len(made[case][part]) for case in cases])
            distance = frechet_with_interval(sets[0], sets[1], clips=(ids, ids), paired=True)
            frames = sum(self._frames[case] for case in cases)
            found[f"dtfvd_synth.{part}"] = Figure(
                distance.value, _number(distance.low), _number(distance.high), len(cases), frames
            )
        return found


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def build_report(
    records: Sequence[Record], header: Mapping[str, Any], *, unavailable: Mapping[str, str]
) -> dict[str, Any]:
    """The report as docs/guides/synthbench.md describes it.

    Args:
        records: of the chosen cases and suites.
        header: what stands at the top: names, hashes, options.
        unavailable: figures whose network is not here, and what it would take.

    Returns:
        values for a JSON file; numbers that there are none of are None.
    """
    findings = Findings(records)
    blocks = findings.tally.blocks()
    found = {block: nested(findings.figures(block)) for block in blocks}
    plain: dict[str, Any] = {}
    for name, (block, figure) in PLAIN.items():
        *folder, last = name.split(".")
        place = plain.setdefault(folder[0], {}) if folder else plain
        held = lookup(found.get(block, {}), figure)
        place[last] = None if held is None else held["value"]
    report = {**plain, "n": header["cases"], **header, "unavailable": dict(unavailable)}
    report |= {name: block for name, block in found.items() if "." not in name}
    for family in ("parts", "knob"):
        inside = {
            name.partition(".")[2]: block for name, block in found.items() if name.startswith(f"{family}.")
        }
        if inside:
            report[family] = inside
    for family, base, kept in (("parts", "full", CHANGED_BY_PARTS), ("knob", "none", KEPT_BY_KNOB)):
        for name, block in report.get(family, {}).items():
            block["change"] = nested(changes(findings.tally, f"{family}.{name}", f"{family}.{base}", kept))
    if "knob" in report:
        report["knob"] = {name: report["knob"][name] for name in TOLD}
    return report


def lookup(block: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """A figure by its dotted name, or None."""
    place: Any = block
    for part in name.split("."):
        if not isinstance(place, Mapping) or part not in place:
            return None
        place = place[part]
    return place


def changes(tally: Tally, block: str, base: str, names: Sequence[str]) -> dict[str, Figure]:
    """How much figures of a block differ from those of another one of the same clips, paired by clip."""
    found = {name: tally.change(block, base, name) for name in names}
    return {name: figure for name, figure in found.items() if figure.clips}


def knob_panels(records: Sequence[Record]) -> dict[str, Any]:
    """What the curve of --motion shows: how much scenes move, and whether the person suffers."""
    tally = Findings(records).tally
    blocks = {knob: tally.figures(f"knob.{knob}") for knob in KNOBS}

    def curve(name: str) -> list[Any]:
        return [(knob, figures[name]) for knob, figures in blocks.items() if name in figures]

    return {
        "change from frame to frame, 0..255": {
            "moving scenes": curve("scene_motion_mean"),
            "their truth": curve("scene_motion_true"),
            "still walls": curve("still_motion"),
        },
        "joint error, % of width": {"people": curve("joint_error_pct")},
        "PSNR of the person, dB": {"people": curve("psnr_person")},
    }
