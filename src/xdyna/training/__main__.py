"""`python -m xdyna.training`: train, export, split, join and average from a shell.

python -m xdyna.training CONFIG -o RUN [--set a.b=c] [--max-minutes M]
python -m xdyna.training export RUN OUT [--storage int8 | --split MIB | --student]
python -m xdyna.training join PARTS OUT [--storage int8]
python -m xdyna.training average MODEL MODEL... -o OUT [--shares A B...] [--storage int8]
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from xdyna.errors import XdynaError
from xdyna.training.averaging import average_models
from xdyna.training.checkpoints import export_model, export_split, export_student, join_split
from xdyna.training.loop import run

STORAGES = ("int8", "bf16", "fp16", "fp32")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it went well, 2 after a user's mistake, 3 when training stopped before its end."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout
    )
    verbs = {"export": _export, "join": _join, "average": _average}
    try:
        if words and words[0] in verbs:
            return verbs[words[0]](words[1:])
        return _train(words)
    except XdynaError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 2


def _train(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m xdyna.training", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("config", help="a TOML file, such as configs/train/smoke.toml")
    parser.add_argument(
        "-o", "--output", required=True, help="the run's folder; an earlier run there goes on"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", help="override one value of the config"
    )
    parser.add_argument("--max-minutes", type=float, help="stop cleanly after this many minutes")
    parser.add_argument("--fresh", action="store_true", help="start anew, whatever the folder holds")
    parser.add_argument("--device", help="cpu or cuda; by default cuda where there is one")
    given = parser.parse_args(words)
    progress = run(
        given.config, given.output, given.set, given.max_minutes, resume=not given.fresh, device=given.device
    )
    return 0 if progress.finished else 3


def _export(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m xdyna.training export", description="Write a run's model."
    )
    parser.add_argument("run", help="the run's folder")
    parser.add_argument("output", help="the folder to write")
    parser.add_argument("--storage", choices=STORAGES, default="int8", help="how weights are stored")
    parser.add_argument(
        "--split", type=int, metavar="MIB", help="write bf16 files of at most this size instead"
    )
    parser.add_argument("--no-judge", action="store_true", help="leave the judge out of the split files")
    parser.add_argument(
        "--student", action="store_true", help="write a LoRA file of what stage distill taught, nothing else"
    )
    given = parser.parse_args(words)
    if given.student:
        export_student(given.run, given.output)
    elif given.split:
        export_split(given.run, given.output, limit=given.split, with_judge=not given.no_judge)
    else:
        export_model(given.run, given.output, storage=given.storage)
    return 0


def _join(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m xdyna.training join", description="Join the files of a split export."
    )
    parser.add_argument("parts", help="the folder that `export --split` wrote")
    parser.add_argument("output", help="the model folder to write")
    parser.add_argument("--storage", choices=STORAGES, default="int8", help="how weights are stored")
    given = parser.parse_args(words)
    join_split(given.parts, given.output, storage=given.storage)
    return 0


def _average(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m xdyna.training average",
        description="Write the mean of models that began from the same weights, such as a run and the run before it.",
    )
    parser.add_argument("models", nargs="+", help='model folders, or "embedded"')
    parser.add_argument("-o", "--output", required=True, help="the model folder to write")
    parser.add_argument("--shares", nargs="+", type=float, help="weight of each model; equal by default")
    parser.add_argument("--storage", choices=STORAGES, default="int8", help="how weights are stored")
    given = parser.parse_args(words)
    average_models(given.models, given.output, shares=given.shares, storage=given.storage)
    return 0


if __name__ == "__main__":
    sys.exit(main())
