from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

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


@pytest.fixture
def other_precision() -> Iterator[None]:
    """accelerate keeps the first precision that it is told in a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
