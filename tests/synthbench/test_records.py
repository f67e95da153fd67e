from __future__ import annotations

import logging
from pathlib import Path

import pytest

from xdyna.evaluation.figures import mean
from xdyna.synthbench.records import Measured, Record, Records

SETTINGS = {"hash": "abc", "steps": 8, "size": [64, 64]}


def record(files: tuple[str, ...] = ()) -> Record:
    block = Measured({"psnr": mean(20.123456789, 16)}, {"all": [[0.1, 1e-7], [0.2, 3.0]]})
    return Record("self", 7, {"model": block}, files, 1.5)


def test_what_is_kept_is_found(tmp_path: Path) -> None:
    records = Records(tmp_path, SETTINGS)
    assert records.find("self", 7) is None
    records.keep(record())
    assert records.path("self", 7).name == "self_007.json"
    assert records.find("self", 7) == record()
    assert records.find("self", 8) is None
    assert records.find("parts", 7) is None


def test_other_settings_do_not_count(tmp_path: Path) -> None:
    Records(tmp_path, SETTINGS).keep(record())
    for change in ({"hash": "abd"}, {"steps": 9}, {"size": [64, 96]}, {"version": "2"}):
        assert Records(tmp_path, {**SETTINGS, **change}).find("self", 7) is None


def test_a_record_whose_picture_is_gone_does_not_count(tmp_path: Path) -> None:
    records = Records(tmp_path, SETTINGS)
    (tmp_path / "case_07.png").write_bytes(b"picture")
    records.keep(record(("case_07.png",)))
    assert records.find("self", 7) is not None
    (tmp_path / "case_07.png").unlink()
    assert records.find("self", 7) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"settings": 3}', "null"])
def test_a_spoiled_record_is_measured_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    records = Records(tmp_path, SETTINGS)
    records.keep(record())
    records.path("self", 7).write_text(text)
    with caplog.at_level(logging.WARNING):
        assert records.find("self", 7) is None
    # another run's settings are no fault
    assert ("is no record" in caplog.text) == (text != '{"settings": 3}')


def test_an_unknown_kind_of_figure_is_no_record(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = Records(tmp_path, SETTINGS)
    records.keep(record())
    path = records.path("self", 7)
    path.write_text(path.read_text().replace('"ratio"', '"magic"'))
    assert records.find("self", 7) is None
    assert "magic" in caplog.text
