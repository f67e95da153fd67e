"""`python -m tests.parity DIR [DIR ...]`: exit status 1 on any miss."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

# nothing here is fetched from anywhere
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tests.parity.runner import line, run_folder


def main(arguments: list[str] | None = None) -> int:
    """Run the folders named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="folder of fixtures")
    total = missed = 0
    for folder in parser.parse_args(arguments).folders:
        print(folder)
        for stem, check in run_folder(folder):
            print(line(stem, check), flush=True)
            total += 1
            missed += not check.passed
    print(f"{total - missed} of {total} checks passed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
