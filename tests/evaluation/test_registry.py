from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from xdyna.errors import WeightsError
from xdyna.evaluation.registry import (
    NETWORKS,
    MissingWeights,
    file_hash,
    find_weights,
    has_known_hash,
    network_named,
    weights_folder,
)


def test_every_network_tells_file_source_and_licence() -> None:
    for name, network in NETWORKS.items():
        assert name == network.name
        assert network.files
        assert all((network.source, network.licence, network.purpose))
    assert len({network.file for network in NETWORKS.values()}) == len(NETWORKS)


def test_where_files_are_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDYNA_WEIGHTS", str(tmp_path))
    assert weights_folder() == tmp_path
    monkeypatch.delenv("XDYNA_WEIGHTS")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights_folder() == tmp_path / ".cache" / "xdyna" / "evaluation"


@pytest.mark.parametrize("name", NETWORKS)
def test_a_missing_file_says_which_and_from_where(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDYNA_WEIGHTS", str(tmp_path / "nowhere"))
    network = NETWORKS[name]
    with pytest.raises(MissingWeights) as caught:
        find_weights(name)
    assert str(caught.value) == f"unavailable: needs {network.file} (from {network.source})"
    assert isinstance(caught.value, WeightsError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.file) == (str(caught.value), network.file)


def test_files_are_found_in_sub_folders_by_usual_and_other_names(tmp_path: Path) -> None:
    (tmp_path / "face").mkdir()
    other = tmp_path / "face" / "adaface_ir101_ms1mv3.ckpt"
    other.touch()
    (tmp_path / "vgg16-397923af.pth").mkdir()  # a folder is no file
    assert find_weights("adaface_ir101", folder=tmp_path) == other
    with pytest.raises(MissingWeights):
        find_weights("lpips_vgg16", folder=tmp_path)
    usual = tmp_path / "face" / NETWORKS["adaface_ir101"].file
    usual.touch()
    assert find_weights("adaface_ir101", folder=tmp_path) == usual


def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    digest = file_hash(tmp_path / "empty")
    assert digest.startswith("e3b0c44298fc1c14")
    assert has_known_hash(NETWORKS["lpips_vgg16"], digest) is False
    assert has_known_hash(NETWORKS["lpips_vgg16"], "397923af" + "0" * 56) is True
    assert has_known_hash(NETWORKS["dti3d_16"], digest) is None


def test_unknown_networks() -> None:
    with pytest.raises(WeightsError, match="no such evaluation network"):
        network_named("vgg19")
