from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.evaluation.pictures_for_tests import network_file, noise
from xdyna.errors import InputError, OptionError, WeightsError
from xdyna.evaluation.lpips import BACKBONES, Lpips, find_lpips, load_lpips, lpips_clip
from xdyna.evaluation.registry import MissingWeights


def small_weights(network: Lpips) -> Lpips:
    """Weights under which features neither vanish nor explode."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        fan = parameter[0].numel() if parameter.ndim > 1 else 1
        scaled = drawn.abs() / len(parameter) if name.startswith("lins") else drawn * (2 / fan) ** 0.5
        parameter.data.copy_(scaled if parameter.ndim > 1 or name.startswith("lins") else 0.1 * drawn)
    return network.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def networks() -> dict[str, Lpips]:
    return {backbone: small_weights(Lpips(backbone)) for backbone in ("alex", "st-alex")}


def files_of(network: Lpips, folder: Path) -> tuple[Path, ...]:
    """The network's weights as published: one file for ST-LPIPS, two for LPIPS."""
    state = network.state_dict()
    features = {name: value for name, value in state.items() if name.startswith("features.")}
    heads = {f"lin{k}.model.1.weight": state[f"lins.{k}"].view(1, -1, 1, 1) for k in range(5)}
    if network.backbone.startswith("st-"):
        named = {network.published_name(name): value for name, value in features.items()}
        extra = {"scaling_layer.shift": torch.zeros(1, 3, 1, 1)}
        torch.save({**named, **heads, **extra}, folder / "whole.pth")
        return (folder / "whole.pth",)
    torch.save({**features, "classifier.6.bias": torch.zeros(3)}, folder / "trunk.pth")
    torch.save(heads, folder / "heads.pth")
    return folder / "trunk.pth", folder / "heads.pth"


@pytest.mark.parametrize("backbone", ["alex", "st-alex"])
def test_equal_pictures_have_no_distance_and_others_have_one(
    networks: dict[str, Lpips], backbone: str
) -> None:
    a, b = noise(40, 44), noise(40, 44, seed=1)
    nearer = np.clip(a.astype(int) + 9, 0, 255).astype(np.uint8)
    scores = lpips_clip(networks[backbone], [a, a, a], [a, nearer, b])
    assert scores.values[0] == 0
    assert 0 < scores.values[1] < scores.values[2]
    assert scores.name == f"lpips[{backbone},unit]"


def test_the_range_matters_and_batches_do_not(networks: dict[str, Lpips]) -> None:
    pair = [noise(36, 40), noise(36, 40, seed=1), noise(50, 40)], [noise(36, 40, seed=2)] * 3
    unit = lpips_clip(networks["alex"], *pair)
    signed = lpips_clip(networks["alex"], *pair, value_range="signed", batch=1)
    assert not np.allclose(unit.values, signed.values, rtol=0.01)
    alone = lpips_clip(networks["alex"], *pair, batch=1)
    assert np.allclose(unit.values, alone.values, rtol=1e-5)
    assert signed.name == "lpips[alex,signed]"


@pytest.mark.parametrize("value_range", ["unit", "signed"])
def test_masks(networks: dict[str, Lpips], value_range: str) -> None:
    truth, changed = noise(48, 48), noise(48, 48)
    changed[:, 30:] = 255 - changed[:, 30:]
    left, right = np.zeros((48, 48), bool), np.zeros((48, 48), bool)
    left[:, :8], right[:, 30:] = True, True

    def value(mask: np.ndarray | None, mode: str) -> float | None:
        masks = None if mask is None else [mask]
        return lpips_clip(
            networks["alex"], [changed], [truth], value_range=value_range, masks=masks, mode=mode, part="fg"
        ).mean

    assert value(left, "fill") == 0
    assert value(right, "mean") > value(left, "mean")
    # black beyond the mask is the same as a black picture measured whole
    painted = [p * right[..., None] for p in (changed, truth)]
    assert value(right, "fill") == pytest.approx(
        lpips_clip(networks["alex"], painted[:1], painted[1:], value_range=value_range).mean
    )
    assert value(np.zeros_like(left), "fill") is None
    # everything inside: what is left is the difference between the mean and an enlarged map's mean
    assert value(np.ones_like(left), "fill") == pytest.approx(value(None, "fill"))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_smallest_side_is_the_smallest_that_works(backbone: str) -> None:
    network = Lpips(backbone).eval()
    least = network.smallest_side
    with torch.no_grad():
        maps = network(*torch.rand(2, 1, 3, least, least))
    assert all(m.numel() for m in maps)
    with pytest.raises(InputError, match=f"{least}x{least}"):
        lpips_clip(network, [noise(least - 1, 99)], [noise(least - 1, 99)])
    with pytest.raises(RuntimeError), torch.no_grad():
        network(*torch.rand(2, 1, 3, least - 1, least - 1))


def test_blank_pictures_are_numbers(networks: dict[str, Lpips]) -> None:
    black, white = np.zeros((1, 40, 40, 3), np.uint8), np.full((1, 40, 40, 3), 255, np.uint8)
    for network in networks.values():
        assert lpips_clip(network, black, black).mean == 0
        assert lpips_clip(network, black, white).mean > 0


@pytest.mark.parametrize("backbone", ["alex", "st-alex"])
def test_files_are_read_strictly(networks: dict[str, Lpips], backbone: str, tmp_path: Path) -> None:
    files = files_of(networks[backbone], tmp_path)
    loaded = load_lpips(backbone, *files)
    a, b = [noise(40, 40)], [noise(40, 40, seed=1)]
    assert lpips_clip(loaded, a, b).mean == lpips_clip(networks[backbone], a, b).mean

    state = torch.load(files[0], weights_only=True)
    name = next(name for name in state if name.endswith(("5.bias", "3.bias")))
    torch.save({key: value for key, value in state.items() if key != name}, files[0])
    with pytest.raises(WeightsError, match="1 missing"):
        load_lpips(backbone, *files)
    torch.save({**state, "features.99.weight": torch.zeros(3)}, files[0])
    with pytest.raises(WeightsError, match=r"not wanted \(features\.99"):
        load_lpips(backbone, *files)


def test_wrong_files_and_options(networks: dict[str, Lpips], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="two files"):
        load_lpips("vgg", tmp_path / "vgg.pth")
    with pytest.raises(OptionError, match="one file"):
        load_lpips("st-vgg", tmp_path / "a.pth", tmp_path / "b.pth")
    with pytest.raises(WeightsError, match="no such file"):
        load_lpips("st-vgg", tmp_path / "a.pth")
    with pytest.raises(OptionError, match="vgg, alex"):
        find_lpips("squeeze")
    with pytest.raises(OptionError, match="unit, signed"):
        lpips_clip(networks["alex"], [noise(40, 40)], [noise(40, 40)], value_range="0..1")
    with pytest.raises(MissingWeights, match=r"unavailable: needs vgg16-397923af\.pth \(from https"):
        find_lpips("vgg", folder=tmp_path)


@pytest.mark.weights
@pytest.mark.parametrize("backbone", ["st-vgg", "st-alex"])
def test_the_packaged_networks_rank_distortions(backbone: str) -> None:
    network_file("st_lpips_vgg")
    network = find_lpips(backbone)
    from tests.evaluation.pictures_for_tests import person

    picture = person()[::2, ::2]
    shifted = np.roll(picture, 1, 1)
    noisy = np.clip(picture + np.random.default_rng(0).normal(0, 40, picture.shape), 0, 255).astype(np.uint8)
    scores = lpips_clip(network, [picture, shifted, noisy], [picture] * 3, value_range="signed")
    assert 0 == scores.values[0] < scores.values[1] < scores.values[2]
