"""Wall time and peak memory of whole `xdyna` commands, as a user sees them.

    python -m benchmarks.command [--frames 16 600] [--steps 8] [--image P --video V] [-o OUT.csv]

Without --image and --video the demo inputs of the package are used, looped to the asked length for long clips.
Every run is a process of its own; the peak is the largest resident set of that process.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from xdyna import demo, media
from xdyna.conditions.keypoints import Keypoints


@dataclass(frozen=True)
class Measured:
    """One command's cost."""

    what: str
    seconds: float
    peak_mib: float


def measure(what: str, command: list[str]) -> Measured:
    """Run a command to its end.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    # Popen did not see the end itself, and would warn of a process still running.
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Measured(what, time.perf_counter() - begin, usage.ru_maxrss / 1024)


def looped_demo(folder: Path, frames: int) -> tuple[Path, Path]:
    """The demo motion played to and fro until it has `frames` frames: video and keypoints."""
    _, motion, keypoints, _ = demo.assets()
    clip = media.read_clip(motion)
    order = np.concatenate([np.arange(len(clip)), np.arange(len(clip) - 2, 0, -1)])
    order = np.resize(order, frames)
    video, points = folder / f"driving_{frames}.mp4", folder / f"driving_{frames}.npz"
    media.write_clip(media.Clip(frames=clip.frames[order], fps=clip.fps), video, overwrite=True)
    Keypoints.load(keypoints)[order].save(points)
    return video, points


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, nargs="+", default=[16])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--video", type=Path)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("-o", "--output", type=Path)
    chosen = parser.parse_args()
    rows = [
        min(
            (measure("xdyna --help", [sys.executable, "-m", "xdyna", "--help"]) for _ in range(3)),
            key=lambda r: r.seconds,
        )
    ]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        person, _, _, person_keypoints = demo.assets()
        for frames in chosen.frames:
            command = [sys.executable, "-m", "xdyna", "animate", "--quiet"]
            if chosen.image is not None:
                command += [str(chosen.image), str(chosen.video)]
            else:
                video, points = looped_demo(folder, frames)
                command += [str(person), str(video), "--keypoints", str(points)]
                command += ["--reference-keypoints", str(person_keypoints)]
            command += [
                "-o",
                str(folder / f"{frames}.mp4"),
                "--frames",
                str(frames),
                "--steps",
                str(chosen.steps),
            ]
            rows.append(
                measure(
                    f"animate, {frames} frames, {chosen.steps} steps", [*command, "--model", chosen.model]
                )
            )
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}"
    )
    for row in rows:
        print(f"{row.what:40s} {row.seconds:8.1f} s {row.peak_mib:8.0f} MiB")
    print(f"this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    if chosen.output is not None:
        with open(chosen.output, "w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=["what", "seconds", "peak_mib"])
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)


if __name__ == "__main__":
    main()
