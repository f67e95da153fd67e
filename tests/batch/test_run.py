"""Batches of the tiny model in worker processes: resumed, with bad jobs, with workers that are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.batch.conftest import ENTRY, write_list
from xdyna import media
from xdyna.batch import Job, ProcessCrew, is_done, read_jobs, run_batch
from xdyna.cli import main
from xdyna.errors import OutputError
from xdyna.media.files import temporary_file


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def made(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A list of three clips, one of which cannot be made, and the folder of its results."""
    folder = tmp_path_factory.mktemp("made") / "clips"
    path = write_list(
        inputs, "made", ENTRY | {"output": "good"}, ENTRY | {"output": "bad", "image": "dance.mp4"},
        ENTRY | {"output": "compared", "compare": True, "seed": 2},
    )  # fmt: skip
    seen: list[tuple[str, int, int | None]] = []
    report = run_batch(
        read_jobs(path, folder), folder, crew=ProcessCrew(["cpu"]), progress=lambda *told: seen.append(told)
    )
    assert [outcome.state for outcome in report.outcomes] == ["done", "failed", "done"]
    assert seen == [("clips", done, 3) for done in range(4)]
    return path, folder


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "batch.jsonl").read_text().splitlines()]


def test_a_bad_job_fails_alone_without_a_trace(made: tuple[Path, Path]) -> None:
    path, folder = made
    good, bad, compared = log(folder)[:3]
    assert bad["job"] == f"{path}:2"
    assert bad["error"].startswith("InputError: ")
    assert "Traceback" not in bad["error"]
    assert (good["error"], good["attempts"], compared["state"]) == (None, 1, "done")
    assert good["seconds"] > 0
    assert media.probe(folder / "good.mp4").frames == 3
    names = {
        "good.mp4",
        "good.json",
        "compared.mp4",
        "compared.json",
        "compared.compare.mp4",
        "compared.sheet.png",
    }
    assert {entry.name for entry in folder.iterdir()} == names | {"batch.jsonl"}


def test_the_same_command_makes_only_what_is_missing(
    made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path, folder = made
    written = {entry: entry.stat().st_mtime_ns for entry in folder.glob("*.mp4")}
    with (folder / "batch.jsonl").open("a") as file:
        file.write('{"job": "cut o')  # by kill -9
    assert main(["batch", str(path), "-o", str(folder), "-q", "--device", "cpu"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == "3 clips: 0 done, 2 skipped, 1 failed"
    assert lines[0].startswith(f"{path}:2: InputError: ")
    assert {entry: entry.stat().st_mtime_ns for entry in folder.glob("*.mp4")} == written
    last = (folder / "batch.jsonl").read_text().splitlines()[-3:]
    assert sorted(json.loads(line)["state"] for line in last) == ["failed", "skipped", "skipped"]


@pytest.mark.parametrize(
    ("changes", "different"),
    [
        ({"seed": 5}, "seed"),
        ({"steps": 2, "frames": 2}, "frames, steps"),
        ({"image": "other.png"}, "image"),
        ({"compare": True}, "compare"),
        ({"model": "other-model"}, "model"),
        ({"keypoints": "later.npz"}, "keypoints"),
    ],
)
def test_a_result_of_other_settings_is_kept_and_told(
    changes: dict[str, Any], different: str, made: tuple[Path, Path], inputs: Path
) -> None:
    folder = made[1]
    (inputs / "other.png").write_bytes((inputs / "person.png").read_bytes() + b"\0")
    (inputs / "later.npz").write_bytes((inputs / "dance.npz").read_bytes())
    if "model" in changes and not (inputs / "other-model").exists():
        from tests.tiny import PRESET, tiny_components
        from xdyna import weights

        weights.save_model(inputs / "other-model", tiny_components(1), storage="fp32", preset=PRESET)

    def job(**more: Any) -> Job:
        entry = ENTRY | changes | more | {"output": "good"}
        return read_jobs(write_list(inputs, "changed", entry), folder)[0]

    with pytest.raises(OutputError, match=f"different: {different}"):
        is_done(job())
    assert not is_done(job(overwrite=True))


def test_results_that_are_not_whole_count_as_others(
    made: tuple[Path, Path], inputs: Path, tmp_path: Path
) -> None:
    folder = made[1]

    def job() -> Job:
        return read_jobs(write_list(inputs, "partial", ENTRY | {"output": "good"}), tmp_path)[0]

    assert not is_done(job())
    (tmp_path / "good.mp4").write_bytes((folder / "good.mp4").read_bytes())
    with pytest.raises(OutputError, match="its settings file"):
        is_done(job())
    (tmp_path / "good.json").write_bytes((folder / "good.json").read_bytes())
    assert is_done(job())
    (tmp_path / "good.json").write_text('{"asked": 3}')
    with pytest.raises(OutputError, match="its settings file"):
        is_done(job())
    (tmp_path / "good.mp4").unlink()
    with pytest.raises(OutputError, match="the result itself"):
        is_done(job())


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_its_job_tried_once_more(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    path = write_list(
        inputs, "deadly", ENTRY | {"output": "endless", "steps": 1000, "frames": 9, "window": 4, "overlap": 3},
        ENTRY | {"output": "short"},
    )  # fmt: skip
    jobs = read_jobs(path, tmp_path / "out")
    jobs[0].output.parent.mkdir()
    temporary_file(jobs[0].output)  # as a killed worker leaves it
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 120
        while len(killed) < 2 and time.monotonic() < deadline:
            working = list(scratch.glob("xdyna-worker-*/xdyna-*"))
            for process in psutil.Process().children() if working else []:
                if process.pid not in killed and "spawn_main" in " ".join(process.cmdline()):
                    killed.append(process.pid)
                    process.send_signal(signal.SIGKILL)
                    while any(place.exists() for place in working) and time.monotonic() < deadline:
                        time.sleep(0.02)
            time.sleep(0.05)

    thread = threading.Thread(target=kill)
    thread.start()
    report = run_batch(jobs, tmp_path / "out", crew=ProcessCrew(["cpu"]))
    thread.join()
    assert len(killed) == 2
    endless, short = report.outcomes
    assert (endless.state, endless.attempts) == ("failed", 2)
    assert "ended by signal 9, 2 times; out of memory" in str(endless.error)
    assert (short.state, short.attempts) == ("done", 1)
    names = {entry.name for entry in (tmp_path / "out").iterdir()}
    assert names == {"short.mp4", "short.json", "batch.jsonl"}
    assert list(scratch.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_the_end_of_the_command_leaves_nothing(inputs: Path, tmp_path: Path, sent: signal.Signals) -> None:
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    scratch.mkdir()
    path = write_list(inputs, "endless", *[ENTRY | {"steps": 1000, "seed": seed} for seed in (1, 2, 3)])
    words = [sys.executable, "-m", "xdyna", "batch", str(path), "-o", str(out), "-q"]
    command = subprocess.Popen(
        [*words, "--device", "cpu", "--workers", "2"], env={**os.environ, "TMPDIR": str(scratch)},
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while len(list(scratch.glob("xdyna-worker-*/xdyna-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    workers = psutil.Process(command.pid).children()
    if sent == signal.SIGINT:
        os.killpg(command.pid, sent)  # as a terminal does
    else:
        command.send_signal(sent)
    _, message = command.communicate(timeout=60)
    assert psutil.wait_procs(workers, timeout=30)[1] == []
    assert list(out.iterdir()) == []
    assert list(scratch.iterdir()) == []
    if sent == signal.SIGINT:
        assert command.returncode == 130
        assert message.count("\n") == 1, message
