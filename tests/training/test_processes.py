"""Several processes, and processes that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from xdyna.training.checkpoints import load_run, load_state
from xdyna.training.loop import run

SMOKE = Path(__file__).parents[2] / "configs" / "train" / "smoke.toml"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
EVEN = ["--set", "clips.batch=2", "--set", "runtime.save_pools=false"]


def launch(*words: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words], env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout
    )


def test_two_processes_train_one_model(tmp_path: Path) -> None:
    done = launch(
        "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "xdyna.training",
        str(SMOKE), "-o", str(tmp_path), "--device", "cpu", *EVEN,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    state = load_state(tmp_path)
    assert state is not None
    assert len(state["generators"]) == 2
    assert not torch.equal(*state["generators"]), "both drew the same"
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 4, "only one of them writes the log"


@pytest.mark.slow
def test_shared_out_weights_learn_what_whole_ones_learn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "ACCELERATE_USE_FSDP", "true")  # as `accelerate launch --use_fsdp` does

    def trained(folder: Path, steps: int) -> dict[str, torch.Tensor]:
        words = [
            "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "xdyna.training", str(SMOKE),
            "-o", str(folder), "--device", "cpu", *EVEN, "--set", "stages=['clips']", "--set", f"clips.steps={steps}",
        ]  # fmt: skip
        done = launch(*words)
        assert done.returncode == 0, done.stderr[-3000:]
        return load_run(folder, average=False)[1].unet.state_dict()

    sharded = trained(tmp_path / "sharded", 2)
    monkeypatch.delitem(ENVIRONMENT, "ACCELERATE_USE_FSDP")
    together = trained(tmp_path / "together", 2)
    for key, value in together.items():
        torch.testing.assert_close(sharded[key], value, atol=1e-4, rtol=1e-3, msg=key)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many threads here as in the processes that are started: sums come out otherwise with another number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_killed_run_ends_like_one_that_was_not(tmp_path: Path) -> None:
    more = ["stages=['image', 'clips']", "image.steps=8", "clips.steps=3", "image.ema=0.9", "runtime.keep=0"]
    run(SMOKE, tmp_path / "whole", more, device="cpu")
    words = [
        sys.executable,
        "-m",
        "xdyna.training",
        str(SMOKE),
        "-o",
        str(tmp_path / "killed"),
        "--device",
        "cpu",
    ]
    for setting in [*more, "runtime.save_seconds=0.0"]:
        words += ["--set", setting]
    process = subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        state = load_state(tmp_path / "killed")
        if state is not None and state["steps"].get("image", 0) >= 3:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    state = load_state(tmp_path / "killed")
    assert state is not None
    assert state["stage"] < 2, "it was killed too late to prove anything"
    assert run(SMOKE, tmp_path / "killed", more, device="cpu").finished
    expected, found = load_run(tmp_path / "whole")[1].named(), load_run(tmp_path / "killed")[1].named()
    for name, network in expected.items():
        for key, value in network.state_dict().items():
            assert torch.equal(found[name].state_dict()[key], value), f"{name}.{key}"
