"""The settings of `xdyna study make`, `serve` and `analyse`."""

from __future__ import annotations

from dataclasses import dataclass

from xdyna.options import RESULT, check, option

STUDY, PAGE, STATISTICS = "study", "page", "statistics"


@dataclass(frozen=True)
class MakeOptions:
    """Settings of `xdyna study make`."""

    seed: int | None = option(
        None,
        "the same cases with the same seed give the same set; whoever knows the seed can un-blind it, so keep it "
        "like the key (default: drawn at random, and written into the key)",
        group=STUDY,
        minimum=0,
    )
    methods: str | None = option(
        None,
        "which methods to take, two to five, as A,B,C (default: all that are found)",
        group=STUDY,
        metavar="NAMES",
    )
    title: str = option("User study", "what participants read at the top of the page", group=STUDY)
    crf: int = option(
        12,
        "quality of the copies (x264's constant rate factor): 0 best, 18 hardly to tell from it",
        group=STUDY,
        minimum=0,
        maximum=30,
    )
    key: str | None = option(
        None,
        "where to write the file that un-blinds the set (default: DIR.key.json beside DIR)",
        group=STUDY,
        metavar="JSON",
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class ServeOptions:
    """Settings of `xdyna study serve`."""

    port: int = option(8765, "port on 127.0.0.1; 0 takes any free one", group=PAGE, minimum=0, maximum=65535)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class AnalyseOptions:
    """Settings of `xdyna study analyse`."""

    key: str | None = option(
        None,
        "the file that un-blinds a study's folder (default: DIR.key.json beside DIR)",
        group=STUDY,
        metavar="JSON",
    )
    confidence: float = option(0.95, "of all intervals", group=STATISTICS, minimum=0.5, maximum=0.9999)
    missing: str = option(
        "available",
        "available: means are over the answers there are; complete: participants who left out any answer do "
        "not count",
        group=STATISTICS,
        choices=("available", "complete"),
    )
    overwrite: bool = option(False, "replace results of an earlier analysis", group=RESULT)

    def __post_init__(self) -> None:
        check(self)
