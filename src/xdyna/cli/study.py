"""`xdyna study make | serve | analyse`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from xdyna.evaluation.study.options import AnalyseOptions, MakeOptions, ServeOptions
from xdyna.flags import Bars, add_options, add_verb, given_options, say
from xdyna.options import from_mapping


def run_make(chosen: argparse.Namespace) -> None:
    """`xdyna study make`."""
    from xdyna.evaluation.study.making import make_study

    options = from_mapping(MakeOptions, given_options(chosen, MakeOptions), source="command line")
    with Bars(chosen.quiet) as bars:
        made = make_study(chosen.cases, chosen.output, options=options, progress=bars)
    say(*made.lines())


def run_serve(chosen: argparse.Namespace) -> None:
    """`xdyna study serve`."""
    from xdyna.evaluation.study.server import StudyServer

    options = from_mapping(ServeOptions, given_options(chosen, ServeOptions), source="command line")
    with StudyServer(chosen.folder, port=options.port) as server:
        say(f"{server.url} shows the study; Ctrl-C ends it")
        sys.stdout.flush()  # into a pipe too: nothing more is said for long
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            participants, answers = server.answers.counts()
            say("", f"{server.answers.path}: {answers} answers of {participants} participants are saved")


def run_analyse(chosen: argparse.Namespace) -> None:
    """`xdyna study analyse`."""
    from xdyna.evaluation.study.report import analyse_files, markdown

    options = from_mapping(AnalyseOptions, given_options(chosen, AnalyseOptions), source="command line")
    analysis, folder = analyse_files(chosen.source, chosen.output, options=options)
    if not chosen.quiet:
        say(markdown(analysis, options=options))
    say(folder)


def add_study(verbs: Any) -> None:
    """The verb and its three sub-verbs."""
    parser = verbs.add_parser(
        "study",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        help="a blinded user study: make it, serve it, analyse it",
        description="Let people rate several methods' videos side by side without knowing which is whose, as in the\n"
        "paper's Tables 3 and 6: motion of the person, motion of the background, identity, each 0 to 5.",
        epilog="examples:\n"
        "  xdyna study make cases/ -o study        cases/NAME/{reference.png,driving.mp4,METHOD.mp4,...}\n"
        "  xdyna study serve study                 a page on this machine; answers are saved one by one\n"
        "  xdyna study analyse study -o results    tables, tests and plots, with the key study.key.json",
    )
    steps = parser.add_subparsers(title="steps", metavar="STEP", required=True)
    _add_make(steps)
    _add_serve(steps)
    _add_analyse(steps)


def _add_make(steps: Any) -> None:
    parser = add_verb(
        steps, "make", run_make,
        help="cases and methods to a blinded set",
        description="Copy every picture and video under an anonymous name, all through one encoder, without sound and\n"
        "metadata, and write the key that un-blinds them beside the folder, not into it. Every participant\n"
        "gets an own random order of cases and of videos, which follows from the seed and the code.\n\n"
        "CASES is a folder with a folder a case (reference.png, driving.mp4, and METHOD.mp4 of two to five\n"
        'methods), or a list: .json, [{"case": "c1", "reference": "r.png", "driving": "d.mp4", "videos":\n'
        '{"METHOD": "m.mp4", ...}}, ...], or .csv with the columns case,reference,driving,method,video.',
    )  # fmt: skip
    parser.add_argument("cases", metavar="CASES", help="folder, or .json or .csv list")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="the study's folder, a new one")
    add_options(parser, MakeOptions)


def _add_serve(steps: Any) -> None:
    parser = add_verb(
        steps, "serve", run_serve,
        help="show a study on 127.0.0.1 and save each answer at once",
        description="Serve the page until Ctrl-C. Participants type a code (letters, digits, - and _), and go on\n"
        "where they were when they type it again. Answers go to DIR/answers.sqlite, each in its own transaction.\n"
        "There is no login and no encryption: the page is for this machine only.",
    )  # fmt: skip
    parser.add_argument("folder", metavar="DIR", help="what `xdyna study make` wrote")
    add_options(parser, ServeOptions)


def _add_analyse(steps: Any) -> None:
    parser = add_verb(
        steps, "analyse", run_analyse,
        help="answers to tables, tests and plots",
        description="Means with intervals (paper, Table 3), one-way analysis of variance on participant means\n"
        "(Table 6), repeated measures and Friedman's test beside it, and Holm-corrected pairs. Writes report.json,\n"
        "report.md, ratings.csv (un-blinded), means.csv, tests.csv, pairs.csv, means.svg and pairs.svg.",
    )  # fmt: skip
    parser.add_argument(
        "source",
        metavar="DIR",
        help="a study's folder, or a .csv with the columns participant,case,method,FG,BG,ID",
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT", help="folder for the results (default: DIR-analysis beside DIR)"
    )
    add_options(parser, AnalyseOptions)
