from __future__ import annotations

import os
import stat
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from xdyna.errors import InputError, OutputError
from xdyna.media import read_json, write_json
from xdyna.media.files import check_output, whole_file


def test_json_round_trip(tmp_path: Path) -> None:
    value = {
        "z": [1, 2.5, None],
        "name": "Jürgen",
        "path": Path("a/b"),
        "fps": Fraction(30000, 1001),
        "n": np.int64(3),
    }
    path = write_json(tmp_path / "deep" / "a.json", value)
    assert read_json(path) == {
        "z": [1, 2.5, None],
        "name": "Jürgen",
        "path": "a/b",
        "fps": "30000/1001",
        "n": 3,
    }
    assert list(read_json(path)) == list(value)
    assert "Jürgen" in path.read_text(encoding="utf-8")
    assert [entry.name for entry in path.parent.iterdir()] == ["a.json"]


def test_a_value_without_json_form_changes_nothing(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError, match="set has no JSON form"):
        write_json(path, {"a": {1, 2}})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, float("nan"))
    assert read_json(path) == {"a": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_json_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_json(tmp_path / "no.json")
    path = tmp_path / "a.json"
    path.write_text('{\n "a": 1,\n "b" 2\n}')
    with pytest.raises(InputError, match="is not valid JSON \\(line 3, column 6"):
        read_json(path)
    path.write_bytes(b'{"a": "\xff\xfe"}')
    with pytest.raises(InputError, match="is not text in UTF-8"):
        read_json(path)


def test_existing_files_are_kept_without_overwrite(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", 1)
    with pytest.raises(OutputError, match=r"exists already.*--overwrite"):
        write_json(path, 2, overwrite=False)
    assert read_json(path) == 1


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "a.bin"
    path.write_text("old")
    with pytest.raises(error), whole_file(path, overwrite=True) as temporary:  # noqa: PT012
        temporary.write_text("half of the ne")
        assert temporary.parent == tmp_path  # so that os.replace is atomic
        raise error
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_name_taken_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with pytest.raises(OutputError, match="appeared while"), whole_file(path) as temporary:  # noqa: PT012
        temporary.write_text("mine")
        path.write_text("another's")
    assert path.read_text() == "another's"
    assert len(list(tmp_path.iterdir())) == 1


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        path = write_json(tmp_path / "a.json", 1)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder"):
        check_output(tmp_path, overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="a part of its path is a file"):
        check_output(tmp_path / "file" / "a.json")
    with pytest.raises(OutputError, match="cannot be written"):
        write_json("/proc/a.json", 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    with pytest.raises(OutputError, match="not allowed"):
        write_json(folder / "a.json", 1)


def test_full_disk(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="no room left"),
        whole_file(tmp_path / "a.bin"),
        open("/dev/full", "wb") as full,
    ):
        full.write(b"x" * 100_000)
    assert not list(tmp_path.iterdir())
