from __future__ import annotations

import numpy as np
import pytest

from xdyna.evaluation.frame_scores import FrameScores


def test_means_over_judged_and_over_all_frames() -> None:
    scores = FrameScores.of("x", [np.float32(1.0), None, 3.0, None], size="9x9")
    assert scores.values == (1.0, None, 3.0, None)
    assert scores.mean == 2.0
    assert scores.coverage == 0.5
    assert scores.zero_filled_mean == 1.0
    assert scores.protocol == {"size": "9x9"}


@pytest.mark.parametrize("values", [[], [None, None]])
def test_nothing_judged_has_no_mean(values: list[None]) -> None:
    scores = FrameScores.of("x", values)
    assert scores.mean is None
    assert scores.coverage == 0
    assert scores.zero_filled_mean == (0.0 if values else None)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan")])
def test_a_value_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        FrameScores.of("x", [1.0, value])
