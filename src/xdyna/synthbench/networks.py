"""The networks that measure: the judge, and those that a figure needs and that may not be here."""

from __future__ import annotations

from pathlib import Path

import torch

from xdyna.evaluation.judge import Judge
from xdyna.synthbench.reading import Reader
from xdyna.weights import file_hash

JUDGE = Path(__file__).parents[1] / "assets" / "judge.safetensors"
"""The judge that published figures stand on."""


def find_reader(judge: str | Path | None = None, *, device: str | torch.device = "cpu") -> Reader:
    """The judge and whatever else is here.

    Args:
        judge: another judge's file.
        device: where the judge runs.

    Raises:
        InputError: the judge's file is missing or none.
    """
    path = JUDGE if judge is None else Path(judge).expanduser()
    reader = Reader(judge=Judge.load(path, device=device), networks={"judge": ""})
    reader.networks["judge"] = file_hash(path)
    return reader
