"""`--preset fast`, LoRAs and the other options of fewer steps, through the pipeline and the command."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny import PRESET, dancer, noise_frames, tiny_components, tiny_model, write_video
from xdyna import media, weights
from xdyna.animate import animate_file, repeat_settings
from xdyna.cli import build_parser, main
from xdyna.errors import OptionError, WeightsError
from xdyna.flags import given_options
from xdyna.model_preset import ModelPreset
from xdyna.models.low_rank import LowRankDeltas
from xdyna.options import AnimateOptions, from_mapping
from xdyna.pipeline import XDynaPipeline
from xdyna.sampling import make_scheduler, set_timesteps
from xdyna.weights.lora_file import write_lora


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    media.write_image(folder / "reference.png", noise_frames(1, seed=4)[0])
    write_video(folder / "dance.mp4", noise_frames(6, seed=5))
    dancer(6).save(folder / "dance.npz")
    dancer(1).save(folder / "reference.npz")
    tiny_model(folder / "model")
    return {
        "image": folder / "reference.png", "video": folder / "dance.mp4", "keypoints": folder / "dance.npz",
        "reference_keypoints": folder / "reference.npz", "model": folder / "model",
    }  # fmt: skip


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA of the tiny denoiser that says nothing about itself."""
    path = tmp_path_factory.mktemp("lora") / "lcm.safetensors"
    write_lora(path, changes(3), steps=0, base="")
    return path


def changes(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    deltas = LowRankDeltas(tiny_components()["unet"], rank=2, convolutions=True)
    return {
        name: torch.randn_like(value) * (0.3 if "lora_B" in name else 1.0)
        for name, value in deltas.state_dict().items()
    }


def options(inputs: dict[str, Path], **changes_: Any) -> AnimateOptions:
    given: dict[str, Any] = {
        name: str(inputs[name]) for name in ("keypoints", "reference_keypoints", "model")
    }
    return AnimateOptions(device="cpu", **given, **changes_)


def pipeline(preset: ModelPreset = PRESET) -> XDynaPipeline:
    return XDynaPipeline(**tiny_components(), preset=preset)


def test_a_model_made_for_few_steps_takes_half_of_them() -> None:
    few = pipeline(dataclasses.replace(PRESET, steps=8))
    filled = few.fill(AnimateOptions(preset="fast"))
    assert (filled.steps, filled.guidance, filled.scheduler, filled.lora) == (4, 1.0, "DDIMScheduler", ())
    assert few.fill(AnimateOptions()).steps == 8


def test_a_preset_fills_only_what_is_not_given(lora: Path) -> None:
    many = pipeline(dataclasses.replace(PRESET, steps=25, guidance=7.5))
    filled = many.fill(AnimateOptions(preset="fast", lora=(f"{lora}:0.5",)))
    assert (filled.steps, filled.guidance, filled.scheduler) == (6, 1.0, "lcm")
    given = AnimateOptions(preset="fast", lora=(str(lora),), steps=5, guidance=2.0, scheduler="euler")
    assert many.fill(given) == dataclasses.replace(given, refine_face=False, hold_still=False)


def test_a_model_of_many_steps_without_a_lora_is_an_error() -> None:
    many = pipeline(dataclasses.replace(PRESET, steps=25, guidance=7.5))
    with pytest.raises(OptionError, match=r"LCM-LoRA.*--lora"):
        many.fill(AnimateOptions(preset="fast"))


def test_a_model_that_ships_its_lora_uses_it(inputs: dict[str, Path], tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "model")
    before = weights.folder_hash(folder)
    write_lora(folder / "fast.safetensors", changes(7), steps=3, base=before)
    assert weights.folder_hash(folder) == before, "the LoRA is no part of what it was made for"
    loaded = XDynaPipeline.from_pretrained(folder, device="cpu")
    filled = loaded.fill(AnimateOptions(preset="fast"))
    assert (filled.steps, filled.lora, filled.scheduler) == (3, ("fast",), "DDIMScheduler")
    write_lora(folder / "fast.safetensors", changes(7), steps=3, base="0" * 64)
    with pytest.raises(WeightsError, match="other weights"):
        loaded.fill(AnimateOptions(preset="fast"))


def test_the_package_ships_a_lora_of_its_own_weights() -> None:
    pipeline = XDynaPipeline.from_pretrained("embedded", device="cpu")
    filled = pipeline.fill(AnimateOptions(preset="fast"))
    assert (filled.steps, filled.lora, filled.guidance) == (4, ("fast",), 1.0)
    before = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
    pipeline.loras.use(filled.lora)
    changed = [
        name for name, value in pipeline.unet.state_dict().items() if not torch.equal(value, before[name])
    ]
    assert len(changed) > 50


def test_a_fast_run_is_recorded_and_repeated(inputs: dict[str, Path], lora: Path, tmp_path: Path) -> None:
    first = tmp_path / "first.mp4"
    chosen = options(inputs, preset="fast", lora=(f"{lora}:0.5",), cache=2, guidance_interval=(0.2, 0.9))
    animate_file(inputs["image"], inputs["video"], first, options=chosen)
    record = json.loads(first.with_suffix(".json").read_text())
    assert record["options"]["preset"] == "fast"
    assert (record["options"]["steps"], record["options"]["scheduler"]) == (6, "lcm")
    assert record["options"]["lora"] == [f"{lora}:0.5"]
    (active,) = record["model"]["loras"]
    assert (active["name"], active["scale"], len(active["sha256"])) == (str(lora), 0.5, 64)
    image, video, repeated = repeat_settings(first.with_suffix(".json"))
    assert repeated.lora == chosen.lora
    assert repeated.guidance_interval == (0.2, 0.9)
    animate_file(image, video, tmp_path / "second.mp4", options=repeated)
    made, again = (media.read_clip(tmp_path / f"{name}.mp4").frames for name in ("first", "second"))
    assert np.array_equal(made, again)


def test_a_lora_acts_in_the_runs_that_name_it_only(inputs: dict[str, Path], lora: Path) -> None:
    loaded = XDynaPipeline.from_pretrained(inputs["model"], device="cpu")

    def frames(**changed: Any) -> np.ndarray:
        return loaded(inputs["image"], inputs["video"], options=options(inputs, frames=3, **changed)).frames

    plain = frames()
    acted = frames(lora=(str(lora),))
    assert not np.array_equal(plain, acted)
    assert np.array_equal(plain, frames())
    loaded.load_lora(lora)
    assert np.array_equal(acted, frames())
    loaded.load_lora(lora, scale=0)
    assert np.array_equal(plain, frames())
    with pytest.raises(WeightsError, match="hub id"):
        loaded.load_lora("/nowhere/lora.safetensors")


def test_reused_features_and_the_interval_act_through_the_pipeline(inputs: dict[str, Path]) -> None:
    loaded = XDynaPipeline.from_pretrained(inputs["model"], device="cpu")

    def frames(**changed: Any) -> np.ndarray:
        return loaded(
            inputs["image"], inputs["video"], options=options(inputs, frames=3, steps=4, **changed)
        ).frames.astype(int)

    exact, reused = frames(), frames(cache=2)
    assert 0 < np.abs(exact - reused).mean() < 20
    assert np.array_equal(exact, frames(guidance_interval=(0.0, 0.5))), "it has one half only"


def test_flags(lora: Path) -> None:
    words = ["animate", "a.png", "b.mp4", "--lora", "x:0.5", "--lora", "y", "--guidance-interval", "0.1", "0.8",
             "--preset", "fast", "--cache", "3"]  # fmt: skip
    given = given_options(build_parser().parse_args(words), AnimateOptions)
    chosen = from_mapping(AnimateOptions, given, source="command line")
    assert chosen.lora == ("x:0.5", "y")
    assert chosen.guidance_interval == (0.1, 0.8)
    assert (chosen.preset, chosen.cache) == ("fast", 3)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"cache": 0}, "--cache"),
        ({"preset": "slow"}, "--preset"),
        ({"guidance_interval": (0.8, 0.1)}, "LO is above HI"),
        ({"guidance_interval": (0.0, 1.5)}, "at most 1"),
        ({"guidance_interval": (0.0, float("nan"))}, "nan"),
        ({"guidance_interval": (0.0,)}, "takes 2"),
        ({"guidance_interval": ("a", "b")}, "type float"),
        ({"lora": (1,)}, "type str"),
        ({"lora": "x"}, "type tuple"),
    ],
)
def test_values_that_are_not_allowed(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        AnimateOptions(**changed)


def test_a_lora_that_does_not_fit_is_one_line(
    inputs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.safetensors"
    write_lora(bad, {"elsewhere.lora_A.weight": torch.zeros(2, 2)}, steps=0, base="")
    words = ["animate", str(inputs["image"]), str(inputs["video"]), "--model", str(inputs["model"]), "--lora",
             str(bad), "--keypoints", str(inputs["keypoints"]), "--reference-keypoints",
             str(inputs["reference_keypoints"]), "-o", str(tmp_path / "out.mp4"), "-q"]  # fmt: skip
    assert main(words) == 2
    assert "unet.elsewhere.lora_A.weight" in capsys.readouterr().err
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("steps", [1, 4, 8])
@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_lcm_scheduler_ends_where_a_perfect_model_points(
    steps: int, zero_snr: bool, prediction: str
) -> None:
    """Both predictions, and the zero terminal SNR of the embedded model, where alone velocity tells anything."""
    if zero_snr and prediction == "epsilon":
        pytest.skip("at pure noise, the noise itself tells nothing")
    base = tiny_components()["scheduler"]
    base = type(base).from_config(
        base.config, prediction_type=prediction, rescale_betas_zero_snr=zero_snr, timestep_spacing="leading"
    )
    scheduler = make_scheduler("lcm", base)
    assert scheduler.config.prediction_type == prediction
    assert scheduler.config.rescale_betas_zero_snr == zero_snr
    set_timesteps(scheduler, steps, torch.device("cpu"))
    assert len(scheduler.timesteps) == steps
    generator = torch.Generator().manual_seed(2)
    clean = torch.randn(1, 4, 3, 8, 8, generator=generator)
    latents = scheduler.add_noise(
        clean, torch.randn(clean.shape, generator=generator), scheduler.timesteps[:1]
    )
    for timestep in scheduler.timesteps:
        alpha = scheduler.alphas_cumprod[timestep]
        noise = (latents - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        told = noise if prediction == "epsilon" else velocity
        latents = scheduler.step(told, timestep, latents, generator=generator).prev_sample
    torch.testing.assert_close(latents, clean, atol=2e-3, rtol=1e-3)
