from __future__ import annotations

from pathlib import Path

import numpy as np

from xdyna import media
from xdyna.evaluation.figures import Figure
from xdyna.synthbench.sheets import write_curve


def test_the_curve_is_drawn_where_the_values_are(tmp_path: Path) -> None:
    points = [(x, Figure(10 * x, 10 * x - 1, 10 * x + 1, 4, 64)) for x in (0.0, 1.0, 2.0)]
    write_curve(tmp_path / "curve.png", {"left": {"rises": points}, "empty": {"nothing": []}})
    picture = media.read_image(tmp_path / "curve.png").astype(int)
    red = (picture[..., 0] > 180) & (picture[..., 1] < 90) & (np.arange(picture.shape[0])[:, None] > 60)
    rows, columns = np.nonzero(red)
    assert np.corrcoef(rows, columns)[0, 1] < -0.99
    assert columns.max() < picture.shape[1] // 2, "the other panel is empty"
