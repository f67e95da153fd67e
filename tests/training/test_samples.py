from __future__ import annotations

import dataclasses

import torch

from xdyna.training.config import TrainConfig
from xdyna.training.networks import build_networks
from xdyna.training.samples import sample_sheet, sheet


def test_a_sheet_has_a_row_for_each_clip() -> None:
    red = torch.zeros(12, 3, 8, 8)
    red[:, 0] = 1
    picture = sheet([red, torch.zeros(1, 3, 8, 8)], columns=4)
    assert picture.shape == (20, 40, 3)
    assert picture[0, 0].tolist() == [255, 0, 0]
    assert picture[0, 31].tolist() == [255, 0, 0]
    assert picture[12, 0].tolist() == [0, 0, 0]
    assert picture[12, 12].tolist() == [255, 255, 255], "one frame is shown once"


def test_a_sheet_shows_a_denoiser_the_moved_reference(smoke_config: TrainConfig) -> None:
    model = dataclasses.replace(
        smoke_config.model, unet=dataclasses.replace(smoke_config.model.unet, moved_reference=True)
    )
    config = dataclasses.replace(
        smoke_config, model=model, runtime=dataclasses.replace(smoke_config.runtime, samples=1)
    )
    networks = build_networks(config, seed=1)
    for network in networks.named().values():
        network.requires_grad_(False).eval()
    before = sample_sheet(config, networks, torch.device("cpu"))
    assert networks.unet.moved_in is not None
    for layer in (networks.unet.moved_in, networks.unet.conv_out):
        torch.nn.init.normal_(layer.weight, std=0.2)
    seen: list[torch.Tensor] = []
    networks.unet.moved_in.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    after = sample_sheet(config, networks, torch.device("cpu"))
    assert before.shape == after.shape
    assert (seen[0].diff(dim=0).abs().amax((1, 2, 3)) > 0).all(), "in every frame elsewhere"
