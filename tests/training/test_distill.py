"""Stage `distill`: a student whose one step does what two of its teacher's do."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.test_processes import launch
from xdyna.errors import InputError, OptionError
from xdyna.sampling import start_latents
from xdyna.training.checkpoints import export_model, export_student, load_state
from xdyna.training.config import StageConfig, TrainConfig
from xdyna.training.config_file import load_config
from xdyna.training.distill import (
    StudentLearner,
    alpha_bar,
    ddim_step,
    distill_losses,
    draw_steps,
    make_student,
    velocity_between,
)
from xdyna.training.loop import train
from xdyna.training.networks import build_networks, build_scheduler
from xdyna.training.processes import Processes
from xdyna.training.stages import STAGES
from xdyna.training.steps import given_conditions
from xdyna.training.trainer import Trainer
from xdyna.training.updates import FlatUpdate, GraphedUpdate, PlainUpdate

CONFIGS = Path(__file__).parents[2] / "configs" / "train"


@pytest.fixture(scope="module")
def teacher(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of toy widths."""
    folder = tmp_path_factory.mktemp("teacher") / "model"
    export_model(finished_run, folder, storage="fp32")
    return folder


@pytest.fixture
def config(smoke_config: TrainConfig, teacher: Path) -> TrainConfig:
    stage = StageConfig(
        steps=4, batch=2, frames=4, pool=2, learning_rate=5e-3, warmup=1, weight_decay=0.0, ema=0.5
    )
    return dataclasses.replace(smoke_config, stages=("distill",), initial=str(teacher), distill=stage)


def started(config: TrainConfig, folder: Path) -> Trainer:
    return Trainer(config, folder, Processes("cpu", precision="no"), resume=False)


def test_a_step_and_the_velocity_that_makes_it() -> None:
    noisy, velocity = torch.randn(2, 4, 3, 5, 5), torch.randn(2, 4, 3, 5, 5)
    now, after = torch.tensor([0.0, 0.3]).view(-1, 1, 1, 1, 1), torch.tensor([0.2, 1.0]).view(-1, 1, 1, 1, 1)
    arrived = ddim_step(noisy, velocity, now, after)
    torch.testing.assert_close(velocity_between(noisy, arrived, now, after), velocity, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 3, 4, 8])
def test_our_step_is_the_schedulers(config: TrainConfig, tmp_path: Path, steps: int) -> None:
    run = started(config, tmp_path).run
    scheduler = build_scheduler(config.noise)
    scheduler.set_timesteps(steps)
    noisy, velocity = torch.randn(1, 4, 2, 8, 8), torch.randn(1, 4, 2, 8, 8)
    for timestep in scheduler.timesteps:
        expected = scheduler.step(velocity, timestep, noisy).prev_sample
        now, after = timestep[None], timestep[None] - 1000 // steps
        found = ddim_step(noisy, velocity, alpha_bar(run, now), alpha_bar(run, after))
        torch.testing.assert_close(found, expected)


def test_clips_are_drawn_where_the_students_steps_begin(config: TrainConfig, tmp_path: Path) -> None:
    trainer = started(config, tmp_path)
    pool = trainer._enter("distill")
    drawn = [draw_steps(trainer.run, pool, config.distill)["timesteps"] for _ in range(40)]
    assert set(torch.cat(drawn).tolist()) == {249, 499, 749, 999}


def sampled(trainer: Trainer, batch: dict[str, torch.Tensor], *, steps: int, student: bool) -> torch.Tensor:
    """DDIM samples by the teacher or by the student, from the same noise."""
    run = trainer.run
    scheduler = build_scheduler(run.config.noise)
    scheduler.set_timesteps(steps)
    assert run.student is not None
    denoiser = run.networks.denoiser()
    learner = StudentLearner(denoiser, run.student)
    given = given_conditions(run, batch)
    latents = start_latents(
        batch["reference"], 4, scheduler, generator=torch.Generator().manual_seed(3), shared_noise=0.0
    )
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            times = timestep.expand(len(latents))
            velocity = learner(latents, times, given) if student else denoiser(latents, times, **given)
            latents = scheduler.step(velocity, timestep, latents).prev_sample
    return latents


def test_the_student_learns_to_take_its_teachers_double_steps(config: TrainConfig, tmp_path: Path) -> None:
    """Loss falls, and so does the distance of its samples from the teacher's of twice the steps."""
    student = dataclasses.replace(config.student, steps=2, rank=8, convolutions=True)
    stage = dataclasses.replace(config.distill, steps=90, learning_rate=1e-2, warmup=5, ema=0.9)
    runtime = dataclasses.replace(config.runtime, log_seconds=0.0, keep=0)
    trainer = started(dataclasses.replace(config, student=student, distill=stage, runtime=runtime), tmp_path)
    pool = trainer._enter("distill")
    batch = draw_steps(trainer.run, pool, stage)
    before = {key: value.clone() for key, value in trainer.run.networks.unet.state_dict().items()}
    target = sampled(trainer, batch, steps=4, student=False)
    apart = (sampled(trainer, batch, steps=2, student=False) - target).square().mean()
    assert trainer.update is not None
    losses = []
    for step in range(stage.steps):
        trainer._pace(1e-2 * min(1.0, 2 - 2 * step / stage.steps), step + 1)
        made = trainer.update(lambda: draw_steps(trainer.run, pool, stage))
        losses.append((made["loss"] / made["undistilled"]).item())
    assert losses[0] == pytest.approx(1, rel=1e-5), "a fresh student is its teacher"
    assert sum(losses[-20:]) / 20 < 0.7
    assert (sampled(trainer, batch, steps=2, student=True) - target).square().mean() < 0.8 * apart
    after = trainer.run.networks.unet.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items()), "the teacher stays"


def test_a_resumed_run_ends_with_the_same_student(config: TrainConfig, tmp_path: Path) -> None:
    for folder, stops in (("whole", []), ("stopped", [1, 1])):
        for stop in stops:
            assert not train(config, output=tmp_path / folder, max_steps=stop, device="cpu").finished
        assert train(config, output=tmp_path / folder, device="cpu").finished
    states = [load_state(tmp_path / folder) for folder in ("whole", "stopped")]
    assert states[0] is not None
    assert states[1] is not None
    first, second = (state["networks"]["student"] for state in states if state is not None)
    assert any(value.any() for key, value in first.items() if "lora_B" in key), "it learned something"
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    other = dataclasses.replace(config, student=dataclasses.replace(config.student, rank=2))
    with pytest.raises(OptionError, match="student"):
        train(other, output=tmp_path / "whole", device="cpu")


def taught(
    config: TrainConfig, folder: Path, kind: type[PlainUpdate], *, device: str = "cpu"
) -> torch.Tensor:
    """A student's numbers after a few updates of one kind; recording begins after the third."""
    processes = Processes(device, precision=config.runtime.precision)
    trainer = Trainer(config, folder, processes, resume=False)
    pool = trainer._enter("distill")
    assert trainer.run.student is not None
    assert trainer.optimiser is not None
    assert trainer.averages is not None
    learner = STAGES["distill"].learner(trainer.run)
    update = kind(
        trainer.run, processes.prepare(learner) if kind is PlainUpdate else learner, distill_losses,
        optimiser=trainer.optimiser, averages=trainer.averages, processes=processes, clip_norm=1.0, accumulate=1,
    )  # fmt: skip
    for step in range(3 if device == "cpu" else 6):
        trainer._pace(1e-3, step + 1)
        update(lambda: draw_steps(trainer.run, pool, config.distill))
    return torch.cat([p.detach().flatten() for p in trainer.run.student.parameters()])


def test_gradients_in_one_tensor_teach_the_same(config: TrainConfig, tmp_path: Path) -> None:
    """What CUDA graphs record is what runs plainly."""
    flat, plain = (taught(config, tmp_path, kind) for kind in (FlatUpdate, PlainUpdate))
    torch.testing.assert_close(flat, plain, atol=1e-4, rtol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.usefixtures("other_precision")
@pytest.mark.parametrize("fused", [False, True])
def test_a_recorded_update_teaches_the_same(config: TrainConfig, tmp_path: Path, fused: bool) -> None:
    def with_kernels(used: bool) -> TrainConfig:
        runtime = dataclasses.replace(config.runtime, precision="bf16", fused=used)
        return dataclasses.replace(config, runtime=runtime)

    plain = taught(with_kernels(False), tmp_path, PlainUpdate, device="cuda")
    graphed = taught(with_kernels(fused), tmp_path, GraphedUpdate, device="cuda")
    student = make_student(config, build_networks(config, seed=config.seed))
    begun = torch.cat([p.detach().flatten() for p in student.parameters()]).to(plain.device)
    # bf16 rounds elsewhere, and Adam makes whole steps of the smallest gradients
    assert (graphed - plain).norm() < 0.5 * (begun - plain).norm()


def test_two_processes_teach_one_student(teacher: Path, tmp_path: Path) -> None:
    done = launch(
        "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "xdyna.training",
        str(CONFIGS / "smoke.toml"), "-o", str(tmp_path), "--device", "cpu",
        *(word for setting in (
            "stages=['distill']", f"initial={teacher}", "distill.steps=2", "distill.batch=2", "distill.frames=4",
            "distill.pool=2", "runtime.save_pools=false",
        ) for word in ("--set", setting)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    line = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert line["stage"] == "distill"
    assert line["loss"] > 0


def test_the_student_is_exported_as_a_lora(config: TrainConfig, teacher: Path, tmp_path: Path) -> None:
    assert train(config, output=tmp_path / "run", device="cpu").finished
    export_student(tmp_path / "run", tmp_path / "fast.safetensors")
    found = load_file(tmp_path / "fast.safetensors")
    name = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    assert found[f"{name}.lora_A.weight"].shape == (4, 16)
    assert found[f"{name}.lora_B.weight"].shape == (16, 4)
    assert all(value.dtype == torch.bfloat16 for value in found.values())
    export_model(tmp_path / "run", tmp_path / "model", storage="fp32")
    assert (tmp_path / "model" / "fast.safetensors").is_file()
    with pytest.raises(InputError, match="distill"):
        export_student(tmp_path / "nothing", tmp_path / "other.safetensors")


def test_a_teacher_trained_otherwise_is_named(config: TrainConfig, tmp_path: Path) -> None:
    noise = dataclasses.replace(config.noise, shared=0.5)
    model = dataclasses.replace(config.model, reference_pose=True)
    with pytest.raises(OptionError, match=r"--set model\.reference_pose=false --set noise\.shared=0\.0"):
        started(dataclasses.replace(config, noise=noise, model=model), tmp_path)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("initial=", "teacher"),
        ("student.steps=0", "student.steps"),
        ("student.steps=600", "1000"),
        ("runtime.compile=true", "compile"),
        ("runtime.checkpoint_gradients=true", "checkpoint_gradients"),
        ("noise.zero_snr=false", "zero_snr"),
    ],
)
def test_settings_that_cannot_be_distilled_are_errors(override: str, named: str) -> None:
    with pytest.raises(OptionError, match=named):
        load_config(CONFIGS / "embedded-fast.toml", overrides=[override])


def test_the_shipped_recipe_reads() -> None:
    config = load_config(CONFIGS / "embedded-fast.toml")
    assert (config.stages, config.initial) == (("distill",), "embedded")
    assert config.student.steps * config.student.substeps == 8, "what the embedded model's own default is"
