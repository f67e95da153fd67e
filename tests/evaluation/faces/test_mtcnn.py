from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.evaluation.pictures_for_tests import network_file, noise, odd_pictures, person
from xdyna.errors import InputError, OptionError, WeightsError
from xdyna.evaluation.faces.boxes import BoxOutside, calibrated, cut_out, inside, squared, suppressed
from xdyna.evaluation.faces.detect import MtcnnDetector
from xdyna.evaluation.faces.load import find_mtcnn
from xdyna.evaluation.faces.mtcnn import (
    Mtcnn,
    OutputNet,
    ProposalNet,
    RefinementNet,
    load_mtcnn,
    mtcnn_tensor,
)
from xdyna.evaluation.published import shapes_of


def random_networks(softmax: str = "class", seed: int = 0) -> Mtcnn:
    torch.manual_seed(seed)
    nets = ProposalNet(softmax), RefinementNet(), OutputNet()
    for net in nets:
        for parameter in net.parameters():
            if parameter.ndim > 1:
                parameter.data.normal_(0, (2 / parameter[0].numel()) ** 0.5)
    return Mtcnn(*(net.requires_grad_(False).eval() for net in nets))


def write_npy(network: torch.nn.Module, path: Path) -> None:
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    np.save(path, np.array(state, dtype=object), allow_pickle=True)


def write_facenet(network: torch.nn.Module, path: Path) -> None:
    """As facenet-pytorch has it: no `features.`, `dense`, and dense layers that read width, height, channels."""
    state = {}
    for name, value in network.state_dict().items():
        stem, leaf = name.removeprefix("features.").rsplit(".", 1)
        if value.ndim == 2:
            if value.shape[1] in (576, 1152):
                value = value.unflatten(1, (-1, 3, 3)).permute(0, 2, 3, 1).flatten(1)
            stem = stem.replace("conv", "dense")
        elif leaf == "bias" and stem in ("conv5", "conv5_1", "conv5_2", "conv6_1", "conv6_2", "conv6_3"):
            stem = stem.replace("conv", "dense")
        elif (
            leaf == "bias"
            and stem == "conv4"
            and len(value) == 128
            and "conv5_1.weight" in network.state_dict()
        ):
            stem = "dense4"
        state[f"{stem}.{leaf}"] = value.contiguous()
    torch.save(state, path)


@pytest.mark.parametrize("write", [write_npy, write_facenet])
def test_weights_are_read_from_both_layouts(write: object, tmp_path: Path) -> None:
    made = random_networks()
    paths = []
    for name in ("pnet", "rnet", "onet"):
        paths.append(tmp_path / f"{name}{'.npy' if write is write_npy else '.pt'}")
        write(getattr(made, name), paths[-1])  # type: ignore[operator]
    read = load_mtcnn(*paths)
    pictures = {"pnet": noise(30, 40), "rnet": noise(24, 24), "onet": noise(48, 48)}
    for name, picture in pictures.items():
        x = mtcnn_tensor(picture[None])
        for got, wanted in zip(getattr(read, name)(x), getattr(made, name)(x), strict=True):
            assert torch.allclose(got, wanted, atol=1e-6)
    with pytest.raises(WeightsError, match="do not fit"):
        load_mtcnn(paths[1], paths[0], paths[2])
    paths[0].write_bytes(paths[0].read_bytes()[:900])
    with pytest.raises(WeightsError, match=paths[0].name):
        load_mtcnn(*paths)


def test_softmax_modes_differ_as_told() -> None:
    by_class, by_width = random_networks("class").pnet, random_networks("adaface").pnet
    x = mtcnn_tensor(noise(40, 60)[None])
    assert torch.allclose(by_class(x)[1].sum(1), torch.ones(()))
    assert torch.allclose(by_width(x)[1].sum(-1), torch.ones(()))
    assert torch.equal(by_class(x)[0], by_width(x)[0])
    with pytest.raises(OptionError, match="class, adaface"):
        ProposalNet("width")


def test_flattening_goes_by_columns() -> None:
    net = RefinementNet().eval()
    features = net.features[: list(net.features._modules).index("flatten")]
    x = mtcnn_tensor(noise(24, 24)[None])
    planes = features(x)
    flat = net.features.flatten(planes)
    assert flat[0, 1] == planes[0, 0, 1, 0]
    assert flat[0, 3] == planes[0, 0, 0, 1]


def test_boxes_are_not_written_into() -> None:
    rng = np.random.default_rng(0)
    boxes = np.concatenate(
        [rng.uniform(-20, 40, (12, 2)), rng.uniform(45, 90, (12, 2)), rng.uniform(0, 1, (12, 1))], 1
    )
    before = boxes.copy()
    suppressed(boxes, 0.5)
    calibrated(boxes, rng.normal(size=(12, 4)))
    squared(boxes)
    cut_out(noise(60, 60), np.round(boxes), 24)
    assert np.array_equal(boxes, before)


def test_suppression_keeps_the_best_of_each_heap() -> None:
    boxes = np.array([[0, 0, 9, 9, 0.5], [1, 0, 10, 9, 0.9], [50, 50, 59, 59, 0.1], [52, 52, 55, 55, 0.05]])
    assert suppressed(boxes, 0.5).tolist() == [1, 2, 3]
    assert suppressed(boxes, 0.5, of_smaller=True).tolist() == [1, 2]
    assert suppressed(boxes[:0], 0.5).tolist() == []


def test_square_boxes_have_a_common_centre_with_theirs() -> None:
    square = squared(np.array([[10.0, 20, 19, 59, 0.7]]))
    assert square.tolist() == [[-5, 20, 34, 59, 0.7]]


def test_cutouts_are_black_beyond_the_picture() -> None:
    picture = np.full((20, 30, 3), 200, np.uint8)
    cutouts, clipped = cut_out(picture, np.array([[-10.0, 0, 9, 19, 1]]), 20)
    assert clipped.tolist() == [[0, 0, 9, 19, 1]]
    assert cutouts[0, :, :10].max() == 0
    assert cutouts[0, :, 10:].min() == 200


def test_boxes_without_a_picture_are_told_apart() -> None:
    boxes = np.array(
        [
            [0, 0, 5, 5, 1],
            [-9, 3, -1, 9, 1],
            [30, 0, 35, 5, 1],
            [29, 19, 40, 40, 1],
            [5, 5, 4, 9, 1],
            [0, 0, 1e9, 1e9, 1],
            [np.nan, 0, 5, 5, 1],
        ]
    )
    assert inside(boxes, (20, 30)).tolist() == [True, False, False, True, False, False, False]
    for bad in ([35.0, 0, 49, 14, 1], [-30.0, 0, -10, 20, 1], [5.0, 5, 3, 9, 1]):
        with pytest.raises(BoxOutside):
            cut_out(noise(20, 30), np.array([bad]), 24)


@pytest.mark.parametrize("kind", odd_pictures())
@pytest.mark.parametrize("outside", ["drop", "raise"])
@pytest.mark.parametrize("softmax", ["class", "adaface"])
def test_no_picture_breaks_the_detector(kind: str, outside: str, softmax: str) -> None:
    # random networks send boxes anywhere, which is the point
    detector = MtcnnDetector(
        random_networks(softmax, 3), thresholds=(0.3, 0.2, 0.1), factor=0.6, outside=outside
    )
    for face in detector.find(odd_pictures()[kind]):
        assert np.isfinite(face.box).all()
        assert np.isfinite(face.points).all()
        assert 0 <= face.score <= 1


def test_random_networks_do_send_boxes_outside() -> None:
    lost = 0
    for seed in range(6):
        networks, picture = random_networks("class", seed), noise(64, 64, seed=seed)
        options = {"thresholds": (0.3, 0.2, 0.1), "factor": 0.6}
        try:
            MtcnnDetector(networks, **options, outside="raise").detect(picture)
        except BoxOutside:
            lost += 1
            assert len(MtcnnDetector(networks, **options).detect(picture)[0])
            assert MtcnnDetector(networks, **options, outside="raise").find(picture) == []
    assert lost


def test_options_are_checked() -> None:
    networks = random_networks()
    for options in ({"min_face": 0}, {"factor": 1.0}, {"factor": float("nan")}, {"outside": "clip"}):
        with pytest.raises(OptionError):
            MtcnnDetector(networks, **options)
    with pytest.raises(InputError, match="uint8"):
        MtcnnDetector(networks).find(noise(40, 40) / 255)


def test_scales_end_at_the_cell() -> None:
    detector = MtcnnDetector(random_networks(), min_face=24, factor=0.5)
    assert detector.scales((96, 200)) == [0.5, 0.25]
    assert detector.scales((20, 20)) == []


def test_published_names() -> None:
    assert len(shapes_of(ProposalNet())) == 13
    assert len(shapes_of(RefinementNet())) == 16
    assert len(shapes_of(OutputNet())) == 21


@pytest.mark.weights
@pytest.mark.parametrize("softmax", ["class", "adaface"])
def test_the_published_networks_find_a_face(softmax: str) -> None:
    network_file("mtcnn_pnet")
    (face,) = find_mtcnn(softmax=softmax).find(person())
    assert face.score > 0.99
    assert np.abs(face.box - (51, 66, 127, 160)).max() < 6
    left, right = face.points[[0, 3]].mean(0), face.points[[1, 4]].mean(0)
    assert left[0] < face.points[2, 0] < right[0]
