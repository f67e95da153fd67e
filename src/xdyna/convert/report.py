"""What a conversion did, or would do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class PartReport:
    """One component of a conversion.

    Attributes:
        name: the component.
        files: the files it was read from.
        origins: where its parameters came from -> their names, every name exactly once.
        size: bytes of its weights in the result.
        notes: what the user should know; those that begin with "WARNING" change the result.
    """

    name: str
    files: tuple[Path, ...]
    origins: Mapping[str, tuple[str, ...]]
    size: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did.

    Attributes:
        source: the official tree.
        output: the model's folder; None when nothing was written.
        dtype: type of the stored weights.
        parts: one for each component that the model has.
        absent: optional components that the source lacks.
    """

    source: Path
    output: Path | None
    dtype: torch.dtype
    parts: tuple[PartReport, ...]
    absent: tuple[str, ...] = ()

    @property
    def warnings(self) -> list[str]:
        """The notes that change the result."""
        return [
            f"{part.name}: {note}" for part in self.parts for note in part.notes if note.startswith("WARNING")
        ]

    def lines(self) -> list[str]:
        """The report as text, a line each."""
        lines = []
        for part in self.parts:
            keys = sum(len(names) for names in part.origins.values())
            size = f", {part.size / 2**20:.1f} MiB" if part.size else ""
            lines.append(f"{part.name}: {keys} parameters{size}" if keys else part.name)
            if len(part.origins) == 1:
                lines.append(f"  from {next(iter(part.origins))}")
            elif part.origins:
                for origin, names in part.origins.items():
                    shown = ", ".join(names[:2]) + (", ..." if len(names) > 2 else "")
                    lines.append(f"  {len(names)} from {origin} ({shown})")
            lines += [f"  {note}" for note in part.notes]
        lines += [f"{name}: absent in the source, left out" for name in self.absent]
        total = sum(part.size for part in self.parts)
        where = f"written to {self.output}" if self.output else "checked, nothing written"
        lines.append(f"{total / 2**30:.2f} GiB as {str(self.dtype).removeprefix('torch.')}, {where}")
        return lines
