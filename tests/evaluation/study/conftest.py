from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.study.client import Client
from xdyna import media
from xdyna.evaluation.study.making import make_study
from xdyna.evaluation.study.options import MakeOptions
from xdyna.evaluation.study.server import StudyServer

METHODS = ("MagicPose", "Secret-Method", "X-Dyna")


def write_video(path: Path, *, frames: int = 8, colour: int = 0, size: tuple[int, int] = (48, 64)) -> None:
    """A bar that moves over a coloured ground."""
    clip = np.full((frames, *size, 3), (30 + colour, 90, 160 - colour), np.uint8)
    for t in range(frames):
        clip[t, :, 3 * t : 3 * t + 8] = 230
    media.write_clip(iter(clip), path, fps=Fraction(8), metadata={"model": path.stem})


def write_case(folder: Path, methods: tuple[str, ...] = METHODS, *, shade: int = 0) -> None:
    folder.mkdir(parents=True)
    media.write_image(folder / "reference.png", np.full((48, 64, 3), 99 + shade, np.uint8))
    write_video(folder / "driving.mp4", frames=20, colour=shade)
    for place, method in enumerate(methods):
        write_video(folder / f"{method}.mp4", colour=40 * place + shade)


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cases of three methods. Nobody writes here."""
    folder = tmp_path_factory.mktemp("study") / "cases"
    for place in range(3):
        write_case(folder / f"dance {place}", shade=10 * place)
    return folder


@pytest.fixture(scope="session")
def made(cases: Path) -> Path:
    folder = cases.with_name("study")
    make_study(cases, folder, options=MakeOptions(seed=7, title="<script>alert(1)</script>"))
    return folder


@pytest.fixture
def study(made: Path, tmp_path: Path) -> Path:
    """A study of one's own, its key beside it."""
    shutil.copytree(made, tmp_path / "study")
    shutil.copy2(made.with_name("study.key.json"), tmp_path)
    return tmp_path / "study"


@contextlib.contextmanager
def running(study: Path) -> Iterator[StudyServer]:
    """A server that really runs, on a free port."""
    with StudyServer(study) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.stop()
            thread.join(timeout=10)
        assert not thread.is_alive()


@pytest.fixture
def server(study: Path) -> Iterator[StudyServer]:
    with running(study) as server:
        yield server


@pytest.fixture(scope="module")
def shared_server(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudyServer]:
    """One server for many tests that leave its answers as they are."""
    folder = tmp_path_factory.mktemp("shared") / "study"
    shutil.copytree(made, folder)
    with running(folder) as server:
        yield server


@pytest.fixture
def client(server: StudyServer) -> Iterator[Client]:
    with Client(server.port) as client:
        yield client
