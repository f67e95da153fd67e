"""The settings of `xdyna synthbench`."""

from __future__ import annotations

from dataclasses import dataclass

from xdyna.errors import OptionError
from xdyna.options import DTYPES, MACHINE, PRESETS, RESULT, SAMPLING, check, option, parse_size

SUITES = ("self", "cross", "scene", "knob", "parts", "sheets")
FROZEN_CASES, FROZEN_FRAMES = 50, 16
"""How many cases there are, and how many frames of each published figures stand on."""

BENCH = "benchmark"


@dataclass(frozen=True)
class SynthbenchOptions:
    """Settings of `xdyna synthbench`. None means "the model's own"."""

    model: str = option(
        "embedded", "embedded (ships with the package), a model folder, or a hub id", group=MACHINE, metavar="NAME"
    )  # fmt: skip
    cases: int = option(
        FROZEN_CASES, "how many of the frozen cases, the first ones", group=BENCH, minimum=1, maximum=FROZEN_CASES
    )  # fmt: skip
    suite: tuple[str, ...] = option(
        SUITES,
        "what to measure. self: people driven by their own clip; cross: people driven by the next one; scene: clips "
        "without people; knob: --motion from 0 to 2, for models that can be told; parts: the people of self without "
        "adapter, face or pose, and the reference copied; sheets: pictures and videos of whatever else is chosen",
        group=BENCH,
        choices=SUITES,
    )
    frames: int = option(
        FROZEN_FRAMES, "frames of each clip; others than 16 compare with nothing published", group=BENCH,
        minimum=2, maximum=240,
    )  # fmt: skip
    size: str | None = option(
        None, "WIDTHxHEIGHT, or one number for squares (default: the model's own)", group=BENCH, metavar="WxH"
    )
    modelled_share: float = option(
        0.0,
        "share of the people modelled in three dimensions instead of drawn: other cases, for a look beside the frozen "
        "ones, whose people are all drawn",
        group=BENCH,
        minimum=0,
        maximum=1,
    )
    preset: str | None = option(
        None, "fast: as `xdyna animate --preset fast`", group=SAMPLING, choices=PRESETS
    )
    lora: tuple[str, ...] = option(
        (), "as `xdyna animate --lora`", group=SAMPLING, metavar="PATH[:SCALE]", repeat=True
    )
    cache: int = option(1, "as `xdyna animate --cache`", group=SAMPLING, minimum=1, maximum=10)
    refine_face: bool | None = option(None, "as `xdyna animate --refine-face`", group=SAMPLING)
    hold_still: bool | None = option(None, "as `xdyna animate --hold-still`", group=SAMPLING)
    steps: int | None = option(
        None, "denoising steps (default: the model's own)", group=SAMPLING, minimum=1, maximum=1000
    )
    seed: int = option(
        0, "of the start noise; the cases are the same with every seed", group=SAMPLING, minimum=0
    )
    judge: str | None = option(
        None,
        "another judge, the judge.safetensors of a training run; figures compare only with those of the same judge "
        "(default: the one in the package)",
        group=BENCH,
        metavar="FILE",
    )
    batch: int | None = option(
        None, "cases rendered and generated together (default: 8, and 1 on a CPU)", group=MACHINE, minimum=1
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps", group=MACHINE, metavar="NAME")
    dtype: str = option(
        "auto", "number format of the networks; auto: float16 on a GPU, float32 on a CPU", group=MACHINE,
        choices=DTYPES,
    )  # fmt: skip
    fresh: bool = option(
        False, "measure again what OUT/cases holds already for the same model and options", group=RESULT
    )

    def __post_init__(self) -> None:
        check(self)
        if not self.suite:
            raise OptionError("--suite", "names none", f"Allowed are {', '.join(SUITES)}")
        if self.size is not None:
            parse_size(self.size)
