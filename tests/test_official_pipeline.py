"""The researcher's way: an official checkpoint tree, converted, loaded and run; all parts at small width."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.convert.fake_tree import Size, write_tree
from tests.sampling.test_recorded import Tape
from tests.tiny import dancer, noise_frames, write_video
from xdyna import media
from xdyna import pipeline as module
from xdyna.cli import main
from xdyna.options import AnimateOptions
from xdyna.pipeline import XDynaPipeline
from xdyna.runs import Prepared
from xdyna.sampling import Networks, Tokens, record_networks
from xdyna.sampling import recorded as recorded_calls


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("official")
    tree = write_tree(folder, size=Size.for_pipeline())
    assert main(["convert", "official", str(tree), "-o", str(folder / "x-dyna"), "-q"]) == 0
    return folder / "x-dyna"


@pytest.fixture(scope="module")
def pipeline(model: Path) -> XDynaPipeline:
    return XDynaPipeline.from_pretrained(model, device="cpu")


@pytest.fixture(scope="module")
def prepared(pipeline: XDynaPipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    path = tmp_path_factory.mktemp("k") / "k.npz"
    dancer(3).save(path)
    options = AnimateOptions(keypoints=str(path), align="none", size="64x96")
    ready = pipeline.prepare(noise_frames(1, (120, 80), seed=2)[0], noise_frames(3), options)
    yield ready
    ready.conditions.close()


def test_the_preset_is_the_official_run(pipeline: XDynaPipeline) -> None:
    preset = pipeline.preset
    assert (preset.height, preset.width, preset.steps, preset.guidance) == (896, 512, 25, 7.5)
    assert preset.stretch_conditions
    config = pipeline.scheduler.config
    assert (config.beta_schedule, config.set_alpha_to_one, config.steps_offset) == ("linear", True, 1)


def test_both_halves_have_their_tokens(pipeline: XDynaPipeline, prepared: Prepared) -> None:
    encoded = pipeline.encode(prepared, torch.Generator().manual_seed(0))
    assert encoded.negative is not None
    ours, theirs = encoded.tokens, encoded.negative
    assert ours.text is not None
    assert ours.image is not None
    assert theirs.image is not None
    assert ours.text.shape[1] == 77
    # both prompts are empty, so only the picture tells the halves apart
    assert torch.equal(ours.text, theirs.text)
    assert not torch.allclose(ours.image, theirs.image)
    other = dataclasses.replace(prepared, options=dataclasses.replace(prepared.options, prompt="a"))
    encoded = pipeline.encode(other, torch.Generator().manual_seed(0))
    assert not torch.equal(encoded.tokens.text, theirs.text)


def test_guidance_and_ready_tokens_change_the_result(pipeline: XDynaPipeline, prepared: Prepared) -> None:
    options = dataclasses.replace(prepared.options, steps=2)
    prepared = dataclasses.replace(prepared, options=options)

    def run(guidance: float, tokens: tuple[Tokens, Tokens] | None = None) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        given = dataclasses.replace(prepared, options=dataclasses.replace(options, guidance=guidance))
        mine, theirs = tokens or (None, None)
        encoded = pipeline.encode(given, generator, tokens=mine, negative=theirs)
        return pipeline.denoise(given, encoded, generator)

    guided, plain = run(7.5), run(1.0)
    assert guided.isfinite().all()
    assert not torch.allclose(guided, plain)
    encoded = pipeline.encode(prepared, torch.Generator().manual_seed(1))
    assert encoded.negative is not None
    torch.testing.assert_close(run(7.5, (encoded.tokens, encoded.negative)), guided)


@pytest.mark.parametrize(
    ("asked", "pays_from", "recorded"),
    [(None, 100, False), (None, 2, True), (True, 100, True), (False, 2, False)],
)
def test_long_runs_are_recorded_and_come_out_the_same(
    pipeline: XDynaPipeline,
    prepared: Prepared,
    monkeypatch: pytest.MonkeyPatch,
    asked: bool | None,
    pays_from: int,
    recorded: bool,
) -> None:
    """The official layout, both halves: two steps of one window."""
    given = dataclasses.replace(prepared, options=dataclasses.replace(prepared.options, steps=2))
    tapes: list[Tape] = []

    def record(*parts: Any) -> Networks:
        tapes.append(Tape())
        return record_networks(*parts, recorder=tapes[-1])

    def run() -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        return pipeline.denoise(given, pipeline.encode(given, generator), generator)

    assert pipeline.graphs is False, "on a CPU"
    plain = run()
    monkeypatch.setattr(module, "record_networks", record)
    monkeypatch.setattr(recorded_calls, "PAYS_FROM", pays_from)
    monkeypatch.setattr(pipeline, "graphs", asked)
    assert torch.equal(run(), plain)
    assert [tape.recorded > 0 for tape in tapes] == [True] * recorded


def test_the_command_runs_on_it(model: Path, tmp_path: Path) -> None:
    media.write_image(tmp_path / "person.png", noise_frames(1, (120, 80))[0])
    write_video(tmp_path / "dance.mp4", noise_frames(4))
    dancer(4).save(tmp_path / "k.npz")
    command = [
        "animate",
        str(tmp_path / "person.png"),
        str(tmp_path / "dance.mp4"),
        "-q",
        "--model",
        str(model),
    ]
    command += ["-o", str(tmp_path / "out.mp4"), "--keypoints", str(tmp_path / "k.npz"), "--align", "none"]
    assert main([*command, "--size", "64x96", "--steps", "2", "--prompt", "a"]) == 0
    frames = media.read_clip(tmp_path / "out.mp4").frames
    assert frames.shape == (4, 96, 64, 3)
    assert frames.dtype == np.uint8
    assert media.read_json(tmp_path / "out.json")["options"]["guidance"] == 7.5
