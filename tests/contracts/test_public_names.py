from __future__ import annotations

import subprocess
import sys
import time

import pytest

import xdyna

HELP_SECONDS = 0.5


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def test_public_names_are_sorted_and_each_once() -> None:
    assert list(xdyna.__all__) == sorted(set(xdyna.__all__))


@pytest.mark.parametrize("name", xdyna.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    thing = getattr(xdyna, name)
    assert name in dir(xdyna)
    assert thing.__name__ == name
    assert thing.__module__.startswith("xdyna.")
    assert thing.__doc__


def test_names_that_are_none() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        xdyna.no_such_name  # noqa: B018


def test_star_import_gives_exactly_the_public_names() -> None:
    code = "from xdyna import *; print(*sorted(name for name in globals() if not name.startswith('__')))"
    assert python(code).split() == list(xdyna.__all__)


def test_import_costs_nothing() -> None:
    code = "import sys; import xdyna; print(*sys.modules)"
    loaded = {name.split(".")[0] for name in python(code).split()}
    assert "xdyna" in loaded
    assert not loaded & {"torch", "av", "numpy", "cv2", "PIL", "diffusers", "transformers", "mediapipe"}


@pytest.mark.parametrize("arguments", [["--help"], ["animate", "--help"]])
def test_help_is_quick(arguments: list[str]) -> None:
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "xdyna", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        seconds.append(time.perf_counter() - begin)
        assert done.returncode == 0, done.stderr
        assert done.stdout.lower().startswith("usage: xdyna")
    assert min(seconds) < HELP_SECONDS, f"best of three: {min(seconds):.2f} s"
