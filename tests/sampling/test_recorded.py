from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.sampling.test_loop import networks, run
from tests.tiny import tiny_components
from xdyna.sampling import Networks, Recorded, Recorder
from xdyna.sampling.recorded import MOST_RECORDINGS

Run = Callable[[], list[Tensor]]


class Tape:
    """Records by remembering: what a recorder does on a GPU, with one memory for all results."""

    def __init__(self) -> None:
        self.recorded = 0

    def __call__(self, run: Run) -> Run:
        self.recorded += 1
        return lambda: [value.clone() for value in run()]


class Doubler(torch.nn.Module):
    def forward(self, x: Tensor, *, times: float = 2.0, more: Tensor | None = None) -> dict[str, object]:
        total = x * times if more is None else x * times + more
        return {"total": total, "parts": (x, None)}


def test_results_are_the_network_s_and_the_caller_s_own() -> None:
    tape = Tape()
    network = Recorded(Doubler(), tape)
    first = network(torch.ones(2))
    second = network(torch.full((2,), 3.0))
    assert first["total"].tolist() == [2, 2]
    assert second["total"].tolist() == [6, 6]
    assert second["parts"][1] is None
    assert tape.recorded == 1


def test_shapes_and_other_arguments_have_recordings_of_their_own() -> None:
    tape = Tape()
    network = Recorded(Doubler(), tape)
    assert network(torch.ones(2), times=5.0)["total"].tolist() == [5, 5]
    assert network(torch.ones(3), times=5.0)["total"].tolist() == [5, 5, 5]
    assert network(torch.ones(2), times=1.0, more=torch.ones(2))["total"].tolist() == [2, 2]
    assert network(torch.ones(2), times=5.0)["total"].tolist() == [5, 5]
    assert tape.recorded == 3
    for size in range(1, 20):
        assert network(torch.ones(size))["total"].tolist() == [2.0] * size
    assert tape.recorded == MOST_RECORDINGS


def test_a_network_that_cannot_be_recorded_runs(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: Run) -> Run:
        raise RuntimeError("operation not permitted when stream is capturing")

    network = Recorded(Doubler(), broken)
    for _ in range(2):
        assert network(torch.ones(2))["total"].tolist() == [2, 2]
    assert len(caplog.records) == 1
    assert "not permitted" in caplog.text


def test_a_run_of_recorded_networks_is_the_same() -> None:
    parts = tiny_components()
    plain = run(parts)
    tape = Tape()
    found = networks(parts)
    names = ("unet", "pose_controlnet", "face_controlnet")
    recorded = {name: Recorded(getattr(found, name), tape) for name in names}
    assert torch.equal(run(parts | recorded), plain)
    assert isinstance(Networks(**recorded).unet.reference_frames, int)
    # windows of four frames; ControlNets see four, or three that no window before has shown them
    assert 3 <= tape.recorded <= 9


def test_results_share_one_memory_and_keep_their_layout() -> None:
    recorder = Recorder.__new__(Recorder)  # without a GPU's memory pool
    recorder._buffer = torch.empty(0, dtype=torch.uint8)
    last = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    like = [last, torch.randn(7).half(), torch.tensor(3), torch.randn(1, 4).expand(6, 4)]
    places = recorder._places(like)
    for place, value in zip(places, like, strict=True):
        assert place.dtype == value.dtype
        place.copy_(value)
    for place, value in zip(places, like, strict=True):
        assert torch.equal(place, value)
    assert places[0].stride() == last.stride()
    assert len({place.untyped_storage().data_ptr() for place in places}) == 1
    again = recorder._places(like[:2])
    assert again[0].data_ptr() == places[0].data_ptr()
