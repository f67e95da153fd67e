"""Face sources of the user's: a function, a command, and what is said when they fail."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.data.reenacted import clips, people
from xdyna.conditions.keypoints import Keypoints
from xdyna.conditions.people import Person
from xdyna.data.reenact import CommandFace, PluginFace, Reenactor, SameFace, load_source
from xdyna.errors import OptionError

MODULE = """
import numpy as np

def upside_down(frames, landmarks, *, generator):
    moved = landmarks.copy()
    moved[..., 1] = frames.shape[1] - moved[..., 1]
    return frames[:, ::-1], moved + generator.uniform(0, 1e-6)

def no_pair(frames, landmarks, *, generator):
    return frames

def too_few(frames, landmarks, *, generator):
    return frames[:-1], landmarks[:-1]

def wrong_points(frames, landmarks, *, generator):
    return frames, landmarks[:, :60]

def breaks(frames, landmarks, *, generator):
    raise RuntimeError("CUDA is out of luck")

number = 3
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "my_net.py"
    path.write_text(MODULE)
    return path


def test_a_function_of_a_file_and_of_a_module(module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, landmarks = clips()[0]
    by_file = load_source(f"{module}:upside_down")
    monkeypatch.syspath_prepend(str(module.parent))
    by_name = load_source("my_net:upside_down")
    for source in (by_file, by_name):
        assert isinstance(source, PluginFace)
        pictures, placed = source(frames, landmarks, generator=np.random.default_rng(0))
        assert np.array_equal(pictures, frames[:, ::-1])
        assert placed.dtype == np.float32
    sys.modules.pop("my_net")


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("no_pair", "not a pair"), ("too_few", "pictures"), ("wrong_points", "landmarks"),
        ("breaks", "out of luck"),
    ],
)  # fmt: skip
def test_wrong_answers_are_told_apart(module: Path, function: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        load_source(f"{module}:{function}")(*clips()[0], generator=np.random.default_rng(0))


def test_names_that_mean_nothing(module: Path) -> None:
    for name, words in (
        ("liveportrait", "not one of"), ("no_such_module_anywhere:run", "cannot be imported"),
        (f"{module}:absent", "no function"), (f"{module}:number", "is no function"),
        (f"{module}x.py:run", "does not exist"), ("a:b c", "MODULE:FUNCTION"),
    ):  # fmt: skip
        with pytest.raises(OptionError, match=words):
            load_source(name)
    bad = module.with_name("bad.py")
    bad.write_text("1 / 0")
    with pytest.raises(OptionError, match="ZeroDivisionError"):
        load_source(f"{bad}:run")


def test_the_built_in_sources_have_names() -> None:
    assert isinstance(load_source("same"), SameFace)
    source = load_source("reenact", gallery=people())
    assert isinstance(source, Reenactor)
    assert source.gallery is people()


class Centred:
    """A detector for the portraits a command is given: the landmarks are those of the test's clip, moved along."""

    def __init__(self, landmarks: np.ndarray) -> None:
        self.landmarks = landmarks

    def stream(self, frames: Iterable[np.ndarray]) -> Iterator[list[Person]]:
        for frame, points in zip(frames, self.landmarks, strict=True):
            one = Keypoints.empty(1, frame.shape[:2])
            one.face[0] = points
            one.body[0] = (*points[30, :2], 1)
            yield [Person(one, (0.0, 0.0, 512.0, 512.0))]


ECHO = """
import sys, shutil, pathlib
source, driving, output = sys.argv[1:]
assert pathlib.Path(source).read_bytes()[:4] == b"\\x89PNG"
shutil.copy(driving, output)
"""


def test_a_command_is_run_and_its_face_brought_to_the_target_s_place(tmp_path: Path) -> None:
    script = tmp_path / "my animate.py"
    script.write_text(ECHO)
    frames, landmarks = clips()[1]
    # What the command is given shows the clip's face in a square of 512; an echo gives it back unchanged.
    low, high = landmarks[..., :2].min((0, 1)), landmarks[..., :2].max((0, 1))
    typical = float(np.median(np.ptp(landmarks[..., :2], axis=1).max(-1)))
    side = max(float((high - low).max()) + typical, 2.4 * typical)
    there = landmarks.copy()
    there[..., :2] = (landmarks[..., :2] - (low + high) / 2) * 512 / side + 256
    command = f"{sys.executable} '{script}' {{source}} {{driving}} {{output}}"
    source = CommandFace(command, people(), detector=Centred(there))
    pictures, placed = source(frames, landmarks, generator=np.random.default_rng(0))
    assert np.allclose(placed[..., :2], landmarks[..., :2], atol=0.6)
    centre = np.round(landmarks[0, 30, :2]).astype(int)
    near = (slice(centre[1] - 8, centre[1] + 8), slice(centre[0] - 8, centre[0] + 8))
    assert np.abs(pictures[0][near].astype(int) - frames[0][near]).mean() < 12


def test_commands_that_fail_say_why(tmp_path: Path) -> None:
    clip = tuple(part[:3] for part in clips()[0])

    def run(command: str, timeout: float = 60.0) -> None:
        CommandFace(command, people(), timeout=timeout)(*clip, generator=np.random.default_rng(0))

    files = "{source} {driving} {output}"
    (tmp_path / "fails.py").write_text("import sys\nsys.exit('no weights in ./pretrained')")
    (tmp_path / "nothing.py").write_text("")
    (tmp_path / "sleeps.py").write_text("import time\ntime.sleep(30)")
    for command, words in (
        (f"{sys.executable} {tmp_path}/fails.py {files}", "no weights"),
        (f"{sys.executable} {tmp_path}/nothing.py {files}", "wrote no file"),
        (f"/no/such/program {files}", "no program"),
    ):
        with pytest.raises(OptionError, match=words):
            run(command)
    with pytest.raises(OptionError, match="longer than"):
        run(f"{sys.executable} {tmp_path}/sleeps.py {files}", timeout=0.3)
    with pytest.raises(OptionError, match=r"lacks \{output\}"):
        run("animate {source} {driving}")
    with pytest.raises(OptionError, match="cannot be read"):
        run(f"animate '{files}")
