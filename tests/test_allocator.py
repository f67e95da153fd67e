"""The allocator's setting: PyTorch's own names, before it is imported, and never over the user's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from benchmarks import full_size

from xdyna import allocator

SHOW = "print(*(os.environ.get(name) for name in allocator.NAMES))"


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No setting in the environment; what a test sets goes away."""
    for name in allocator.NAMES:
        monkeypatch.setenv(name, "")  # noted, so that it is put back
        monkeypatch.delenv(name)
    return monkeypatch


def python(code: str) -> tuple[str, str]:
    """What a fresh process prints, and its warnings."""
    done = subprocess.run(
        [sys.executable, "-c", f"import os, sys\nfrom xdyna import allocator\n{code}"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return done.stdout.strip(), done.stderr


def test_both_names_are_set_on_linux(plain: pytest.MonkeyPatch) -> None:
    plain.setattr(allocator.sys, "platform", "linux")
    allocator.expand_segments()
    wanted = {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"}
    assert {name for name in allocator.NAMES if name in os.environ} == wanted
    assert {os.environ[name] for name in wanted} == {"expandable_segments:True"}


@pytest.mark.parametrize("name", allocator.NAMES)
@pytest.mark.parametrize("value", ["max_split_size_mb:128", "expandable_segments:False", ""])
def test_a_setting_of_the_user_s_stays_alone(name: str, value: str, plain: pytest.MonkeyPatch) -> None:
    plain.setattr(allocator.sys, "platform", "linux")
    plain.setenv(name, value)
    allocator.expand_segments()
    assert {one: os.environ[one] for one in allocator.NAMES if one in os.environ} == {name: value}


def test_other_systems_have_none(plain: pytest.MonkeyPatch) -> None:
    plain.setattr(allocator.sys, "platform", "win32")
    allocator.expand_segments()
    assert not any(name in os.environ for name in allocator.NAMES)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_the_command_sets_it_before_torch_is_there(plain: pytest.MonkeyPatch) -> None:
    code = (
        "from xdyna import cli\n"
        "def run(chosen):\n"
        "    assert 'torch' not in sys.modules\n"
        f"    {SHOW}\n"
        "cli.run_models = run\n"
        "cli.main(['models'])"
    )
    shown, _ = python(code)
    assert shown == "expandable_segments:True expandable_segments:True None"
    plain.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:128")
    shown, _ = python(code)
    assert shown == "None max_split_size_mb:128 None"


def test_the_benchmark_sets_it_too() -> None:
    text = Path(full_size.__file__).read_text()
    assert (
        0 < text.index("\nexpand_segments()") < text.index("\nimport torch") < text.index("\nfrom benchmarks")
    )


def test_pytorch_takes_it_without_a_warning(plain: pytest.MonkeyPatch) -> None:
    _, warnings = python("allocator.expand_segments()\nimport torch\ntorch.zeros(3)")
    assert "ALLOC_CONF" not in warnings


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_segments_expand_on_a_gpu(plain: pytest.MonkeyPatch) -> None:
    shown, warnings = python(
        "allocator.expand_segments()\nimport torch\ntorch.zeros(3, device='cuda')\n"
        "print(torch.cuda.memory._snapshot()['allocator_settings']['expandable_segments'])"
    )
    assert shown == "True"
    assert "ALLOC_CONF" not in warnings
