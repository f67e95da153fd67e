"""What is kept of every measured case, so that a run that was stopped goes on where it was.

One small JSON file a case and unit (`plan.units_of`) under OUT/cases, whole or not there. A record counts only for the
settings it was made with; those of another model, version or option are measured again and replaced.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xdyna import media
from xdyna.errors import InputError
from xdyna.evaluation.figures import KINDS, Part

logger = logging.getLogger(__name__)

Features = dict[str, list[list[float]]]
"""Of one clip, by part of the picture ("all", "fg", "bg"): what a video network makes of its windows, a row each."""


@dataclass(frozen=True)
class Measured:
    """What was read off one clip.

    Attributes:
        parts: what it adds to every figure.
        features: for distances between sets of clips; empty where no network is there, or none was asked for.
    """

    parts: dict[str, Part]
    features: Features = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """One case and unit.

    Attributes:
        unit: one of `plan.UNITS`.
        case: its number.
        blocks: what was measured, by the report's block.
        files: pictures and videos that were written, names within OUT.
        seconds: that generating a clip of it took.
    """

    unit: str
    case: int
    blocks: dict[str, Measured] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    seconds: float = 0.0


class Records:
    """The records of a folder.

    Args:
        output: OUT of the run.
        settings: all that decides what a record holds; plain JSON values.
    """

    def __init__(self, output: Path, settings: Mapping[str, Any]) -> None:
        self.output, self.settings = output, dict(settings)

    def path(self, unit: str, case: int) -> Path:
        """Where a record is."""
        return self.output / "cases" / f"{unit}_{case:03d}.json"

    def find(self, unit: str, case: int) -> Record | None:
        """The record of a case, or None where there is none for these settings, or a picture of it is gone."""
        path = self.path(unit, case)
        if not path.exists():
            return None
        try:
            held = media.read_json(path)
            if held["settings"] != self.settings:
                return None
            blocks = {name: _measured(block) for name, block in held["blocks"].items()}
            record = Record(unit, case, blocks, tuple(held["files"]), float(held["seconds"]))
        except (InputError, KeyError, TypeError, ValueError, AttributeError) as error:
            logger.warning("%s: is no record (%s); the case is measured again", path, error)
            return None
        return record if all((self.output / name).is_file() for name in record.files) else None

    def keep(self, record: Record) -> None:
        """Write a record.

        Raises:
            OutputError: it cannot be written.
        """
        blocks = {
            name: {
                "parts": {
                    key: [part.kind, list(part.sums), part.frames] for key, part in block.parts.items()
                },
                "features": block.features,
            }
            for name, block in record.blocks.items()
        }
        value = {
            "settings": self.settings, "seconds": record.seconds, "files": list(record.files), "blocks": blocks,
        }  # fmt: skip
        media.write_json(self.path(record.unit, record.case), value)


def _measured(block: Mapping[str, Any]) -> Measured:
    parts = {name: _part(*held) for name, held in block["parts"].items()}
    features = {part: [[float(n) for n in row] for row in rows] for part, rows in block["features"].items()}
    return Measured(parts, features)


def _part(kind: str, sums: Sequence[float], frames: int) -> Part:
    if kind not in KINDS:
        raise ValueError(f"unknown kind of figure {kind!r}")
    return Part(kind, tuple(float(n) for n in sums), int(frames))
