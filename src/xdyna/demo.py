"""`xdyna demo`: the shipped picture moves like the shipped motion, with the shipped model."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from xdyna.animate import AnimateResult, animate_file
from xdyna.condition_clips import Progress
from xdyna.errors import WeightsError
from xdyna.options import AnimateOptions

FRAMES = 16
"""Length of the demo."""


def assets() -> tuple[Path, Path, Path, Path]:
    """The demo's person, motion video, the motion's keypoints and the person's.

    All four were rendered by `xdyna.data.synthetic` (tools/make_demo.py), so the keypoints are exact and
    nobody's likeness is used.
    """
    folder = Path(str(files("xdyna"))) / "assets" / "demo"
    paths = tuple(folder / name for name in ("person.png", "motion.mp4", "motion.npz", "person.npz"))
    for path in paths:
        if not path.is_file():
            raise WeightsError(path, "is missing from the installed package", "Install xdyna again")
    return paths[0], paths[1], paths[2], paths[3]


def run_demo(folder: Path, *, progress: Progress | None = None) -> AnimateResult:
    """Write demo.mp4, its settings, a comparison and a sheet into `folder`."""
    person, motion, motion_keypoints, person_keypoints = assets()
    options = AnimateOptions(
        frames=FRAMES,
        keypoints=str(motion_keypoints),
        reference_keypoints=str(person_keypoints),
        compare=True,
        overwrite=True,
    )
    return animate_file(person, motion, folder / "demo.mp4", options=options, progress=progress)
