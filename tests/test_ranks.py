"""`xdyna animate` over several processes: the same frames, one message when one fails, nothing half written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.test_animate import FRAMES, inputs, options  # noqa: F401
from xdyna import media
from xdyna.animate import animate_file
from xdyna.cli import main
from xdyna.errors import OptionError, ResourceError
from xdyna.machine import choose_devices

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def words(inputs: dict[str, Path], output: Path, *more: str) -> list[str]:  # noqa: F811
    return [
        "animate", str(inputs["image"]), str(inputs["video"]), "-o", str(output), "-q", "--device", "cpu",
        "--model", str(inputs["model"]), "--keypoints", str(inputs["keypoints"]), "--reference-keypoints",
        str(inputs["reference_keypoints"]), "--window", "8", "--overlap", "2", *more,
    ]  # fmt: skip


def assert_as_alone(inputs: dict[str, Path], folder: Path, shared: Path, **changes: object) -> None:  # noqa: F811
    settings = options(inputs, **changes)
    alone = animate_file(inputs["image"], inputs["video"], folder / "alone", options=settings).video
    # PNGs, since rounding flips single values, which H.264 may spread
    frames, expected = (
        np.stack([media.read_image(path) for path in sorted(made.glob("*.png"))]).astype(int)
        for made in (shared, alone)
    )
    assert frames.shape == expected.shape
    assert frames.shape[0] == FRAMES
    assert np.abs(frames - expected).max() <= 1
    assert np.abs(frames - expected).mean() < 0.01
    assert media.read_json(shared.with_suffix(".json"))["machine"]["processes"] == 2


def test_gpus_shares_a_clip(
    inputs: dict, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert main(words(inputs, tmp_path / "shared", "--gpus", "2", "--refine-face", "--hold-still",
                      "--size", "96x128")) == 0  # fmt: skip
    said = capfd.readouterr()
    assert said.out.splitlines() == [str(tmp_path / "shared"), str(tmp_path / "shared.json")]
    assert media.read_json(tmp_path / "shared.json")["seconds"]["refine"] > 0
    assert_as_alone(inputs, tmp_path, tmp_path / "shared", refine_face=True, hold_still=True, size="96x128")


@pytest.mark.slow
def test_torchrun_shares_a_clip(inputs: dict, tmp_path: Path) -> None:  # noqa: F811
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "xdyna"]
    done = subprocess.run(
        [sys.executable, *command, *words(inputs, tmp_path / "shared")],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert_as_alone(inputs, tmp_path, tmp_path / "shared")


def test_an_error_ends_all_with_one_message(
    inputs: dict, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert main(words(inputs, tmp_path / "a.mp4", "--gpus", "2", "--frames", str(FRAMES + 1))) == 2
    message = capfd.readouterr().err
    assert message.count("\n") == 1, message
    assert message.startswith("xdyna: InputError")
    assert list(tmp_path.iterdir()) == []


def when_denoising(scratch: Path) -> None:
    """Wait until the condition clips are complete, so that the denoising of so many steps goes on."""
    deadline, last = time.monotonic() + 90, -1
    while time.monotonic() < deadline:
        size = sum(path.stat().st_size for path in scratch.glob("xdyna-ranks-*/xdyna-*/global.raw"))
        if 0 < size == last:
            return
        last = size
        time.sleep(0.7)
    raise AssertionError("the run does not begin")


def test_a_killed_process_ends_all(
    inputs: dict, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    scratch, results = tmp_path / "scratch", tmp_path / "results"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    before = set(psutil.Process().children())
    killed: list[psutil.Process] = []

    def kill() -> None:
        when_denoising(scratch)
        for process in set(psutil.Process().children()) - before:
            if process.environ().get("RANK") == "1":
                killed.append(process)
                process.send_signal(signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    assert main(words(inputs, results / "a.mp4", "--gpus", "2", "--steps", "1000")) == 2
    thread.join()
    assert len(killed) == 1
    message = capfd.readouterr().err
    assert "process 1 of 2: was ended by signal 9" in message
    assert message.count("\n") == 1, message
    assert not results.exists()
    assert list(scratch.iterdir()) == []
    assert set(psutil.Process().children()) <= before


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_the_parent_s_end_is_the_end_of_all(inputs: dict, tmp_path: Path, sent: signal.Signals) -> None:  # noqa: F811
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    parent = subprocess.Popen(
        [sys.executable, "-m", "xdyna", *words(inputs, tmp_path / "a.mp4", "--gpus", "2", "--steps", "1000")],
        env=ENVIRONMENT | {"TMPDIR": str(scratch)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    when_denoising(scratch)
    children = psutil.Process(parent.pid).children()
    assert len(children) == 2
    parent.send_signal(sent)
    _, message = parent.communicate(timeout=60)
    assert psutil.wait_procs(children, timeout=30)[1] == []
    assert [path.name for path in tmp_path.iterdir()] == ["scratch"]
    assert list(scratch.iterdir()) == []
    if sent == signal.SIGINT:
        assert parent.returncode == 130
        assert message.count("\n") == 1, message


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "1,1", "0,-2", ","])
def test_gpus_that_are_none(text: str) -> None:
    with pytest.raises(OptionError, match="allowed are auto"):
        choose_devices(text, "cpu")


def test_devices_of_processes() -> None:
    assert choose_devices("3", "cpu") == ["cpu"] * 3
    assert choose_devices("auto", "cpu") == ["cpu"]
    with pytest.raises(ResourceError, match="PyTorch sees"):
        choose_devices("999")
    with pytest.raises(OptionError, match="one of the two"):
        choose_devices("2", "cuda:1")
