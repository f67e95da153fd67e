"""The same batch on a local Ray."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.batch.conftest import ENTRY, write_list
from xdyna.batch import RayCrew
from xdyna.errors import MissingPackage

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed (pip install 'xdyna-animate[ray]')")


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_without_ray_the_message_says_how_to_get_it() -> None:
    with pytest.raises(MissingPackage, match=r"pip install .*\[ray\]"):
        RayCrew("local")


def batch(path: Path, out: Path, *words: str) -> subprocess.Popen[str]:
    """The command, in a process of its own: Ray stays in the one that started it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-m", "xdyna", "batch", str(path), "-o", str(out), "-q", "--device", "cpu"]
    return subprocess.Popen(
        [*command, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@needs_ray
def test_a_local_ray_makes_clips_and_replaces_an_actor_that_dies(inputs: Path, tmp_path: Path) -> None:
    path = write_list(
        inputs, "ray", ENTRY | {"output": "good"}, ENTRY | {"output": "bad", "image": "dance.mp4"},
        ENTRY | {"output": "endless", "steps": 1000, "frames": 9, "window": 4, "overlap": 3},
        ENTRY | {"output": "last"},
    )  # fmt: skip
    command = batch(path, tmp_path / "out", "--ray", "local")
    killed: list[int] = []
    deadline = time.monotonic() + 200
    while command.poll() is None and time.monotonic() < deadline:
        log = tmp_path / "out" / "batch.jsonl"
        if len(killed) < 2 and log.exists() and len(log.read_text().splitlines()) == 2:
            for process in psutil.Process(command.pid).children(recursive=True):
                if (
                    "ClipWorker.run" in process.name() + " ".join(process.cmdline())
                    and process.pid not in killed
                ):
                    killed.append(process.pid)
                    process.kill()
        time.sleep(0.2)
    output, errors = command.communicate(timeout=30)
    assert command.returncode == 2, errors
    assert len(killed) == 2
    assert "Traceback" not in errors
    lines = [json.loads(line) for line in (tmp_path / "out" / "batch.jsonl").read_text().splitlines()]
    found = {Path(line["output"]).stem: (line["state"], line["attempts"]) for line in lines}
    assert found == {"good": ("done", 1), "bad": ("failed", 1), "endless": ("failed", 2), "last": ("done", 1)}
    assert "lost by Ray" in lines[2]["error"]
    names = {entry.name for entry in (tmp_path / "out").iterdir()}
    assert names == {"good.mp4", "good.json", "last.mp4", "last.json", "batch.jsonl"}
    assert output.splitlines()[-2] == "4 clips: 2 done, 0 skipped, 2 failed"


@needs_ray
@pytest.mark.parametrize(("address", "message"), [("127.0.0.1:1", "cannot be reached"), ("", "empty")])
def test_an_address_without_a_cluster(address: str, message: str, inputs: Path, tmp_path: Path) -> None:
    command = batch(write_list(inputs, "nowhere", ENTRY), tmp_path / "out", "--ray", address)
    _, errors = command.communicate(timeout=120)
    assert command.returncode == 2
    assert message in errors
    assert "Traceback" not in errors
