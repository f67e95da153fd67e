"""One clip over several processes: the same latents as over one, and all end when one fails."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributed import TCPStore

from tests.sampling.test_loop import FRAMES, SIDE, conditions, networks
from tests.tiny import tiny_components
from xdyna.errors import InputError, OptionError
from xdyna.ranks import LOST, joined, rank_device
from xdyna.sampling import (
    ALONE,
    Controls,
    Hosts,
    Tokens,
    WindowPlan,
    denoise,
    make_scheduler,
    set_timesteps,
    start_latents,
)
from xdyna.sampling.hosts import bounds


def run(
    hosts: Hosts,
    *,
    scheduler: str = "ddim",
    guidance: float = 1.0,
    plan: tuple[int, int, str] = (3, 1, "closed"),
) -> tuple[Tensor, list[int]]:
    """Latents of a clip of several windows, and the frames whose residuals this process made."""
    parts = tiny_components()
    steps = make_scheduler(scheduler, parts["scheduler"])
    set_timesteps(steps, 3, torch.device("cpu"))
    generator = torch.Generator().manual_seed(3)
    reference = torch.randn(1, 4, SIDE, SIDE, generator=generator)
    latents = start_latents(reference, FRAMES, steps, generator=generator)
    if hosts.rank > 0:
        latents = torch.full_like(latents, torch.nan)  # the first one's count
    calls, pose = conditions(3)
    with torch.inference_mode():
        result = denoise(
            networks(parts), steps, reference=reference, latents=latents, guidance=guidance, negative=Tokens(),
            controls=Controls(pose, conditions(6)[1]), plan=WindowPlan(*plan), generator=generator,
            hosts=hosts,
        )  # fmt: skip
    return result, [frame for call in calls for frame in call]


def worker(task: Callable[[Hosts], Any], rank: int, count: int, port: int, pipe: Any) -> None:
    """A process of a group, as torchrun or `launch` would start it."""
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True",
    }  # fmt: skip
    try:
        with joined("cpu") as (hosts, device):
            assert device == "cpu"
            pipe.send(task(hosts))
    except SystemExit as ended:
        pipe.send(ended)
    except InputError as error:
        pipe.send(error)
    except BaseException:
        pipe.send(traceback.format_exc())


def together(task: Callable[[Hosts], Any], count: int) -> list[Any]:
    """What the task gives in each of so many processes."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    # processes of a server that has imported all this once: each would take seconds for it
    context, pipes, processes = multiprocessing.get_context("forkserver"), [], []
    context.set_forkserver_preload([__name__])
    for rank in range(count):
        ours, theirs = context.Pipe()
        process = context.Process(target=worker, args=(task, rank, count, store.port, theirs), daemon=True)
        process.start()
        pipes.append(ours)
        processes.append(process)
    results = []
    for pipe, process in zip(pipes, processes, strict=True):
        assert pipe.poll(90), "hangs"
        results.append(pipe.recv())
        process.join(30)
    return results


def share_a_clip(hosts: Hosts) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, settings in SETTINGS.items():
        latents, frames = run(hosts, **settings)
        found[name] = latents.numpy(), frames
    parts = [np.full((size, 2, 2, 3), size, np.uint8) for size in (3, 1, 2, 3, 5, 1, 4)]
    found["in order"] = [part.tolist() for part in hosts.in_order(parts, lambda part: part + 1)]
    found["handed"] = hosts.hand_out({"seed": torch.arange(3)} if hosts.rank == 0 else None)["seed"].tolist()
    return found


SETTINGS: dict[str, dict[str, Any]] = {
    "ddim": {},
    "guided": {"guidance": 2.0},
    "overlapping": {"plan": (4, 3, "closed")},  # four predictions a frame, added in another order
    "open": {"plan": (3, 1, "open")},
    "euler_a": {"scheduler": "euler_a"},  # adds noise of the generator at every step
}


@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_make_the_latents_of_one(count: int) -> None:
    results = together(share_a_clip, count)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name, settings in SETTINGS.items():
            alone, frames = run(ALONE, **settings)
            size = alone.abs().max().item()
            for found in results:
                np.testing.assert_allclose(found[name][0], alone.numpy(), rtol=0, atol=2e-6 * size)
                assert np.array_equal(found[name][0], results[0][name][0]), "processes drift apart"
            made = [len(found[name][1]) for found in results]
            assert max(made) < len(frames) or name == "overlapping", (
                "residuals that no window of the share needs"
            )
    finally:
        torch.set_num_threads(before)
    sizes = [len(part) for part in results[0]["in order"]]
    assert sizes == [3, 1, 2, 3, 5, 1, 4]
    assert all(part[0][0][0][0] == size + 1 for part, size in zip(results[0]["in order"], sizes, strict=True))
    assert all(found["in order"] == [] for found in results[1:])
    assert all(found["handed"] == [0, 1, 2] for found in results)


def fail_in_the_second(hosts: Hosts) -> None:
    values = torch.ones(3)
    hosts.add_up(values)
    if hosts.rank == 1:
        raise InputError("clip.mp4", "is spoilt")
    hosts.add_up(values)


def test_the_error_of_one_ends_all_and_is_told_once() -> None:
    results = together(fail_in_the_second, 3)
    assert isinstance(results[1], InputError), results
    for ended in (results[0], results[2]):
        assert isinstance(ended, SystemExit), ended
        assert ended.code == LOST


def test_alone_without_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined("cuda:3") as (hosts, device):
        assert hosts is ALONE
        assert device == "cuda:3"


@pytest.mark.parametrize("device", ["cuda:1", "mps"])
def test_one_device_cannot_be_everybody_s(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(OptionError, match="a GPU each"):
        rank_device(device)


@pytest.mark.parametrize(("number", "count"), [(16, 4), (17, 4), (3, 5), (1, 2)])
def test_shares_are_even_and_the_longer_ones_come_first(number: int, count: int) -> None:
    shares = [list(range(number))[slice(*bounds(number, rank, count))] for rank in range(count)]
    assert [item for share in shares for item in share] == list(range(number))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)
