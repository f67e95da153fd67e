"""Filmed motion in the synthetic world: its file, and that it is a smooth function of time for both kinds of people."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from xdyna.data.synthetic import make_batch, sample_params
from xdyna.data.synthetic.captured import CHANNELS, MOTION_FILE, RATE, load_captured
from xdyna.data.synthetic.motion import LIMITS, motion_at
from xdyna.errors import InputError


def test_the_takes_are_small_and_within_the_worlds_limits() -> None:
    assert MOTION_FILE.stat().st_size < 200_000
    values, lengths = load_captured()
    assert values.shape == (int(lengths.sum()), len(CHANNELS))
    assert len(values) / RATE > 60
    assert torch.isfinite(values).all()
    for i, name in enumerate(CHANNELS):
        assert values[:, i].std() > 0, name
        if name in LIMITS and name != "bob":
            low, high = LIMITS[name]
            assert values[:, i].min() >= low - 1e-3, name
            assert values[:, i].max() <= high + 1e-3, name


def test_a_missing_or_foreign_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "captured.safetensors"
    with pytest.raises(InputError, match="no such file"):
        load_captured(path)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="no captured motion"):
        load_captured(path)
    tensors = {"values": torch.zeros(4, 1), "lengths": torch.tensor([4])}
    save_file(tensors, path, metadata={"channels": "x"})
    with pytest.raises(InputError, match="channels"):
        load_captured(path)


def test_a_captured_share_changes_nothing_but_the_motion() -> None:
    plain, some = (sample_params(3, 12, frames=2, captured_share=share) for share in (0.0, 0.5))
    assert "captured" not in plain.motion
    assert torch.equal(plain.motion["rest"], some.motion["rest"])
    assert torch.equal(plain.foreign["skin"], some.foreign["skin"])
    here = some.motion["captured"] > 0
    assert 0 < int(here.sum()) < 12
    first, second = motion_at(plain.motion, plain.times), motion_at(some.motion, some.times)
    for name in ("turn", "right_raise", "yaw"):
        assert torch.equal(first[name][~here], second[name][~here])
        assert not torch.equal(first[name][here], second[name][here])
    # Faces and fingers go on as they did.
    for name in ("smile", "mouth_open", "right_grip", "gaze_x"):
        assert torch.equal(first[name], second[name])


def test_takes_play_smoothly_forth_and_back() -> None:
    motion = sample_params(5, 8, captured_share=1.0).motion
    times = torch.arange(0, 120, 1 / 120).expand(8, -1)
    state = motion_at(motion, times)
    for name in ("turn", "lean", "x", "right_forward", "left_raise"):
        speed = state[name].diff(dim=1)
        # 120 moments a second: what is smooth changes little from one to the next, and so does its speed.
        assert speed.abs().max() < 0.2, name
        assert speed.diff(dim=1).abs().max() < 0.06, name
    again = motion_at(motion, times.flip(1))
    assert torch.equal(again["turn"].flip(1), state["turn"])


def test_a_mirrored_take_is_the_mirror_image() -> None:
    params = sample_params(7, 4, captured_share=1.0)
    one, two = (
        motion_at(params.motion | {"take_mirror": torch.full((4,), value)}, params.times)
        for value in (0.0, 1.0)
    )
    assert torch.equal(one["right_raise"], two["left_raise"])
    assert torch.equal(one["left_step"], two["right_step"])
    assert torch.equal(one["turn"], -two["turn"])
    assert torch.equal(one["pitch"], two["pitch"])


@pytest.mark.parametrize("modelled_share", [0.0, 1.0])
def test_both_kinds_of_people_move_as_filmed(modelled_share: float) -> None:
    options = {
        "frames": 2, "size": (64, 64), "human_share": 1.0, "company_share": 0.0, "maps": False,
        "moving_camera_share": 0.0, "modelled_share": modelled_share,
    }  # fmt: skip
    sines, filmed = (make_batch(9, 2, captured_share=share, **options) for share in (0.0, 1.0))
    assert not torch.equal(sines.body, filmed.body)
    assert filmed.mask.flatten(2).amax(2).min() > 0.99
    assert torch.equal(filmed.frames, make_batch(9, 2, captured_share=1.0, **options).frames)


def test_who_is_filmed_does_not_sit() -> None:
    params = sample_params(11, 64, captured_share=0.5)
    here = params.motion["captured"] > 0
    assert (params.motion["sit"][here] == 0).all()
    assert (params.motion["sit"][~here] > 0).any()
    assert (replace(params).motion["take"] < len(load_captured()[1])).all()
