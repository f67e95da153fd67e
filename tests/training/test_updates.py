"""All ways to update the weights do the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from xdyna.errors import OptionError
from xdyna.training.config import TrainConfig
from xdyna.training.processes import Processes
from xdyna.training.stages import STAGES
from xdyna.training.trainer import Trainer
from xdyna.training.updates import FlatUpdate, GraphedUpdate, PlainUpdate


def trained(
    config: TrainConfig, folder: Path, stage: str, kind: type, *, updates: int, device: str = "cpu"
) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Weights and losses after some updates of one kind."""
    settings = dataclasses.replace(config.stage(stage), matrix_rate=1e-2, accumulate=2, batch=2)
    config = dataclasses.replace(config, stages=(stage,), **{stage: settings})  # type: ignore[arg-type]
    processes = Processes(device, precision=config.runtime.precision)
    trainer = Trainer(config, folder, processes, resume=False)
    pool = trainer._enter(stage)
    assert isinstance(trainer.update, PlainUpdate)
    update = trainer.update
    if kind is not PlainUpdate:
        assert trainer.optimiser is not None
        assert trainer.averages is not None
        update = kind(
            trainer.run, STAGES[stage].learner(trainer.run), STAGES[stage].losses, optimiser=trainer.optimiser,
            averages=trainer.averages, processes=processes, clip_norm=0.5, accumulate=2,
        )  # fmt: skip
    else:
        update.clip_norm = 0.5
    losses = []
    for step in range(updates):
        trainer._pace(1e-3, step + 1)
        made = update(lambda: STAGES[stage].draw(trainer.run, pool, settings))
        losses.append(made["loss"].item())
    weights = STAGES[stage].parameters(trainer.run)
    assert trainer.averages is not None
    averages = {f"average.{name}": value for name, value in trainer.averages.values.items()}
    return {name: p.detach().clone() for name, p in weights.items()} | averages, losses


def apart(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """How far two sets of weights lie apart. (Single weights with hardly any gradient go either way in Adam.)"""
    return sum((first[name] - second[name]).square().sum().item() for name in second) ** 0.5


@pytest.mark.parametrize("stage", ["autoencoder", "judge", "image", "clips"])
def test_gradients_in_one_tensor_change_nothing(
    smoke_config: TrainConfig, tmp_path: Path, stage: str
) -> None:
    plain, expected = trained(smoke_config, tmp_path, stage, PlainUpdate, updates=2)
    flat, found = trained(smoke_config, tmp_path, stage, FlatUpdate, updates=2)
    assert found == pytest.approx(expected, rel=1e-4)
    assert apart(flat, plain) < 0.02 * apart(
        trained(smoke_config, tmp_path, stage, PlainUpdate, updates=0)[0], plain
    )


def test_graphs_are_refused_on_a_cpu(smoke_config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="graphs"):
        trained(smoke_config, tmp_path, "judge", GraphedUpdate, updates=1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("stage", ["autoencoder", "judge", "image", "clips"])
def test_a_recorded_update_is_the_plain_one(smoke_config: TrainConfig, tmp_path: Path, stage: str) -> None:
    runtime = dataclasses.replace(smoke_config.runtime, precision="no")
    config = dataclasses.replace(smoke_config, runtime=runtime)
    plain, expected = trained(config, tmp_path, stage, PlainUpdate, updates=6, device="cuda")
    graphed, found = trained(config, tmp_path, stage, GraphedUpdate, updates=6, device="cuda")
    assert found == pytest.approx(expected, rel=1e-2)
    begun = trained(config, tmp_path, stage, PlainUpdate, updates=0, device="cuda")[0]
    assert apart(graphed, plain) < 0.1 * apart(begun, plain)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.usefixtures("other_precision")
@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("stage", ["autoencoder", "judge", "image", "clips"])
def test_fused_kernels_train_as_the_plain_ones_do(
    smoke_config: TrainConfig, tmp_path: Path, stage: str, graphs: bool
) -> None:
    def with_kernels(fused: bool) -> TrainConfig:
        runtime = dataclasses.replace(smoke_config.runtime, precision="bf16", fused=fused)
        return dataclasses.replace(smoke_config, runtime=runtime)

    kind = GraphedUpdate if graphs else PlainUpdate
    plain, expected = trained(with_kernels(False), tmp_path, stage, PlainUpdate, updates=6, device="cuda")
    quick, found = trained(with_kernels(True), tmp_path, stage, kind, updates=6, device="cuda")
    assert found == pytest.approx(expected, rel=5e-2)
    begun = trained(with_kernels(False), tmp_path, stage, PlainUpdate, updates=0, device="cuda")[0]
    # bf16 rounds elsewhere, and Adam makes whole steps of the smallest gradients
    assert apart(quick, plain) < 0.5 * apart(begun, plain)
