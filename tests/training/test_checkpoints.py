from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from xdyna.errors import InputError, OptionError, WeightsError
from xdyna.evaluation.judge import Judge
from xdyna.training.__main__ import main
from xdyna.training.checkpoints import MEBI, export_model, export_split, join_split, load_run
from xdyna.training.config import TrainConfig
from xdyna.training.loop import train
from xdyna.weights import load_components, read_preset

NETWORKS = ("unet", "vae", "pose_controlnet", "face_controlnet")


def test_an_export_loads_as_a_model_with_the_trained_weights(finished_run: Path, tmp_path: Path) -> None:
    export_model(finished_run, tmp_path / "model", storage="fp32")
    config, networks, _ = load_run(finished_run)
    parts = load_components(tmp_path / "model")
    for name in NETWORKS:
        expected = networks.named()[name].state_dict()
        found = parts[name].state_dict()
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, msg=f"{name}.{key}")
    vae = parts["vae"].config
    assert (vae.scaling_factor, vae.shift_factor) != (1.0, 0.0), "the latents' spread was not measured"
    assert parts["scheduler"].config.prediction_type == "v_prediction"
    preset = read_preset(tmp_path / "model")
    assert (preset.height, preset.width) == config.model.size
    assert preset.guidance == 1.0
    assert "Apache-2.0" in (tmp_path / "model" / "README.md").read_text()


def test_int8_is_small_and_close(finished_run: Path, tmp_path: Path) -> None:
    export_model(finished_run, tmp_path / "small")
    export_model(finished_run, tmp_path / "large", storage="fp32")
    sizes = [sum(f.stat().st_size for f in (tmp_path / n).rglob("*.safetensors")) for n in ("small", "large")]
    assert sizes[0] < 0.5 * sizes[1]
    _, networks, _ = load_run(finished_run)
    found = load_components(tmp_path / "small", names=("vae",))["vae"].state_dict()
    weight = networks.vae.encoder.conv_in.weight
    assert (found["encoder.conv_in.weight"] - weight).abs().max() < weight.abs().max() / 100


def test_parts_stay_below_the_limit_and_join_to_the_same_model(finished_run: Path, tmp_path: Path) -> None:
    files = export_split(finished_run, tmp_path / "parts", limit=1)
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert len(weights) > 1
    assert all(path.stat().st_size <= MEBI for path in files)
    shutil.rmtree(tmp_path / "parts", ignore_errors=False) if not files else None
    join_split(tmp_path / "parts", tmp_path / "joined" / "model", storage="fp32")
    _, networks, judge = load_run(finished_run)
    parts = load_components(tmp_path / "joined" / "model")
    for name in NETWORKS:
        for key, value in networks.named()[name].state_dict().items():
            torch.testing.assert_close(parts[name].state_dict()[key], value, atol=0, rtol=2**-8)
    assert parts["vae"].config.scaling_factor == pytest.approx(networks.vae.config.scaling_factor)
    read = Judge.load(tmp_path / "joined" / "judge.safetensors").state_dict()
    torch.testing.assert_close(read["figure.stem.weight"], judge.figure.stem.weight, atol=1e-3, rtol=1e-2)


def test_what_cannot_be_exported_or_joined_is_an_error(finished_run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"state\.pt"):
        export_model(tmp_path, tmp_path / "model")
    with pytest.raises(InputError, match="complete"):
        join_split(tmp_path, tmp_path / "model")
    with pytest.raises(OptionError, match="--split"):
        export_split(finished_run, tmp_path / "parts", limit=0)
    files = export_split(finished_run, tmp_path / "parts", limit=1)
    files[0].unlink()
    with pytest.raises(InputError, match="complete"):
        join_split(tmp_path / "parts", tmp_path / "model")


def test_the_command_line_exports_splits_and_joins(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(finished_run), str(tmp_path / "model")]) == 0
    assert main(["export", str(finished_run), str(tmp_path / "parts"), "--split", "15"]) == 0
    assert main(["join", str(tmp_path / "parts"), str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "model_index.json").is_file()
    assert main(["export", str(tmp_path), str(tmp_path / "nothing")]) == 2
    assert "state.pt" in capsys.readouterr().err


def test_a_fresh_run_can_start_from_a_model(
    finished_run: Path, smoke_config: TrainConfig, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    export_model(finished_run, model, storage="fp32")
    config = dataclasses.replace(smoke_config, initial=str(model), stages=("image",), seed=99)
    train(config, output=tmp_path / "run", max_steps=1, device="cpu")
    _, before, _ = load_run(finished_run)
    _, after, _ = load_run(tmp_path / "run", average=False)
    for key, value in before.vae.state_dict().items():
        assert torch.equal(value, after.vae.state_dict()[key]), key
    assert after.vae.config.scaling_factor == pytest.approx(before.vae.config.scaling_factor)
    changed = [
        key
        for key, value in before.unet.state_dict().items()
        if not torch.equal(value, after.unet.state_dict()[key])
    ]
    assert changed
    wider = dataclasses.replace(config.model.unet, channels=tuple(2 * c for c in config.model.unet.channels))
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, unet=wider))
    with pytest.raises(WeightsError, match="does not fit the config"):
        train(config, output=tmp_path / "other", max_steps=1, device="cpu")


def test_a_split_export_can_leave_the_judge_out(finished_run: Path, tmp_path: Path) -> None:
    export_split(finished_run, tmp_path / "parts", with_judge=False)
    join_split(tmp_path / "parts", tmp_path / "joined" / "model", storage="fp32")
    assert load_components(tmp_path / "joined" / "model")["unet"] is not None
    assert not (tmp_path / "joined" / "judge.safetensors").exists()
