"""A prepared folder as a whole: one writer at a time, and manifest and report from its records."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdyna.data.prepared.manifest import NAME, ClipRow, from_json, write_manifest
from xdyna.errors import InputError, OutputError
from xdyna.media.files import read_json, write_failure, write_json

Progress = Callable[[str, int, int | None], None]
"""Called with (what is being done, how far, of how many or None when not known)."""

_FOLDERS = ("records", "keypoints", "masks", "clips", "faces")


@dataclass(frozen=True)
class Prepared:
    """What a folder holds after a run.

    Attributes:
        manifest: the manifest.
        report: what was left out, and what could not be used.
        clips: how many clips the manifest has, those of earlier runs among them.
        seconds: their length together.
        left_out: how many clips of this run's sources were not kept; the report has the reasons.
        failed: (source, reason) of each source of this run that could not be used.
    """

    manifest: Path
    report: Path
    clips: int
    seconds: float
    left_out: int = 0
    failed: tuple[tuple[str, str], ...] = ()

    def lines(self) -> list[str]:
        """For people."""
        said = [f"{self.manifest}: {self.clips} clips, {self.seconds:.0f} s"]
        if self.left_out:
            said.append(f"{self.left_out} clips were left out; {self.report} says why")
        if self.failed:
            said.append(f"{len(self.failed)} sources could not be used ({self.report} has all):")
            said += [f"  {source}: {reason}" for source, reason in self.failed[:5]]
        return said


@contextlib.contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Make the prepared folder, keep other runs out of it, and clear what a killed run left half-written.

    Raises:
        OutputError: it cannot be made, or another run holds it.
    """
    try:
        for name in _FOLDERS:
            (folder / name).mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "a")  # noqa: SIM115
    except OSError as error:
        raise write_failure(folder, error) from error
    with lock:
        try:
            import fcntl  # there is none on Windows

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass
        except OSError:
            raise OutputError(
                folder,
                "another xdyna is writing to this folder",
                "Wait for it to end, or choose another folder",
            ) from None
        for name in _FOLDERS:
            for left in (folder / name).rglob(".*.tmp*"):
                left.unlink(missing_ok=True)
        yield


def finish(folder: Path, troubles: dict[str, str], *, sources: set[str]) -> Prepared:
    """Write manifest and report from all records in the folder; says what became of this run's `sources`.

    Args:
        folder: the prepared folder.
        troubles: what went wrong without a record of it, by source.
        sources: of this run.

    Raises:
        InputError: not one clip came out.
        OutputError: they cannot be written.
    """
    rows: list[ClipRow] = []
    left_out: list[dict[str, Any]] = []
    failed = dict(troubles)
    for path in sorted((folder / "records").glob("*/plan.json")):
        plan = read_json(path)
        if "error" in plan:
            failed[plan["source"]] = plan["error"]
            continue
        fps = plan["fps"]
        for low, high in plan["short"]:
            left_out.append(
                _left_out(plan, low, high, f"is {high - low} frames long, too short at {fps} a second")
            )
        for number, (low, high) in enumerate(plan["clips"]):
            record_file = path.parent / f"{number}.json"
            record = read_json(record_file) if record_file.exists() else {}
            if record.get("fingerprint") != plan["fingerprint"]:
                continue
            if "left_out" in record:
                left_out.append(_left_out(plan, low, high, record["left_out"]))
                continue
            try:
                rows.append(from_json(record["row"], folder, str(record_file)))
            except InputError as error:
                failed[plan["source"]] = error.problem
    report = folder / "report.json"
    write_json(
        report,
        {
            "clips": len(rows),
            "human": sum(row.kind == "human" for row in rows),
            "scene": sum(row.kind == "scene" for row in rows),
            "seconds": round(sum(float(len(row) / row.fps) for row in rows), 3),
            "failed": [{"source": source, "reason": reason} for source, reason in sorted(failed.items())],
            "left_out": left_out,
        },
    )
    if not rows:
        reasons = [*failed.values(), *(entry["reason"] for entry in left_out)]
        first = f" ({reasons[0]})" if reasons else ""
        raise InputError(folder, f"not one clip came out of the videos{first}", f"See {report}")
    manifest = write_manifest(folder / NAME, rows)
    return Prepared(
        manifest=manifest,
        report=report,
        clips=len(rows),
        seconds=sum(float(len(row) / row.fps) for row in rows),
        left_out=sum(entry["source"] in sources for entry in left_out),
        failed=tuple(sorted((source, reason) for source, reason in failed.items() if source in sources)),
    )


def _left_out(plan: dict[str, Any], low: int, high: int, reason: str) -> dict[str, Any]:
    return {"source": plan["source"], "start": low, "end": high, "reason": reason}
