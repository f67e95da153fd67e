from __future__ import annotations

import pytest
import torch

from xdyna.errors import OptionError, ResourceError
from xdyna.machine import (
    Lent,
    LentNetwork,
    choose_device,
    choose_dtype,
    memory_advice,
    return_memory,
    timed,
)


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
    for name in ("bfloat16", "bf16"):
        assert choose_dtype(name, torch.device("cuda")) is torch.bfloat16
    with pytest.raises(OptionError, match="CPU"):
        choose_dtype("bf16", torch.device("cpu"))
    with pytest.raises(OptionError, match="--dtype"):
        choose_dtype("float64", torch.device("cpu"))


def test_timings_add_up() -> None:
    timings: dict[str, float] = {}
    for _ in range(2):
        with timed(timings, "part"):
            pass
    assert list(timings) == ["part"]
    assert timings["part"] > 0


def test_lent_networks_come_and_go() -> None:
    """PyTorch takes "cpu:0" for another place than "cpu", and moves nothing."""
    lent = Lent(torch.device("cpu:0"))
    first, second = (torch.nn.BatchNorm1d(3) for _ in range(2))
    pointers = [tensor.data_ptr() for tensor in (*first.parameters(), *first.buffers())]
    one, two = LentNetwork(first, lent), LentNetwork(second, lent)
    with torch.inference_mode(), lent.holding([]):
        for network, here, gone in ((one, first, second), (one, first, second), (two, second, first)):
            network(torch.ones(2, 3))
            assert lent.holds(here)
            assert not lent.holds(gone)
        assert two.num_features == 3
    assert not lent.holds(second)
    with lent.holding([first, second]):
        assert lent.holds(first)
        assert lent.holds(second)
    assert not lent.holds(first)
    assert [tensor.data_ptr() for tensor in (*first.parameters(), *first.buffers())] == pointers


def test_memory_can_be_returned() -> None:
    return_memory()
