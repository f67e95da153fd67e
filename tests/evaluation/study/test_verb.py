from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.evaluation.study.client import Client, an_answer
from xdyna.cli import main
from xdyna.evaluation.study.answers import AnswerStore
from xdyna.evaluation.study.study_set import load_study


def test_from_cases_to_tables(cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The whole way by the command, the server as a process that ends by Ctrl-C."""
    folder = str(tmp_path / "s")
    assert main(["study", "make", str(cases), "-o", folder, "--seed", "3", "-q"]) == 0
    assert "3 cases, 3 methods" in capsys.readouterr().out
    command = [sys.executable, "-m", "xdyna", "study", "serve", folder, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            (port,) = re.findall(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())
            with Client(int(port)) as client:
                for code in ("a", "b"):
                    session = client.session(code)
                    for case in range(3):
                        for video in range(3):
                            assert client.post(an_answer(session, case=case, video=video)).status == 200
        finally:
            process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "18 answers of 2 participants are saved" in out
    assert errors == ""
    assert main(["study", "analyse", folder, "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "2 participants, 3 cases, 3 methods, 18 answers; 36 missing" in said
    assert (tmp_path / "out" / "report.md").read_text() in said


def test_a_killed_server_has_every_answer_that_it_acknowledged(study: Path) -> None:
    command = [sys.executable, "-m", "xdyna", "study", "serve", str(study), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            (port,) = re.findall(r":(\d+)/", process.stdout.readline())
            with Client(int(port)) as client:
                session = client.session("a")
                posted = [an_answer(session, case=i // 3, video=i % 3, rating=i % 6) for i in range(9)]
                assert [client.post(answer).status for answer in posted] == [200] * 9
        finally:
            process.kill()
    with AnswerStore(study / "answers.sqlite", load_study(study).study, create=False) as store:
        assert store.rows() == sorted(("A", answer["video"], "FG", answer["rating"]) for answer in posted)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["make", "nowhere", "-o", "x"], "no such file"),
        (["serve", "nowhere"], "is no folder"),
        (["serve", "nowhere", "--port", "70000"], "at most 65535"),
        (["analyse", "nowhere.csv"], "no such file"),
        (["analyse", "nowhere.csv", "--confidence", "1.5"], "at most"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    match: str,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["study", *arguments]) == 2
    errors = capsys.readouterr().err
    assert match in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("step", ["make", "serve", "analyse"])
def test_help_teaches_and_loads_nothing_heavy(step: str) -> None:
    code = (
        "import sys; from xdyna.cli import build_parser\n"
        f"try: build_parser().parse_args(['study', '{step}', '--help'])\n"
        "except SystemExit: print(sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = done.stdout.splitlines()[-1]
    assert not [name for name in ("numpy", "scipy", "torch", "av", "cv2", "sqlite3") if f"'{name}'" in loaded]
    assert f"usage: xdyna study {step}" in done.stdout or "usage: " in done.stdout
