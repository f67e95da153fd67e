"""Processes that make chunks beside the training."""

from __future__ import annotations

import time

import pytest
import torch

from xdyna.errors import InputError, ResourceError
from xdyna.training.ahead import Ahead
from xdyna.training.chunks import CHUNKS, Chunk
from xdyna.training.makers import Makers

CPU = torch.device("cpu")


class Numbers:
    """Chunks that hold their number; some are late, some fail, some end their process."""

    def __init__(self, *, seconds: float = 0.0, late: int = -1, broken: int = -1, deadly: int = -1) -> None:
        self.seconds, self.late, self.broken, self.deadly = seconds, late, broken, deadly

    def on(self, device: torch.device) -> Numbers:
        return self

    def __getitem__(self, number: int) -> Chunk:
        if number == self.broken:
            raise InputError("clip.mp4", "is empty")
        if number == self.deadly:
            raise SystemExit(9)
        time.sleep(self.seconds if self.late in (-1, number) else 0)
        return {"number": torch.tensor(number)}


def numbers(chunks: list[Chunk]) -> list[int]:
    return [int(chunk["number"]) for chunk in chunks]


def test_chunks_come_in_order_from_several_processes() -> None:
    makers = Makers(Numbers(seconds=1.0, late=5), 4, workers=2)  # type: ignore[arg-type]
    assert numbers([makers.take() for _ in range(6)]) == [4, 5, 6, 7, 8, 9]
    makers.close()


def test_what_fails_in_a_process_is_heard_of() -> None:
    makers = Makers(Numbers(broken=1), 0, workers=1)  # type: ignore[arg-type]
    assert numbers([makers.take()]) == [0]
    with pytest.raises(InputError, match=r"clip\.mp4: is empty"):
        makers.take()
    makers.close()


def test_a_process_that_is_gone_is_missed() -> None:
    makers = Makers(Numbers(deadly=0), 0, workers=1)  # type: ignore[arg-type]
    with pytest.raises(ResourceError, match=r"status 9.*\n?.*fewer workers"):
        makers.take()
    makers.close()


def test_closing_does_not_wait_for_a_chunk_under_way() -> None:
    ahead = Ahead(Numbers(seconds=300.0), 0, device=CPU, workers=1)  # type: ignore[arg-type]
    assert ahead.take(wait=False) is None
    began = time.monotonic()
    ahead.close()
    assert time.monotonic() - began < 10


def test_both_make_chunks_of_their_own() -> None:
    ahead = Ahead(Numbers(seconds=0.01), 3, device=CPU, workers=1, both=True)  # type: ignore[arg-type]
    seen: list[int] = []
    began = time.monotonic()
    while not (any(n < CHUNKS // 2 for n in seen) and any(n >= CHUNKS // 2 for n in seen)):
        chunk = ahead.take(wait=True)
        assert chunk is not None
        seen += numbers([chunk])
        assert time.monotonic() - began < 60
    ahead.close()
    processes, device = ([n for n in seen if (n < CHUNKS // 2) is one] for one in (True, False))
    assert processes == list(range(3, 3 + len(processes)))
    assert device == list(range(3 + CHUNKS // 2, 3 + CHUNKS // 2 + len(device)))
