"""Numbers of a benchmark, written as they come: csv and json with every value, a table of medians and spread."""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path
from typing import Any


class Results:
    """What was measured, of several ways.

    Args:
        folder: where NAME.csv, NAME.json and NAME.md go, NAME the folder's; it is made if there is none.
        about: machine, versions, settings.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.about = folder / folder.name, about
        self._values: dict[tuple[str, str], list[float]] = {}
        self._notes: dict[tuple[str, str], str] = {}
        print(about, flush=True)

    def add(self, way: str, row: str, values: list[float], *, note: str = "") -> None:
        """More values of one row of one way."""
        self._values.setdefault((way, row), []).extend(values)
        if note:
            self._notes[way, row] = note
        print(f"{way:16s} {row:44s} {' '.join(f'{value:.4g}' for value in values)}  {note}", flush=True)
        self._write()

    def note(self, way: str, row: str, text: str) -> None:
        """Something to say of a row."""
        self._notes[way, row] = text
        print(f"{way:16s} {row:44s} {text}", flush=True)
        self._write()

    def values(self, way: str, row: str) -> list[float]:
        """What was measured so far."""
        return self._values.get((way, row), [])

    def median(self, way: str, row: str) -> float | None:
        """The median, or None where nothing was measured."""
        values = self.values(way, row)
        return statistics.median(values) if values else None

    def rows(self) -> list[dict[str, Any]]:
        """One for each way and row."""
        made = []
        for way, row in {**self._values, **self._notes}:
            values = self.values(way, row)
            made.append(
                {
                    "way": way,
                    "row": row,
                    "median": statistics.median(values) if values else None,
                    "low": min(values, default=None),
                    "high": max(values, default=None),
                    "runs": len(values),
                    "note": self._notes.get((way, row), ""),
                }
            )
        return made

    def table(self) -> str:
        """Rows by ways, medians with their spread, as Markdown."""
        ways = list(dict.fromkeys(way for way, _ in self._values))
        rows = list(dict.fromkeys(row for _, row in self._values))
        lines = ["| | " + " | ".join(ways) + " |", "|---" * (len(ways) + 1) + "|"]
        for row in rows:
            cells = []
            for way in ways:
                values = self.values(way, row)
                spread = f" ({min(values):.4g} to {max(values):.4g})" if len(values) > 1 else ""
                cells.append(f"{statistics.median(values):.4g}{spread}" if values else "")
            lines.append(f"| {row} | " + " | ".join(cells) + " |")
        lines += [f"- {way}, {row}: {text}" for (way, row), text in self._notes.items()]
        return "\n".join(lines) + "\n"

    def _write(self) -> None:
        rows = self.rows()
        self.path.with_suffix(".md").write_text(self.table(), encoding="utf-8")
        full = {"about": self.about, "rows": rows, "values": [
            {"way": way, "row": row, "values": values} for (way, row), values in self._values.items()
        ]}  # fmt: skip
        self.path.with_suffix(".json").write_text(json.dumps(full, indent=1) + "\n", encoding="utf-8")
        with open(self.path.with_suffix(".csv"), "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=["way", "row", "median", "low", "high", "runs", "note"])
            writer.writeheader()
            writer.writerows(rows)
