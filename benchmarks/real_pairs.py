"""`xdyna animate` on every picture with every video of a folder: what a model makes of real people.

    python -m benchmarks.real_pairs --model DIR [--folder ../shared/examples] [--frames 32] -o OUT

Pictures are reference*.png and reference*.jpg, videos driving*.mp4. Each pair is one command in a process of its own,
as a user would type it. OUT gets REFERENCE-DRIVING.mp4 with its comparison and sheet (reference, driving, pose, face,
result), and pairs.json: for each pair seconds (wall time of the process), parts (seconds in load, prepare, encode,
denoise, decode), peak_mib (largest resident set), frames and seconds_per_frame. What it looks like is for a person to
say: no number here does.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import measure

from xdyna import media
from xdyna.errors import InputError, XdynaError


def pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Every reference with every driving video, by name.

    Raises:
        InputError: the folder lacks one or the other.
    """
    references = sorted(path for end in ("png", "jpg", "jpeg") for path in folder.glob(f"reference*.{end}"))
    videos = sorted(folder.glob("driving*.mp4"))
    if not references or not videos:
        raise InputError(
            folder, f"has {len(references)} pictures reference*.png or .jpg and {len(videos)} videos driving*.mp4",
            "Give a folder with at least one of each",
        )  # fmt: skip
    return [(reference, video) for reference in references for video in videos]


def animate_pair(
    reference: Path, video: Path, *, output: Path, model: str, extra: Sequence[str] = ()
) -> dict[str, Any]:
    """Run one pair; returns its line of pairs.json.

    Args:
        reference, video: the inputs.
        output: the folder.
        model: as of xdyna animate.
        extra: more of the command's arguments.

    Raises:
        subprocess.CalledProcessError: the command failed; it has said why.
    """
    name = f"{reference.stem}-{video.stem}"
    result = output / f"{name}.mp4"
    command = [sys.executable, "-m", "xdyna", "animate", str(reference), str(video), "-o", str(result)]
    command += ["--model", model, "--compare", "--overwrite", "--quiet", *extra]
    cost = measure(name, command)
    record = media.read_json(result.with_suffix(".json"))
    frames = media.count_frames(result)
    return {
        "pair": name, "frames": frames, "seconds": round(cost.seconds, 2),
        "seconds_per_frame": round(cost.seconds / frames, 3), "peak_mib": round(cost.peak_mib),
        "parts": {part: round(seconds, 2) for part, seconds in record["seconds"].items()},
        "sheet": f"{name}.sheet.png",
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_pairs", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--model", default="embedded", help="a model folder, or embedded")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[2] / "shared" / "examples")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("extra", nargs="*", help="after --: more arguments of xdyna animate")
    given = parser.parse_args(arguments)
    try:
        given.output.mkdir(parents=True, exist_ok=True)
        rows = []
        for reference, video in pairs(given.folder):
            row = animate_pair(
                reference, video, output=given.output, model=given.model,
                extra=["--frames", str(given.frames), *given.extra],
            )  # fmt: skip
            rows.append(row)
            print(
                f"{row['pair']:32s} {row['frames']:4d} frames {row['seconds']:8.1f} s {row['peak_mib']:6d} MiB"
            )
        media.write_json(given.output / "pairs.json", {"model": given.model, "pairs": rows})
    except XdynaError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"xdyna animate failed with status {error.returncode}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
