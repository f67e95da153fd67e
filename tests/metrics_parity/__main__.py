"""`python -m tests.metrics_parity DIR [DIR ...]`: one line a case, exit status 1 on any miss."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.metrics_parity.runner import line, run_folder


def main(arguments: list[str] | None = None) -> int:
    """Run the folders named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.metrics_parity", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="folder of fixtures")
    parser.add_argument("--only", nargs="+", default=[], metavar="GROUP", help="names of the groups to run")
    options = parser.parse_args(arguments)
    total = missed = 0
    for folder in options.folders:
        print(folder)
        here = 0
        for result in run_folder(folder, only=tuple(options.only)):
            print(line(result), flush=True)
            here += 1
            missed += not result.passed
        if not here:
            print(f"FAIL {folder}: nothing to compare")
            missed += 1
        total += max(here, 1)
    print(f"{total - missed} of {total} cases passed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
