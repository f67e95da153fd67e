"""The settings of `xdyna evaluate`."""

from __future__ import annotations

from dataclasses import dataclass

from xdyna.options import option

WHAT, COMPUTING = "what is measured", "computing"


@dataclass(frozen=True)
class EvaluateOptions:
    """Settings of `xdyna evaluate`."""

    suite: str = option(
        "pixel,face,motion",
        "pixel, set, face, motion, several parted by commas, or all",
        group=WHAT,
        metavar="SUITES",
    )
    frames: int | None = option(
        None, "compare the first N frames of every clip (default: all)", group=WHAT, minimum=1
    )
    partial: bool = option(False, "leave out clips that are not in every folder", group=WHAT)
    step: int | None = option(
        None,
        "frames from one window of a video distance to the next (default: as each one's authors; DisCo slides by 1)",
        group=WHAT,
        minimum=1,
    )
    name: str = option(
        "", "what tables call the system (default: the folder's name)", group=WHAT, metavar="TEXT"
    )
    workers: int = option(0, "processes that measure clips (default: one a core)", group=COMPUTING, minimum=0)
    device: str = option("auto", "auto, cpu, cuda: where the networks of the set suite run", group=COMPUTING)
    trust_compiled: bool = option(
        False,
        "run networks that are published as compiled programs (TorchScript); only files that you trust",
        group=COMPUTING,
    )
    resamples: int = option(
        200, "bootstrap draws of a set distance's interval; 0 leaves it out", group=COMPUTING, minimum=0
    )
