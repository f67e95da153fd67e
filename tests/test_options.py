from __future__ import annotations

import dataclasses

import pytest

from xdyna.cli import build_parser
from xdyna.errors import OptionError
from xdyna.flags import given_options
from xdyna.model_preset import ModelPreset
from xdyna.options import AnimateOptions, from_mapping, parse_size


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"steps": 0}, "--steps: got 0, it must be at least 1"),
        ({"align": "bend"}, "allowed are retarget, rigid, none"),
        ({"seed": -1}, "--seed"),
        ({"seed": 1.5}, "it must be of type int"),
        ({"seed": None}, "must have a value"),
        ({"guidance": float("nan")}, "nan"),
        ({"min_score": 2.0}, "at most 1"),
        ({"window": 4, "overlap": 4}, "less than --window"),
        ({"size": "12by9"}, "512x896"),
        ({"size": "32x32"}, "64 to 4096"),
        ({"detector": "dwpose"}, "--dwpose"),
        ({"detector": "given"}, "--keypoints"),
        ({"frames": True}, "type int"),
    ],
)
def test_bad_values_name_the_flag(values: dict, words: str) -> None:
    with pytest.raises(OptionError, match="--") as caught:
        AnimateOptions(**values)
    assert words in str(caught.value)


def test_unknown_option_is_named() -> None:
    with pytest.raises(OptionError, match="unknown option 'stepz'"):
        from_mapping(AnimateOptions, {"stepz": 3}, source="run.json")


def test_options_survive_json() -> None:
    options = AnimateOptions(steps=3, size="128x96", person=2)
    assert from_mapping(AnimateOptions, dataclasses.asdict(options), source="x") == options


def test_size_is_width_times_height() -> None:
    assert parse_size("512x896") == (896, 512)
    assert parse_size("256") == 256


def test_every_option_has_help_and_group() -> None:
    for entry in dataclasses.fields(AnimateOptions):
        assert entry.metadata["help"]
        assert entry.metadata["group"]


@pytest.mark.parametrize(
    ("motion", "share", "lively"),
    [(None, 0.8, 0.8), (0, 1, 1), (0.5, 0.825, 0.825), (1, 0.8, 0.8), (2, 0.8, 0.7)],
)
def test_the_knob_sets_how_much_noise_frames_share(motion: float | None, share: float, lively: float) -> None:
    preset = ModelPreset(motion_energy=5.0, shared_noise=0.8)
    assert preset.noise_share(motion) == pytest.approx(share)
    assert dataclasses.replace(preset, lively_noise=0.7).noise_share(motion) == pytest.approx(lively)
    assert ModelPreset(shared_noise=0.8).noise_share(motion) == 0.8, "a model that cannot be told"


@pytest.mark.parametrize(("given", "graphs"), [([], None), (["--graphs"], True), (["--no-graphs"], False)])
def test_graphs_are_asked_for_refused_or_left_to_the_run(given: list[str], graphs: bool | None) -> None:
    chosen = build_parser().parse_args(["animate", "photo.jpg", "dance.mp4", *given])
    found = AnimateOptions(**given_options(chosen, AnimateOptions))
    assert found.graphs is graphs
    assert from_mapping(AnimateOptions, {"graphs": graphs}, source="run.json") == found
