"""The settings of `xdyna prepare` and `xdyna synth`."""

from __future__ import annotations

from dataclasses import dataclass

from xdyna.errors import OptionError
from xdyna.options import MACHINE, check, option, parse_size

KINDS = ("human", "scene")
LAYOUTS = ("files", "humanvid", "ubc", "tiktok", "moore", "animatediff")
SPLITS = ("train", "test", "all")

CLIPS, PERSON = "clips", "person"


@dataclass(frozen=True)
class PrepareOptions:
    """Settings of `xdyna prepare`."""

    kind: str | None = option(
        None, "what the videos show; layouts of human videos need not say so", group=CLIPS, choices=KINDS
    )
    layout: str = option(
        "files",
        "files: videos, folders of videos, or folders of pictures; else the data set whose folders or lists are given",
        group=CLIPS,
        choices=LAYOUTS,
    )
    split: str = option("train", "which part of a data set that has parts", group=CLIPS, choices=SPLITS)
    cuts: bool = option(True, "look for shot boundaries and split there", group=CLIPS)
    min_seconds: float = option(2.0, "shorter shots are left out", group=CLIPS, minimum=0.1)
    max_seconds: float = option(
        10.0, "longer shots are split evenly into clips of at most this", group=CLIPS, minimum=0.5
    )
    rewrite: int | None = option(
        None,
        "copy each clip into the folder, its shorter side at most N pixels, with many key frames: quick to read in "
        "any place, and the folder can be moved. Without it, videos stay where they are",
        group=CLIPS,
        minimum=64,
        maximum=4096,
    )
    detector: str = option("mediapipe", "how people are found", group=PERSON, choices=("mediapipe", "dwpose"))
    dwpose: str | None = option(
        None,
        "folder with the two ONNX files of DWPose, for --detector dwpose",
        group=PERSON,
        metavar="DIR",
    )
    masks: bool = option(True, "keep the person's masks (mediapipe only)", group=PERSON)
    min_score: float = option(
        0.3, "keypoints below this confidence are dropped", group=PERSON, minimum=0, maximum=1
    )
    min_person: float = option(
        0.8, "clips are left out that show the person in a smaller share of their frames", group=PERSON,
        minimum=0, maximum=1,
    )  # fmt: skip
    min_height: float = option(
        0.15, "clips are left out whose person is lower than this share of the frame", group=PERSON,
        minimum=0, maximum=1,
    )  # fmt: skip
    max_people: int | None = option(None, "clips are left out that show more people", group=PERSON, minimum=1)
    workers: int | None = option(
        None, "how many clips to work on at a time (default: one a CPU core)", group=MACHINE, minimum=1
    )

    def __post_init__(self) -> None:
        check(self)
        if self.min_seconds > self.max_seconds:
            raise OptionError(
                "--min-seconds",
                f"got {self.min_seconds}, it must be at most --max-seconds, {self.max_seconds}",
            )
        if self.detector == "dwpose" and self.dwpose is None:
            raise OptionError(
                "--detector dwpose", "needs its two ONNX files", "Name their folder with --dwpose DIR"
            )
        if self.layout == "files" and self.kind is None:
            raise OptionError("--kind", "must be given", "--kind human or --kind scene")


@dataclass(frozen=True)
class SynthOptions:
    """Settings of `xdyna synth`."""

    clips: int = option(100, "how many clips the folder shall hold", group=CLIPS, minimum=1)
    frames: int = option(48, "frames of each, 8 a second", group=CLIPS, minimum=2, maximum=960)
    size: str = option(
        "256", "WIDTHxHEIGHT, or one number for squares; sides even", group=CLIPS, metavar="WxH"
    )
    seed: int = option(
        0, "clip number i is drawn from seed + i; from 900000000 on they are kept for evaluation", group=CLIPS,
        minimum=0,
    )  # fmt: skip
    human_share: float = option(0.8, "share of clips with a person", group=CLIPS, minimum=0, maximum=1)
    still_share: float = option(
        0.35, "share of still scenes among those with a person", group=CLIPS, minimum=0, maximum=1
    )
    modelled_share: float = option(
        0.4,
        "share of the people modelled in three dimensions; the others are drawn",
        group=CLIPS,
        minimum=0,
        maximum=1,
    )
    captured_share: float = option(
        0.25,
        "share of the people who move as filmed; the others' motion is made up",
        group=CLIPS,
        minimum=0,
        maximum=1,
    )
    device: str = option("cpu", "where to render: cpu, cuda or cuda:N", group=MACHINE, metavar="NAME")
    workers: int | None = option(
        None,
        "how many clips to render at a time (default: one a CPU core; 1 on a GPU)",
        group=MACHINE,
        minimum=1,
    )

    def __post_init__(self) -> None:
        check(self)
        parse_size(self.size)
