from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.sampling.test_loop import SIDE, conditions, networks, run
from tests.tiny import tiny_components
from xdyna.sampling import (
    ControlResiduals,
    Controls,
    Networks,
    Recorded,
    Shortcuts,
    Tokens,
    WindowPlan,
    record_networks,
    recorded,
)
from xdyna.sampling import controls as signals
from xdyna.sampling.recorded import MOST_RECORDINGS, Arena

Run = Callable[[], list[Tensor]]


class Tape:
    """Records by remembering: what a recorder does on a GPU, with one memory for all arguments and results."""

    def __init__(self) -> None:
        self.recorded = 0
        self.arena, self.standing = Arena(), Arena()

    def __call__(self, run: Run) -> Run:
        self.recorded += 1
        places = self.arena.places(run())

        def replay() -> list[Tensor]:
            made = [value.clone() if self.arena.holds(value) else value for value in run()]
            for place, value in zip(places, made, strict=True):
                place.copy_(value)
            return places

        return replay


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
    class Broken(Tape):
        def __call__(self, _: Run) -> Run:
            raise RuntimeError("operation not permitted when stream is capturing")

    network = Recorded(Doubler(), Broken())
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
    arena = Arena()
    last = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    like = [last, torch.randn(7).half(), torch.tensor(3), torch.randn(1, 4).expand(6, 4)]
    places = arena.places(like)
    for place, value in zip(places, like, strict=True):
        assert place.dtype == value.dtype
        place.copy_(value)
    for place, value in zip(places, like, strict=True):
        assert torch.equal(place, value)
    assert places[0].stride() == last.stride()
    assert len({place.untyped_storage().data_ptr() for place in places}) == 1
    again = arena.places(like[:2])
    assert again[0].data_ptr() == places[0].data_ptr()


class Passing(torch.nn.Module):
    """Gives an argument back beside a new result, the new one first."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return -x, x


def test_a_result_that_is_an_argument_is_not_overwritten_by_the_others() -> None:
    network = Recorded(Passing(), Tape())
    for turn in (1.0, 2.0):
        negative, same = network(torch.full((100,), turn))
        assert negative.tolist() == [-turn] * 100
        assert same.tolist() == [turn] * 100


def test_lent_results_lie_in_one_place_and_others_do_not() -> None:
    tape = Tape()
    lending, giving = Recorded(Doubler(), tape, lends=True), Recorded(Doubler(), tape)
    first = lending(torch.ones(2))["total"]
    assert tape.arena.holds(first)
    assert first.tolist() == [2, 2]
    own = giving(torch.full((2,), 5.0))["total"]
    assert not tape.arena.holds(own)
    lending(torch.full((2,), 3.0))
    assert first.tolist() == [6, 6], "lent until the next call"
    assert own.tolist() == [10, 10]


def test_arguments_that_stand_are_read_where_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    tape = Tape()
    (place,) = tape.standing.places([torch.empty(1000)], device=torch.device("cpu"))
    network = Recorded(Doubler(), tape)
    copies: list[int] = []
    original = Tensor.copy_

    def counted(self: Tensor, other: Tensor) -> Tensor:
        copies.append(len(other))
        return original(self, other)

    for value in (1.0, 4.0):
        place.fill_(value)
        copies.clear()
        with monkeypatch.context() as patch:
            patch.setattr(Tensor, "copy_", counted)
            result = network(torch.full((1,), 2.0), more=place)
        assert result["total"].tolist() == [4 + value] * 1000
    assert sum(copies) == 1 + 1000 + 1, "the small argument and the two results"
    # the same recording for arguments that lie elsewhere, or at another place of the same memory
    assert network(torch.full((1,), 2.0), more=torch.ones(1000))["total"].tolist() == [5] * 1000
    _, second = tape.standing.places([torch.empty(500), torch.empty(400)])
    second.fill_(3.0)
    assert Recorded(Doubler(), tape)(second, more=second)["total"].tolist() == [9] * 400
    assert tape.recorded == 2


def test_memory_is_given_out_again_and_grows() -> None:
    arena = Arena()
    small = arena.places([torch.empty(3), torch.empty(2, 2)])
    assert not arena.holds(torch.empty(3))
    assert all(arena.holds(place) for place in small)
    large = arena.places([torch.empty(10_000)])
    small[0].fill_(1.0)
    large[0].zero_()
    assert small[0].tolist() == [1, 1, 1], "what was given out before keeps its memory"
    assert arena.places([torch.empty(10_000)])[0].data_ptr() == large[0].data_ptr()
    assert not Arena().holds(torch.empty(0))


def test_whole_runs_with_residuals_that_stand_are_the_same() -> None:
    parts = tiny_components()
    found = networks(parts)
    different = {"tokens": Tokens(), "negative": Tokens(), "guidance": 3.0}
    pictures = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    controls = Controls(conditions(3)[1], conditions(6)[1], 0.7, 0.4, reference_pose=pictures)
    ways: list[dict[str, object]] = [
        {},
        different,
        {"shortcuts": Shortcuts(2)},
        different | {"shortcuts": Shortcuts(2, (0.0, 0.9))},
        {"controls": controls},
        {"controls": Controls(conditions(3)[1])},
        {"controls": Controls()},
        {"plan": WindowPlan(5, 2, "open")},
    ]
    for way in ways:
        tape = Tape()
        made = record_networks(found.unet, found.pose_controlnet, found.face_controlnet, recorder=tape)
        assert torch.equal(run(parts, made=made, **way), run(parts, **way)), way
        assert tape.recorded > 0


def test_pieces_of_frames_and_halves_that_read_other_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """ControlNets of a model that reads text: a residual for each half, in pieces of three frames."""
    parts = tiny_components()
    found = networks(parts)
    monkeypatch.setattr(signals, "CONTROLLED_AT_ONCE", 3 * SIDE * SIDE)
    latents = torch.randn(1, 4, 7, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    windows = [[0, 1, 2, 3, 4], [3, 4, 5, 6, 0]]
    halves = [Tokens(text=torch.zeros(1, 2, 4)), Tokens(text=torch.ones(1, 2, 4))]
    controls = Controls(conditions(3)[1], conditions(6)[1])
    tape = Tape()
    made = record_networks(found.unet, found.pose_controlnet, found.face_controlnet, recorder=tape)
    with torch.inference_mode():
        plain = ControlResiduals(found, controls, latents, torch.tensor(500), halves, windows)
        stands = ControlResiduals(made, controls, latents, torch.tensor(500), halves, windows)
        seen = set()
        for number in range(len(windows)):
            wanted, wanted_mid = plain.of_window(number)
            down, mid = stands.of_window(number)
            assert wanted is not None
            assert down is not None
            assert mid.shape == (2, 16, 6, 4, 4)
            for one, other in zip((*down, mid), (*wanted, wanted_mid), strict=True):
                assert torch.equal(one, other)
                assert one.stride() == other.stride()
                assert tape.standing.holds(one)
            seen.add(mid.data_ptr())
    assert len(seen) == 1, "every window's in the same memory"


@pytest.mark.parametrize(
    ("calls", "free", "pays"),
    [
        (recorded.PAYS_FROM, recorded.ROOM, True),
        (recorded.PAYS_FROM - 1, recorded.ROOM, False),
        (recorded.PAYS_FROM, recorded.ROOM - 1, False),
    ],
)
def test_runs_record_by_themselves_where_they_are_long_and_there_is_room(
    calls: int, free: int, pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))
    assert recorded.recording_pays(calls, torch.device("cuda", 0)) is pays
