from __future__ import annotations

import pytest
import torch

from xdyna.errors import OptionError, ResourceError
from xdyna.machine import choose_device, choose_dtype, memory_advice, timed


def test_running_out_of_memory_says_what_helps() -> None:
    with pytest.raises(ResourceError, match="smaller --size"), memory_advice(torch.device("cpu")):
        torch.empty(1 << 50)


def test_other_errors_pass_through() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), memory_advice(torch.device("cpu")):
        torch.zeros(2, 3) @ torch.zeros(2, 3)


def test_devices() -> None:
    assert choose_device("cpu").type == "cpu"
    for name in ("meta", "gpu", "cuda:x"):
        with pytest.raises(OptionError, match="--device"):
            choose_device(name)


def test_number_formats() -> None:
    assert choose_dtype("auto", torch.device("cpu")) is torch.float32
    assert choose_dtype("auto", torch.device("cuda")) is torch.float16
    assert choose_dtype("bfloat16", torch.device("cuda")) is torch.bfloat16
    with pytest.raises(OptionError, match="--dtype"):
        choose_dtype("float64", torch.device("cpu"))


def test_timings_add_up() -> None:
    timings: dict[str, float] = {}
    for _ in range(2):
        with timed(timings, "part"):
            pass
    assert list(timings) == ["part"]
    assert timings["part"] > 0
