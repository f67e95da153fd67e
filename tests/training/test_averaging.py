"""Models averaged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import tiny
from xdyna.errors import OptionError, OutputError, WeightsError
from xdyna.training.__main__ import main
from xdyna.training.averaging import average_models
from xdyna.weights import load_components, read_preset, save_model


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A model, and the same one with other weights."""
    first = tiny.tiny_model(tmp_path / "first")
    parts = load_components(first)
    with torch.no_grad():
        for network in (parts["unet"], parts["vae"]):
            for value in network.parameters():
                value.add_(torch.ones_like(value))
    save_model(tmp_path / "second", parts, storage="fp32", preset=read_preset(first))
    return first, tmp_path / "second"


@pytest.mark.parametrize(("shares", "added"), [(None, 0.5), ([3.0, 1.0], 0.25)])
def test_weights_lie_between(
    pair: tuple[Path, Path], shares: list[float] | None, added: float, tmp_path: Path
) -> None:
    average_models(pair, tmp_path / "mean", shares=shares, storage="fp32")
    found, first = load_components(tmp_path / "mean"), load_components(pair[0])
    assert read_preset(tmp_path / "mean") == read_preset(pair[0])
    for name, moves in (("unet", True), ("vae", True), ("pose_controlnet", False)):
        for key, value in first[name].state_dict().items():
            wanted = value + added if moves and value.is_floating_point() and "pe" not in key else value
            torch.testing.assert_close(found[name].state_dict()[key], wanted, msg=f"{name}.{key}")


def test_what_a_model_had_not_yet_counts_as_zero(tmp_path: Path) -> None:
    before = tiny.tiny_model(tmp_path / "before")
    parts = {**load_components(before), "unet": tiny.tiny_components(moved=True)["unet"]}
    save_model(tmp_path / "after", parts, storage="fp32", preset=read_preset(before))
    average_models([tmp_path / "after", before], tmp_path / "mean", storage="fp32")
    found = load_components(tmp_path / "mean")["unet"].state_dict()
    torch.testing.assert_close(found["moved_in.weight"], parts["unet"].state_dict()["moved_in.weight"] / 2)
    with pytest.raises(WeightsError, match="more weights"):
        average_models([before, tmp_path / "after"], tmp_path / "out")


def test_the_command_line_averages_and_overwrites_nothing(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["average", *map(str, pair), "-o", str(tmp_path / "mean"), "--storage", "fp32"]
    assert main(words) == 0
    assert (tmp_path / "mean" / "model_index.json").is_file()
    assert main(words) == 2
    assert "mean" in capsys.readouterr().err


def test_models_that_do_not_belong_together(pair: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="two"):
        average_models(pair[:1], tmp_path / "out")
    with pytest.raises(OptionError, match="shares"):
        average_models(pair, tmp_path / "out", shares=[1.0])
    parts = load_components(pair[1])
    save_model(tmp_path / "less", {**parts, "face_controlnet": None}, preset=read_preset(pair[1]))
    with pytest.raises(WeightsError, match="other parts"):
        average_models([pair[0], tmp_path / "less"], tmp_path / "out")
    other = {**parts, "face_controlnet": parts["pose_controlnet"]}
    save_model(tmp_path / "other", other, preset=read_preset(pair[1]))
    with pytest.raises(WeightsError, match="does not fit"):
        average_models([pair[0], tmp_path / "other"], tmp_path / "out")
    with pytest.raises(OutputError):
        average_models(pair, pair[0])
    assert not (tmp_path / "out").exists()
