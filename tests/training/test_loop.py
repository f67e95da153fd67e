from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path

import pytest
import torch

from xdyna.errors import OptionError, OutputError, ResourceError, WeightsError
from xdyna.evaluation.judge import Judge
from xdyna.training.checkpoints import load_run, load_state
from xdyna.training.config import StageConfig, TrainConfig
from xdyna.training.loop import run, train
from xdyna.training.networks import build_networks
from xdyna.training.schedule import learning_rate
from xdyna.training.stages import STAGES


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    state = load_state(folder)
    assert state is not None
    return {f"{n}.{k}": v for n, part in state["networks"].items() for k, v in part.items()}


def test_every_stage_runs_and_is_logged(finished_run: Path, smoke_config: TrainConfig) -> None:
    lines = [json.loads(line) for line in (finished_run / "log.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == list(smoke_config.stages)
    assert all(line["step"] == 2 and torch.isfinite(torch.tensor(line["loss"])) for line in lines)


def test_every_network_learned_and_motion_modules_only_from_clips(
    finished_run: Path, smoke_config: TrainConfig
) -> None:
    fresh = build_networks(smoke_config, seed=smoke_config.seed)
    _, trained, _ = load_run(finished_run)
    for name, network in trained.named().items():
        before = fresh.named()[name].state_dict()
        changed = [key for key, value in network.state_dict().items() if not torch.equal(value, before[key])]
        assert changed, f"{name} did not learn"
    assert any("motion_modules" in key for key in trained.unet.state_dict())


def test_a_run_of_an_older_version_is_told_apart(
    finished_run: Path, smoke_config: TrainConfig, tmp_path: Path
) -> None:
    state = load_state(finished_run)
    assert state is not None
    del state["pools"]
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(OptionError, match="older version"):
        train(smoke_config, output=tmp_path, device="cpu")


def test_a_finished_judge_is_trained_further(smoke_config: TrainConfig, tmp_path: Path) -> None:
    made = Judge(smoke_config.judge_width)
    made.save(tmp_path / "judge.safetensors")
    stored = Judge.load(tmp_path / "judge.safetensors").state_dict()
    config = dataclasses.replace(
        smoke_config, stages=("judge",), initial_judge=str(tmp_path / "judge.safetensors")
    )
    train(config, output=tmp_path / "run", max_steps=1, device="cpu")
    _, _, judge = load_run(tmp_path / "run")
    started = torch.cat([(judge.state_dict()[key] - value).abs().flatten() for key, value in stored.items()])
    assert 0 < started.max() < 0.01, "one step from where it was"
    with pytest.raises(OptionError, match="judge_width"):
        train(dataclasses.replace(config, judge_width=24), output=tmp_path / "other", device="cpu")


@pytest.mark.parametrize("stop_after", [1, 5])
def test_a_resumed_run_ends_like_one_that_never_stopped(
    finished_run: Path, smoke_config: TrainConfig, tmp_path: Path, stop_after: int
) -> None:
    stopped = train(smoke_config, output=tmp_path, max_steps=stop_after, device="cpu")
    assert not stopped.finished
    assert sum(stopped.steps.values()) == stop_after
    assert train(smoke_config, output=tmp_path, device="cpu").finished
    whole, resumed = weights_of(finished_run), weights_of(tmp_path)
    assert whole.keys() == resumed.keys()
    different = [key for key, value in whole.items() if not torch.equal(value, resumed[key])]
    assert not different


def test_a_finished_run_does_nothing_more(finished_run: Path, smoke_config: TrainConfig) -> None:
    before = weights_of(finished_run)
    assert train(smoke_config, output=finished_run, device="cpu").finished
    assert all(torch.equal(value, before[key]) for key, value in weights_of(finished_run).items())


def test_a_budget_in_minutes_stops_cleanly(smoke_config: TrainConfig, tmp_path: Path) -> None:
    progress = train(smoke_config, output=tmp_path, max_minutes=0.0, device="cpu")
    assert not progress.finished
    assert load_state(tmp_path) is not None


def test_a_termination_signal_saves_and_stops(
    smoke_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = STAGES["autoencoder"].draw

    def draw_and_signal(*arguments: object) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setitem(
        STAGES,
        "autoencoder",
        dataclasses.replace(STAGES["autoencoder"], draw=draw_and_signal),  # type: ignore[arg-type]
    )
    old = signal.getsignal(signal.SIGTERM)
    progress = train(smoke_config, output=tmp_path, device="cpu")
    assert signal.getsignal(signal.SIGTERM) is old
    assert progress.steps == {"autoencoder": 1}
    state = load_state(tmp_path)
    assert state is not None
    assert state["steps"] == {"autoencoder": 1}


def test_the_learning_rate_warms_up_stays_and_decays() -> None:
    stage = StageConfig(steps=100, learning_rate=1.0, warmup=10, decay_from=0.5, final_learning_rate=0.1)
    rates = [learning_rate(stage, step, step / 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[20] == rates[50] == 1.0
    assert rates[75] == pytest.approx(0.55)
    assert rates[100] == pytest.approx(0.1)


def test_autoencoder_learns_to_reconstruct(smoke_config: TrainConfig, tmp_path: Path) -> None:
    stage = StageConfig(steps=40, batch=8, frames=2, pool=4, crop=32, learning_rate=5e-3, warmup=5)
    config = dataclasses.replace(
        smoke_config,
        stages=("autoencoder",),
        autoencoder=stage,
        runtime=dataclasses.replace(smoke_config.runtime, log_seconds=0.0),
    )
    train(config, output=tmp_path, device="cpu")
    losses = [json.loads(line)["rebuilt"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(losses) == 40
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_another_model_in_the_folder_is_an_error(finished_run: Path, smoke_config: TrainConfig) -> None:
    other = dataclasses.replace(smoke_config, seed=2)
    with pytest.raises(OptionError, match="seed"):
        train(other, output=finished_run, device="cpu")


def test_a_damaged_state_is_an_error(smoke_config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"not a state")
    with pytest.raises(WeightsError, match=r"state\.pt"):
        train(smoke_config, output=tmp_path, device="cpu")


def test_a_folder_that_cannot_be_is_an_error(smoke_config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        train(smoke_config, output=tmp_path / "file" / "run", device="cpu")


def test_unknown_and_absent_devices_are_errors(tmp_path: Path) -> None:
    smoke = Path(__file__).parents[2] / "configs" / "train" / "smoke.toml"
    with pytest.raises(OptionError, match="toaster"):
        run(smoke, tmp_path, device="toaster")
    if not torch.cuda.is_available():
        with pytest.raises(ResourceError, match="cuda"):
            run(smoke, tmp_path, device="cuda")
