from __future__ import annotations

import json
from pathlib import Path

import pytest

from xdyna.errors import InputError, OptionError
from xdyna.training.config_file import build_config, load_config, to_dict

CONFIGS = Path(__file__).parents[2] / "configs" / "train"
SMOKE = CONFIGS / "smoke.toml"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_configs_load_and_survive_a_round_trip(path: Path) -> None:
    config = load_config(path)
    assert build_config(json.loads(json.dumps(to_dict(config))), source="copy") == config


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_configs_open_with_command_hardware_and_time(path: Path) -> None:
    head = path.read_text().split("\n\n[")[0]
    for word in ("command", "hardware", "time"):
        assert f"#   {word}" in head


def test_overrides_are_applied_in_order() -> None:
    config = load_config(
        SMOKE, overrides=["image.batch=5", "image.batch=7", "data.size=[32, 48]", "loss.kl=1"]
    )
    assert config.image.batch == 7
    assert config.data.size == (32, 48)
    assert config.loss.kl == 1.0
    assert isinstance(config.loss.kl, float)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("image.bach=3", "image.bach"),
        ("colour=3", "colour"),
        ("image.batch=many", "image.batch"),
        ("image.batch=true", "image.batch"),
        ("model.size=[64]", "model.size"),
        ("image=3", "image"),
        ("stages=['portrait']", "portrait"),
        ("image.steps=0", "image"),
        ("image.rendered=1", "rendered"),
        ("image.learning_rate=0", "image.learning_rate"),
        ("noise.timestep_shift=0", "timestep_shift"),
        ("data.size=[60, 64]", "data.size"),
        ("model.unet.heads=[2]", "heads"),
        ("nonsense", "nonsense"),
        ("seed.value=1", "seed"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_it(override: str, named: str) -> None:
    with pytest.raises(OptionError, match=named.replace(".", r"\.")):
        load_config(SMOKE, overrides=[override])


def test_files_that_are_no_configs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.toml"):
        load_config(tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("stages = [")
    with pytest.raises(InputError, match="TOML"):
        load_config(broken)
