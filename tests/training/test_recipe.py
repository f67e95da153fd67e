"""What the paper's recipe is made of: ways of the reference, faces, stages 1 and 2, filmed clips, accumulation."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from xdyna.cli import main
from xdyna.data.prepared.options import SynthOptions
from xdyna.data.prepared.synth import synth
from xdyna.errors import InputError, OptionError
from xdyna.models import ReferenceNet
from xdyna.training.averages import Averages
from xdyna.training.checkpoints import export_model, load_run
from xdyna.training.config import ModelConfig, TrainConfig
from xdyna.training.config_file import load_config
from xdyna.training.loop import train
from xdyna.training.networks import build_networks
from xdyna.training.processes import Processes
from xdyna.training.stages import STAGES
from xdyna.training.trainer import Trainer
from xdyna.weights import load_components, read_preset

CONFIGS = Path(__file__).parents[2] / "configs" / "train"


def short(config: TrainConfig, *stages: str, **model: object) -> TrainConfig:
    """Only some stages, and another model."""
    if isinstance(of_unet := model.get("unet"), dict):
        model = model | {"unet": dataclasses.replace(config.model.unet, **of_unet)}
    return dataclasses.replace(
        config, stages=stages, model=dataclasses.replace(config.model, **model)  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize(
    "model",
    [
        {"reference": "reference-net"},
        {"reference": "ip-adapter", "image_tokens": 4, "token_width": 16},
        {"face": "landmarks"},
        {"face": "none"},
        {"reference_pose": True},
        {"unet": {"moved_reference": True}},
    ],
    ids=["w_refnet", "w_ip_adapter", "w_landmarks", "wo_face", "reference_pose", "moved_reference"],
)
def test_every_ablation_trains_and_exports(
    smoke_config: TrainConfig, tmp_path: Path, model: dict[str, object]
) -> None:
    config = short(smoke_config, "image", "clips", **model)
    assert train(config, output=tmp_path / "run", device="cpu").finished
    export_model(tmp_path / "run", tmp_path / "model", storage="fp32")
    parts = load_components(tmp_path / "model")
    fresh = build_networks(config, seed=config.seed)
    for name, network in fresh.named().items():
        assert parts[name] is not None
        if name == "vae":
            continue
        found = parts[name].state_dict()
        assert any(not torch.equal(found[key], value) for key, value in network.state_dict().items()), name
    assert (parts.get("face_controlnet") is None) == ("face" in model)
    assert read_preset(tmp_path / "model").landmarks == (model.get("face") == "landmarks")
    assert read_preset(tmp_path / "model").reference_pose == bool(model.get("reference_pose"))


def test_the_ablations_of_table_4_are_configs_that_differ_in_one_point() -> None:
    base = load_config(CONFIGS / "embedded.toml")
    expected = {
        "w_refnet": ("model", "reference", "reference-net"),
        "w_ip_adapter": ("model", "reference", "ip-adapter"),
        "w_landmarks": ("model", "face", "landmarks"),
        "wo_face": ("model", "face", "none"),
        "wo_fusion": ("data", "human_share", 1.0),
    }
    assert {path.stem for path in (CONFIGS / "ablations").glob("*.toml")} == set(expected)
    for name, (part, key, value) in expected.items():
        config = load_config(CONFIGS / "ablations" / f"{name}.toml")
        changed = dataclasses.replace(getattr(base, part), **{key: value})
        if key == "reference":  # what is not of the paper goes with its own way only
            changed = dataclasses.replace(
                changed, unet=dataclasses.replace(changed.unet, moved_reference=False)
            )
        assert config == dataclasses.replace(base, **{part: changed})


def test_stages_of_the_paper_train_what_it_says(smoke_config: TrainConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(
        smoke_config,
        stages=("stage1", "stage2"),
        stage1=smoke_config.clips,
        stage2=dataclasses.replace(smoke_config.clips, pool=2),
    )
    before = build_networks(config, seed=config.seed).named()

    def changed() -> set[str]:
        _, networks, _ = load_run(tmp_path, average=False)
        return {
            f"{name}.{key}"
            for name, network in networks.named().items()
            for key, value in network.state_dict().items()
            if not torch.equal(value, before[name].state_dict()[key])
        }

    train(config, output=tmp_path, max_steps=2, device="cpu")
    first = changed()
    assert any("to_out_ff" in key for key in first)
    assert any("motion_modules" in key for key in first)
    assert any(key.startswith("pose_controlnet.") for key in first)
    allowed = ("to_q_ff", "to_out_ff", "motion_modules", "pose_controlnet.")
    assert not [key for key in first if not any(part in key for part in allowed)]
    assert train(config, output=tmp_path, device="cpu").finished
    second = changed() - first
    assert second
    assert all(key.startswith("face_controlnet.") for key in second)


def test_stage_2_sees_people_only(smoke_config: TrainConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(
        smoke_config, stages=("stage2",), stage2=dataclasses.replace(smoke_config.clips, pool=6, steps=1)
    )
    trainer = Trainer(config, tmp_path, Processes("cpu", precision="no"), resume=False)
    pool = trainer._enter("stage2")
    assert bool(pool.human.all())
    assert pool.conditions[:, 1:].flatten(1).any(1).all()


@pytest.mark.parametrize(("shift", "above_half"), [(1.0, 0.5), (3.0, 0.75)])
def test_a_shift_trains_noisy_timesteps_more_often(
    smoke_config: TrainConfig, tmp_path: Path, shift: float, above_half: float
) -> None:
    noise = dataclasses.replace(smoke_config.noise, timestep_shift=shift)
    config = dataclasses.replace(smoke_config, noise=noise, stages=("image",))
    trainer = Trainer(config, tmp_path, Processes("cpu", precision="no"), resume=False)
    pool = trainer._enter("image")
    settings = dataclasses.replace(config.image, batch=400)
    timesteps = STAGES["image"].draw(trainer.run, pool, settings)["timesteps"]
    assert timesteps.min() >= 0
    assert timesteps.max() <= 999
    assert abs((timesteps >= 500).float().mean().item() - above_half) < 0.08


def test_filmed_clips_train_like_made_ones(smoke_config: TrainConfig, tmp_path: Path) -> None:
    synth(tmp_path / "data", options=SynthOptions(clips=4, frames=12, size="64", seed=3, workers=1))
    manifest = tmp_path / "data" / "manifest.jsonl"
    data = dataclasses.replace(
        smoke_config.data, source="prepared", manifests=(str(manifest),), faces="same", stride=(1, 2)
    )
    config = dataclasses.replace(smoke_config, stages=("image", "clips"), data=data)
    assert train(config, output=tmp_path / "run", device="cpu").finished
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in lines} == {"image", "clips"}
    assert all(torch.isfinite(torch.tensor(line["loss"])) for line in lines)
    record = json.loads((tmp_path / "run" / "run.json").read_text())["starts"][0]
    assert len(record["manifests"][str(manifest)]) >= 16
    assert record["seed"] == config.seed


def test_accumulated_passes_are_one_large_batch(smoke_config: TrainConfig, tmp_path: Path) -> None:
    """Two passes of one clip each and one pass of the same two clips move the weights alike."""
    weights = []
    for batch, accumulate in ((2, 1), (1, 2)):
        stage = dataclasses.replace(smoke_config.clips, batch=batch, accumulate=accumulate, steps=1)
        config = dataclasses.replace(smoke_config, stages=("clips",), clips=stage)
        trainer = Trainer(config, tmp_path, Processes("cpu", precision="no"), resume=False)
        pool = trainer._enter("clips")
        whole = STAGES["clips"].draw(trainer.run, pool, dataclasses.replace(stage, batch=2))
        # every clip counts alike, however its weights are spread over passes
        whole["weights"] = torch.ones_like(whole["weights"])
        parts = [{k: v[i : i + batch] for k, v in whole.items()} for i in range(0, 2, batch)]
        assert trainer.update is not None
        trainer.update(iter(parts).__next__)
        weights.append(trainer.run.networks.unet.conv_out.weight.detach().clone())
    torch.testing.assert_close(weights[0], weights[1], atol=1e-5, rtol=1e-4)


def test_models_are_kept_and_load(smoke_config: TrainConfig, tmp_path: Path) -> None:
    runtime = dataclasses.replace(smoke_config.runtime, keep=2, samples=1, tensorboard=True)
    config = dataclasses.replace(smoke_config, runtime=runtime)
    assert train(config, output=tmp_path, device="cpu").finished
    kept = sorted(path.name for path in (tmp_path / "models").iterdir())
    assert kept == ["clips-0000002", "image-0000002"]
    assert load_components(tmp_path / "models" / "clips-0000002")["unet"] is not None
    assert list((tmp_path / "samples").glob("clips-*.png"))
    assert list((tmp_path / "tensorboard").iterdir())


def test_at_step_0_the_adapter_and_the_controlnets_change_nothing(smoke_config: TrainConfig) -> None:
    denoiser = build_networks(smoke_config, seed=1).denoiser().eval()
    noisy, reference = torch.randn(1, 4, 2, 8, 8), torch.randn(1, 4, 8, 8)
    maps = {"pose": torch.rand(1, 2, 3, 64, 64), "face": torch.rand(1, 2, 6, 64, 64)}
    with torch.no_grad():
        whole = denoiser(noisy, torch.tensor([500]), reference=reference, **maps)
        without = denoiser(noisy, torch.tensor([500]), reference=reference, reference_scale=0.0)
    torch.testing.assert_close(whole, without)


def test_a_reference_net_starts_as_the_initial_model(
    finished_run: Path, smoke_config: TrainConfig, tmp_path: Path
) -> None:
    export_model(finished_run, tmp_path / "model", storage="fp32")
    config = dataclasses.replace(
        short(smoke_config, "image", reference="reference-net"), initial=str(tmp_path / "model")
    )
    trainer = Trainer(config, tmp_path, Processes("cpu", precision="no"), resume=False)
    network = trainer.run.networks.reference_net
    assert network is not None
    expected = ReferenceNet.for_denoiser(trainer.run.networks.unet).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())


def test_averages_follow_and_settle() -> None:
    weight = torch.nn.Parameter(torch.zeros(3))
    averages = Averages({"w": weight}, decay=0.5)
    with torch.no_grad():
        weight.fill_(1.0)
    averages.pace(100)
    averages.update()
    torch.testing.assert_close(averages.values["w"], torch.full((3,), 0.5))
    averages.settle()
    torch.testing.assert_close(weight.detach(), torch.full((3,), 0.5))
    none = Averages({"w": weight}, decay=0.0)
    none.update()
    none.settle()
    assert not none.values


def test_the_published_kind_has_the_published_keys() -> None:
    manifests = Path(__file__).parents[3] / "shared" / "reference" / "manifest"
    if not manifests.is_dir():
        pytest.skip("the manifests of the official checkpoints are not beside this checkout")
    config = dataclasses.replace(TrainConfig(), model=ModelConfig(kind="sd15", size=(896, 512)))
    with torch.device("meta"):
        networks = build_networks(config, seed=1).named()
    for name, file in (
        ("unet", "unet"), ("pose_controlnet", "controlnet_pose"), ("face_controlnet", "controlnet_sface"),
        ("image_projector", "resampler_image_proj"),
    ):  # fmt: skip
        keys = json.loads((manifests / f"{file}.json").read_text())["keys"]
        found = {key: list(value.shape) for key, value in networks[name].state_dict().items()}
        assert found == {key: value["shape"] for key, value in keys.items()}, name


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("model.reference=memory", "model.reference"),
        ("noise.prediction=epsilon", "zero_snr"),
        ("data.source=prepared", "manifests"),
        ("clips.schedule=steps", "schedule"),
        ("clips.accumulate=0", "accumulate"),
        ("runtime.precision=int4", "precision"),
    ],
)
def test_settings_that_make_no_sense_are_errors(override: str, named: str) -> None:
    with pytest.raises(OptionError, match=named):
        load_config(CONFIGS / "smoke.toml", overrides=[override])


def test_a_base_that_leads_back_or_nowhere_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('base = "b.toml"\n')
    (tmp_path / "b.toml").write_text('base = "a.toml"\n')
    with pytest.raises(OptionError, match="circle"):
        load_config(tmp_path / "a.toml")
    (tmp_path / "b.toml").write_text('base = "c.toml"\n')
    with pytest.raises(InputError, match=r"c\.toml"):
        load_config(tmp_path / "a.toml")


def test_graphs_are_for_cuda_only(smoke_config: TrainConfig, tmp_path: Path) -> None:
    runtime = dataclasses.replace(smoke_config.runtime, graphs=True)
    config = dataclasses.replace(smoke_config, runtime=runtime, stages=("autoencoder",))
    assert train(config, output=tmp_path, device="cpu").finished, "on a CPU they are simply not used"


def test_the_command_says_how_it_goes_and_what_comes_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(CONFIGS / "smoke.toml"), "-o", str(tmp_path), "--set", "stages=['autoencoder']"]
    assert main([*words, "--max-minutes", "0"]) == 0
    assert "same command goes on" in capsys.readouterr().out
    assert main(words) == 0
    assert "trained" in capsys.readouterr().out
