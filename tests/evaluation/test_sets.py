from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xdyna.errors import InputError, OptionError, WeightsError
from xdyna.evaluation.masks import region_of
from xdyna.evaluation.networks.i3d import I3D
from xdyna.evaluation.networks.inception import InceptionV3
from xdyna.evaluation.networks.load import load_dti3d, load_resnet3d, load_videomae
from xdyna.evaluation.networks.resnet3d import ResNet3D50
from xdyna.evaluation.networks.videomae import VideoMAE
from xdyna.evaluation.registry import NETWORKS, MissingWeights
from xdyna.evaluation.set_features import dtfvd_features
from xdyna.evaluation.sets import (
    SET_METRICS,
    features_of_set,
    load_set_network,
    set_metric,
    set_score,
)


def clips(count: int, frames: int = 2, *, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 256, (frames, 24, 16, 3)).astype(np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def inception() -> InceptionV3:
    torch.manual_seed(0)
    return InceptionV3().eval()


@pytest.fixture(scope="module")
def textures() -> I3D:
    torch.manual_seed(0)
    return I3D(18, eps=1e-5, pool_frames=2).eval()


def test_every_metric_has_a_known_network_and_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDYNA_WEIGHTS", str(tmp_path))
    for name, metric in SET_METRICS.items():
        assert name == metric.name
        assert metric.network in NETWORKS
        with pytest.raises(MissingWeights, match=r"^unavailable: needs .* \(from .*\)$"):
            load_set_network(name)
    with pytest.raises(OptionError, match="no set metric"):
        set_metric("fvd")


def test_fid_of_two_sets(inception: InceptionV3) -> None:
    truth = features_of_set("fid", clips(3), inception)
    assert truth.rows.shape == (6, 2048)
    assert truth.clips.tolist() == [0, 0, 1, 1, 2, 2]
    assert truth.size == (24, 16)
    score = set_score("fid", truth, truth, resamples=10)
    assert score.result.value == pytest.approx(0, abs=1e-6)
    blank = [np.zeros_like(clip) for clip in clips(3)]
    other = features_of_set("fid", blank, inception)
    score = set_score("fid", other, truth, resamples=10)
    assert score.result.value > 0
    assert score.clips == (3, 3)
    for word in ("pytorch-fid", "N = 6 and 6 from 3 and 3 clips", "24x16", "unbiased", "frames every 1"):
        assert word in score.protocol
    assert features_of_set("fid", clips(1), inception, step=2).rows.shape[0] == 1


def test_regions(inception: InceptionV3) -> None:
    given = clips(2)
    masks = [np.zeros(clip.shape[:3], bool) for clip in given]
    for mask in masks:
        mask[:, 4:12] = True
    for region in ("fg", "bg"):
        rows = features_of_set("fid", given, inception, masks=masks, region=region).rows
        cut = [region_of(clip, mask, region) for clip, mask in zip(given, masks, strict=True)]
        assert np.array_equal(rows, features_of_set("fid", cut, inception).rows)
    with pytest.raises(InputError, match="needs one mask a frame"):
        features_of_set("fid", given, inception, region="fg")
    with pytest.raises(InputError, match="there are 1, and more clips"):
        features_of_set("fid", given, inception, masks=masks[:1], region="fg")


def test_sets_that_cannot_be_measured(inception: InceptionV3, textures: I3D) -> None:
    with pytest.raises(InputError, match="there are none"):
        features_of_set("fid", [], inception)
    with pytest.raises(InputError, match="clip 2"):
        features_of_set("fid", [clips(1)[0], np.zeros((2, 8, 8), np.uint8)], inception)
    with pytest.raises(InputError, match=r"clip 1: 9 frames, and a window of dtfvd\[32\] has 32"):
        features_of_set("dtfvd[32]", clips(1, 9), textures)
    for step in (0, -1):
        with pytest.raises(OptionError):
            features_of_set("fid", clips(1), inception, step=step)
    one = features_of_set("fid", clips(1, 1), inception)
    with pytest.raises(InputError, match="1 samples"):
        set_score("fid", one, one)


def test_dtfvd_windows_short_clips_and_the_dropped_tail(textures: I3D) -> None:
    found = features_of_set("dtfvd[16]", [*clips(1, 17), *clips(1, 3)], textures)
    assert found.rows.shape == (2, 1024)
    assert found.clips.tolist() == [0, 1]
    assert np.isfinite(found.rows).all()
    short = clips(3, 6)
    whole = dtfvd_features(short, textures)
    assert whole.shape == (3, 1024)
    cut = dtfvd_features(short, textures, drop_tail=True, reference_batch=2)
    # another batch size may round differently
    assert cut == pytest.approx(whole[:2], abs=1e-5)
    with pytest.raises(OptionError):
        dtfvd_features(short, textures, drop_tail=True, reference_batch=0)


def test_i3d_tells_when_a_clip_is_too_short(textures: I3D) -> None:
    with pytest.raises(InputError, match="too few"):
        dtfvd_features(clips(1, 2), textures, short="reference")


def test_files_of_networks_round_trip_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = ResNet3D50().eval()
    named = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": named, "epoch": 1}, tmp_path / "resnet-50-kinetics.pth")
    loaded = load_resnet3d(tmp_path / "resnet-50-kinetics.pth")
    clip = torch.randn(1, 3, 8, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(clip), network(clip))
    with pytest.raises(WeightsError, match="do not fit"):
        load_dti3d(tmp_path / "resnet-50-kinetics.pth")
    with pytest.raises(WeightsError, match="no network for 24"):
        load_dti3d(length=24)


def test_the_depth_of_videomae_is_checked(tmp_path: Path) -> None:
    with torch.device("meta"):
        expected = VideoMAE(1).state_dict()
    torch.save({"module": {name: torch.zeros(v.shape) for name, v in expected.items()}}, tmp_path / "a.pth")
    assert len(load_videomae(tmp_path / "a.pth", depth=None).blocks) == 1
    with pytest.raises(WeightsError, match="missing"):
        load_videomae(tmp_path / "a.pth")


def test_videomae_at_small_width() -> None:
    torch.manual_seed(0)
    network = VideoMAE(2, width=16, heads=2, hidden=32, classes=3).eval()
    given = clips(2, 16)
    rows = features_of_set("cd_fvd", given, network, batch=1).rows
    assert rows.shape == (2, 16)
    assert rows == pytest.approx(features_of_set("cd_fvd", given, network, batch=2).rows, abs=1e-5)
    assert not np.allclose(rows, features_of_set("cd_fvd[loader]", given, network).rows, atol=1e-4)
    with pytest.raises(InputError, match="16 frames of 224x224"):
        network(torch.zeros(1, 3, 15, 224, 224))


class Layers(nn.Module):
    """Has the interface of clean-fid's compiled file: mean colours in the place of features."""

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures.mean(dim=[2, 3])


class Compiled(nn.Module):
    """Has the interfaces of both compiled files."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = Layers()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, clips: Tensor, rescale: bool, resize: bool, return_features: bool) -> Tensor:
        if rescale and resize and return_features:
            return clips.mean(dim=[2, 3, 4]) * self.scale
        return clips


def test_compiled_networks_run_only_when_trusted(tmp_path: Path) -> None:
    path = tmp_path / "compiled.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Compiled()).save(str(path))
    for name in ("fid[clean]", "fvd[styleganv]"):
        with pytest.raises(WeightsError, match=r"sha256 .* was not run"):
            load_set_network(name, path=path)
    frames = np.full((16, 8, 8, 3), 192, np.uint8)
    clean = load_set_network("fid[clean]", path=path, trusted=True)
    rows = features_of_set("fid[clean]", [frames], clean).rows
    assert rows == pytest.approx(np.full((16, 3), (192 - 128) / 128), abs=1e-5)
    other = load_set_network("fvd[styleganv]", path=path, trusted=True)
    rows = features_of_set("fvd[styleganv]", [frames], other).rows
    assert rows == pytest.approx(np.full((1, 3), 192.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Layers()).save(str(path))
    for name, problem in (("fid[clean]", "without `layers`"), ("fvd[styleganv]", "without rescale")):
        with pytest.raises(WeightsError, match=problem):
            load_set_network(name, path=path, trusted=True)
    path.write_bytes(b"no zip")
    with pytest.raises(WeightsError, match="no compiled network"):
        load_set_network("fid[clean]", path=path, trusted=True)
