"""`xdyna evaluate` and `xdyna compare`."""

from __future__ import annotations

import argparse
from typing import Any

from xdyna.evaluation.options import EvaluateOptions
from xdyna.flags import Bars, add_options, add_verb, given_options, say
from xdyna.options import from_mapping


def add_evaluate(verbs: Any) -> None:
    """Add both verbs."""
    _add_evaluate(verbs)
    _add_compare(verbs)


def run_evaluate(chosen: argparse.Namespace) -> None:
    """`xdyna evaluate`."""
    from xdyna.evaluation.report import markdown
    from xdyna.evaluation.run import evaluate

    options = from_mapping(EvaluateOptions, given_options(chosen, EvaluateOptions), source="command line")
    with Bars(chosen.quiet) as bars:
        report = evaluate(
            chosen.pred,
            chosen.output,
            truth=chosen.truth,
            driving=chosen.driving,
            masks=chosen.masks,
            options=options,
            progress=bars,
        )
    say(markdown(report), f"{chosen.output}/report.html")


def run_compare(chosen: argparse.Namespace) -> None:
    """`xdyna compare`."""
    from xdyna.evaluation.compare import compare

    say(compare(chosen.reports, chosen.output))


def _add_evaluate(verbs: Any) -> None:
    parser = add_verb(
        verbs, "evaluate", run_evaluate,
        help="measure a system's outputs, ours or anybody's",
        description="Compare generated clips with true ones, and write report.json, .md, .html and .tex.\n\n"
        "Folders hold videos, folders of frames, or DisCo's flat frames; clips pair by name. Nothing is\n"
        "downloaded: a metric whose network is not here says which file it needs, and from where\n"
        "(`xdyna models`). The same command again does only what is missing.",
        epilog="examples:\n"
        "  xdyna evaluate --pred ours/ --truth true/ -o report\n"
        "  xdyna evaluate --pred ours/ --truth true/ --masks masks/ --suite all -o report --name ours\n"
        "  xdyna evaluate --pred crossed/ --driving drivers/ --suite set,face,motion -o report",
    )  # fmt: skip
    parser.add_argument("--pred", metavar="DIR", required=True, help="generated clips")
    parser.add_argument("--truth", metavar="DIR", help="true clips")
    parser.add_argument(
        "--driving", metavar="DIR", help="driving clips; expressions and joints are theirs then"
    )
    parser.add_argument(
        "--masks", metavar="DIR", help="masks of the true person, white inside: FG and BG metrics"
    )
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder of the report")
    add_options(parser, EvaluateOptions)


def _add_compare(verbs: Any) -> None:
    parser = add_verb(
        verbs, "compare", run_compare,
        help="the paper's tables for several systems",
        description="Draw the paper's tables from the reports of `xdyna evaluate`, the best of each column in bold.",
        epilog="example:\n  xdyna compare ours/report.json theirs/report.json -o tables",
    )  # fmt: skip
    parser.add_argument("reports", nargs="+", metavar="REPORT", help="report.json, or the folder it lies in")
    parser.add_argument(
        "-o", "--output", metavar="DIR", help="also write compare.md and a .tex for each table"
    )
