from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.evaluation.pictures_for_tests import noise
from xdyna.errors import InputError, OptionError, WeightsError
from xdyna.evaluation.faces.adaface import AdaFace, embed_faces, face_tensor, load_adaface
from xdyna.evaluation.faces.load import find_adaface
from xdyna.evaluation.registry import MissingWeights


@pytest.fixture(scope="module")
def network() -> AdaFace:
    torch.manual_seed(0)
    return AdaFace("ir50").requires_grad_(False).eval()


def test_sizes_are_the_published_ones() -> None:
    with torch.device("meta"):
        counts = {name: len(AdaFace(name).state_dict()) for name in ("ir50", "ir101")}
    assert counts == {"ir50": 467, "ir101": 917}
    with pytest.raises(OptionError, match="ir50, ir101"):
        AdaFace("ir18")


def test_embeddings_are_unit_vectors_and_do_not_depend_on_the_batch(network: AdaFace) -> None:
    crops = np.stack([noise(112, 112, seed=seed) for seed in range(3)])
    vectors, lengths = embed_faces(network, crops)
    assert vectors.shape == (3, 512)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (lengths > 0).all()
    alone, _ = embed_faces(network, crops[1:2])
    assert np.allclose(alone[0], vectors[1], atol=1e-5)
    assert embed_faces(network, crops[:0])[0].shape == (0, 512)


def test_the_network_sees_blue_first() -> None:
    crop = np.zeros((1, 112, 112, 3), np.uint8)
    crop[..., 0] = 255
    tensor = face_tensor(crop)
    assert tensor[0, 2].unique().tolist() == [1.0]
    assert tensor[0, :2].unique().tolist() == [-1.0]


@pytest.mark.parametrize("crops", [noise(112, 112), noise(112, 112)[None] / 255, noise(96, 112)[None]])
def test_what_is_no_aligned_face_is_refused(crops: np.ndarray) -> None:
    with pytest.raises(InputError, match="112 112"):
        face_tensor(crops)


def test_a_lightning_file_is_read_strictly(network: AdaFace, tmp_path: Path) -> None:
    path = tmp_path / "adaface_ir50_ms1mv2.ckpt"
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": {**state, "head.kernel": torch.zeros(512, 3)}}, path)
    crops = noise(112, 112)[None]
    read = find_adaface("ir50", folder=tmp_path)
    assert read.name == "adaface-ir50"
    assert np.array_equal(embed_faces(read.network, crops)[0], embed_faces(network, crops)[0])
    with pytest.raises(WeightsError, match="missing"):
        load_adaface("ir101", path)
    del state["model.body.20.res_layer.2.bias"]
    torch.save({"state_dict": state}, path)
    with pytest.raises(WeightsError, match=r"1 missing \(body\.20\.res_layer\.2\.bias"):
        load_adaface("ir50", path)
    with pytest.raises(MissingWeights, match="unavailable: needs adaface_ir101"):
        find_adaface("ir101", folder=tmp_path)
