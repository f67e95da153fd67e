from __future__ import annotations

from pathlib import Path

import pytest
import torch

from xdyna.training.config import TrainConfig
from xdyna.training.config_file import load_config
from xdyna.training.loop import train

SMOKE = Path(__file__).parents[2] / "configs" / "train" / "smoke.toml"


@pytest.fixture(scope="session")
def smoke_config() -> TrainConfig:
    return load_config(SMOKE)


@pytest.fixture(scope="session")
def finished_run(smoke_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run of the smoke config."""
    folder = tmp_path_factory.mktemp("run")
    progress = train(smoke_config, output=folder, device="cpu")
    assert progress.finished
    torch.manual_seed(0)
    return folder
