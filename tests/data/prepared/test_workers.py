from __future__ import annotations

import os

import pytest

from xdyna.data.prepared.workers import Crashed, default_workers, run_tasks
from xdyna.errors import InputError


def squared(number: int) -> tuple[int, int]:
    """A task; 13 takes its process down, 7 fails."""
    if number == 13:
        os._exit(3)
    if number == 7:
        raise InputError("7", "is unlucky")
    return number**2, os.getpid()


def test_one_worker_works_here() -> None:
    results = dict(run_tasks(squared, [1, 2, 3], workers=1))
    assert results == {n: (n**2, os.getpid()) for n in (1, 2, 3)}
    assert dict(run_tasks(squared, [], workers=4)) == {}


def test_a_crash_costs_its_own_task_only() -> None:
    numbers = [1, 2, 13, 4, 5, 6]
    results = dict(run_tasks(squared, numbers, workers=2))
    assert isinstance(results.pop(13), Crashed)
    assert {n: result[0] for n, result in results.items() if not isinstance(result, Crashed)} == {
        n: n**2 for n in numbers if n != 13
    }
    assert all(result[1] != os.getpid() for result in results.values() if not isinstance(result, Crashed))


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_come_through(workers: int) -> None:
    with pytest.raises(InputError, match="unlucky"):
        list(run_tasks(squared, [7, 8], workers=workers))


def test_a_worker_for_every_core() -> None:
    assert default_workers() >= 1
