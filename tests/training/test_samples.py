from __future__ import annotations

import torch

from xdyna.training.samples import sheet


def test_a_sheet_has_a_row_for_each_clip() -> None:
    red = torch.zeros(12, 3, 8, 8)
    red[:, 0] = 1
    picture = sheet([red, torch.zeros(1, 3, 8, 8)], columns=4)
    assert picture.shape == (20, 40, 3)
    assert picture[0, 0].tolist() == [255, 0, 0]
    assert picture[0, 31].tolist() == [255, 0, 0]
    assert picture[12, 0].tolist() == [0, 0, 0]
    assert picture[12, 12].tolist() == [255, 255, 255], "one frame is shown once"
