"""The verb `xdyna synthbench`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from xdyna.flags import Bars, add_options, add_verb, given_options, say
from xdyna.options import from_mapping
from xdyna.synthbench.options import SynthbenchOptions


def add_synthbench(verbs: Any) -> None:
    """Add the verb to the command's parser."""
    parser = add_verb(
        verbs, "synthbench", run_synthbench,
        help="how well a model does on fifty synthetic cases whose truth is known",
        description="Animate fifty frozen cases of the synthetic world with a model and measure the result: pixels\n"
        "against the true ones, whether person and face obey, whether scenes live and still walls stay still.\n"
        "Writes report.json, report.md and pictures. Stopped runs go on where they were: same command.",
        epilog="examples:\n"
        "  xdyna synthbench -o bench                                 # everything (an hour and more on a CPU)\n"
        "  xdyna synthbench --cases 4 --suite self -o look           # a quick look\n"
        "  xdyna synthbench --model ./x-dyna --suite self cross scene parts -o bench\n\n"
        "docs/guides/synthbench.md explains every number.",
    )  # fmt: skip
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="folder for the results")
    add_options(parser, SynthbenchOptions)


def run_synthbench(chosen: argparse.Namespace) -> None:
    """`xdyna synthbench`."""
    from xdyna.synthbench.run import run
    from xdyna.synthbench.table import summary

    options = from_mapping(SynthbenchOptions, given_options(chosen, SynthbenchOptions), source="command line")
    with Bars(chosen.quiet) as bars:
        report = run(chosen.output, options=options, progress=bars)
    say(*summary(report), *(Path(chosen.output) / name for name in ("report.json", "report.md")))
