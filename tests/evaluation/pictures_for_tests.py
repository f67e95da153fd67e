"""Pictures that a metric may meet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xdyna.evaluation.packaged import find_file
from xdyna.evaluation.registry import MissingWeights
from xdyna.media import read_image

PERSON = Path(__file__).parents[2] / "src" / "xdyna" / "assets" / "demo" / "person.png"


def noise(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """(h w 3) uint8 noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def odd_pictures() -> dict[str, np.ndarray]:
    """Pictures that break careless code."""
    return {
        "blank": np.zeros((64, 64, 3), np.uint8),
        "white": np.full((64, 64, 3), 255, np.uint8),
        "one pixel": noise(1, 1),
        "smaller than a window": noise(6, 6),
        "thin": noise(3, 200),
        "grey": noise(40, 40)[..., 0],
        "noise": noise(64, 48),
        "not contiguous": noise(80, 80)[::2, ::-2],
    }


def person() -> np.ndarray:
    """(256 256 3) uint8: the drawn person of the demo, whose face every detector finds."""
    return read_image(PERSON)


def network_file(name: str) -> Path:
    """A network's file, or the test is skipped."""
    try:
        return find_file(name)
    except MissingWeights as missing:
        pytest.skip(str(missing))
