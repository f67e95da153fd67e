from __future__ import annotations

import numpy as np
import pytest

from xdyna.media import compare_frame, sheet


def plain(height: int, width: int, value: int) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_cells_lie_where_they_should() -> None:
    page = sheet([[plain(20, 30, 100), plain(20, 10, 150)], [plain(20, 10, 200)]], gap=4)
    assert page.shape == (4 + 24 + 24, 4 + 34 + 14, 3)
    assert (page[4:24, 4:34] == 100).all()
    assert (page[4:24, 38:48] == 150).all()
    assert (page[28:48, 4:14] == 200).all()
    paper = page[0, 0, 0]
    assert (page[24:28] == paper).all()
    assert (page[28:48, 14:] == paper).all()


def test_cells_get_a_common_height_and_keep_their_aspect() -> None:
    page = sheet([[plain(40, 20, 100), plain(20, 30, 150)]], gap=0)
    assert page.shape == (40, 20 + 60, 3)
    assert sheet([[plain(40, 20, 100), plain(20, 30, 150)]], gap=0, height=10).shape == (10, 5 + 15, 3)


def test_labels_are_written_above_their_rows() -> None:
    rows = [[plain(64, 120, 0)], [plain(64, 120, 0)]]
    plain_page, labelled = sheet(rows), sheet(rows, labels=["first", ""])
    strip = (labelled.shape[0] - plain_page.shape[0]) // 2
    assert strip >= 12
    assert labelled[4 : 4 + strip].max() > 200  # ink
    below = 4 + strip + 64 + 4
    assert labelled[below : below + strip].max() < 60  # an empty label is paper
    assert not np.array_equal(sheet(rows, labels=["first", ""]), sheet(rows, labels=["other", ""]))


def test_compare_frames_are_even_and_steady() -> None:
    images = [plain(33, 21, 10), plain(50, 41, 90), plain(33, 21, 200)]
    page = compare_frame(
        images, ["reference", "driving, with a label that is longer than its picture", "result"]
    )
    assert page.shape[0] % 2 == page.shape[1] % 2 == 0
    assert page.shape == compare_frame(images, ["a", "b", "c"]).shape
    centre = page[page.shape[0] - 20]
    assert {10, 90, 200} <= set(centre[:, 0].tolist())


def test_senseless_calls() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        sheet([])
    with pytest.raises(ValueError, match="1 labels for 2 rows"):
        sheet([[plain(9, 9, 0)], [plain(9, 9, 0)]], labels=["a"])
    with pytest.raises(ValueError, match="at least one picture"):
        compare_frame([])
    with pytest.raises(ValueError, match="2 labels for 1 pictures"):
        compare_frame([plain(9, 9, 0)], ["a", "b"])
    with pytest.raises(ValueError, match="uint8"):
        sheet([[np.zeros((4, 4), np.uint8)]])
