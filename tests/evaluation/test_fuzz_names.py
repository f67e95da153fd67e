"""Names, links, places and caches that nobody should give to `xdyna evaluate`; see test_fuzz.py."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.evaluation.clip_folders import write_frames
from tests.evaluation.hostile_folders import clips, lively, run
from xdyna.errors import InputError, OutputError
from xdyna.evaluation.readings import Reading, Result
from xdyna.evaluation.report import tex_text
from xdyna.evaluation.run import evaluate


@pytest.fixture(autouse=True)
def no_networks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDYNA_WEIGHTS", str(tmp_path / "no weights"))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips that nothing is wrong with, to be copied and spoilt."""
    root = tmp_path_factory.mktemp("good")
    return clips(root, pred=[lively(1), lively(2)], truth=[lively(3), lively(4)])


@pytest.fixture
def room(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "room"))


# names


NAMES = (
    "with space",
    "quote\"s'",
    "new\nline",
    "<img src=x onerror=alert(1)>",
    "&amp;<td><script>",
    r"$\bf_{x}^~%&#",
    "a|b*_[x](y)`z`",
    "-dash",
    "é日本",
)
SYSTEM = "ours\n\n<b>&_1%$\\x{}|"


class Tags(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.attributes: set[str] = set()
        self.pictures: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.pictures += [value or "" for name, value in attrs if name == "src"]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_names_are_text_everywhere(tmp_path: Path) -> None:
    for name in NAMES:
        write_frames(tmp_path / "pred" / name, lively(frames=2))
        write_frames(tmp_path / "truth" / name, lively(1, frames=2))
    ended = run(tmp_path, suite="pixel", name=SYSTEM)
    assert sorted(ended.report["clips"]) == sorted(NAMES)
    page = Tags()
    page.feed((tmp_path / "out" / "report.html").read_text())
    plain = "html meta title style h1 h2 h3 p table tr td details summary svg rect polyline text figure img figcaption"
    assert page.seen <= set(plain.split())
    assert not any(name.startswith("on") for name in page.attributes)
    assert set(page.pictures) <= {f"worst/{place:02d}.png" for place in range(6)}
    assert all(name in page.text for name in NAMES)
    head, row = (tmp_path / "out" / "report.tex").read_text().splitlines()
    cells = re.split(r"(?<!\\) & ", row)
    assert cells[0] == tex_text("ours <b>&_1%$\\x{}|")
    assert len(cells) == len(re.split(r"(?<!\\) & ", head))
    left = cells[0].replace(r"\textbackslash{}", "")
    assert not re.search(r"(?<!\\)[&%$#_{}]", left), "nothing that LaTeX would run"
    title = (tmp_path / "out" / "report.md").read_text().splitlines()[0]
    assert title == "# ours <b>&_1%$\\x{}|"


def test_a_name_from_the_command_line_that_is_no_text(room: Path) -> None:
    assert run(room, suite="pixel", name="a\udcff").report["name"] == r"a\udcff"


# links


def test_links_are_followed_and_only_pictures_are_read(room: Path, tmp_path: Path) -> None:
    outside = write_frames(tmp_path / "outside", lively(9))
    secret = tmp_path / "secret.txt"
    secret.write_text("a password")
    expected = run(
        clips(tmp_path / "plain", pred=[lively(9), lively(2)], truth=[lively(3), lively(4)]), suite="pixel"
    )
    shutil.rmtree(room / "pred" / "a")
    (room / "pred" / "a").symlink_to(outside)
    assert run(room, suite="pixel").report["metrics"] == expected.report["metrics"]
    (room / "pred" / "b" / "0001.png").unlink()
    (room / "pred" / "b" / "0001.png").symlink_to(secret)
    ended = run(room, suite="pixel", out=room / "second")
    assert "is not a picture" in str(ended.error)
    assert "password" not in str(ended.error)


def test_a_report_never_writes_through_a_link(room: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("keep")
    (room / "out").mkdir()
    for name in ("report.json", "report.html", "report.md", "report.tex"):
        (room / "out" / name).symlink_to(precious)
    assert run(room, suite="pixel").error is None
    assert precious.read_text() == "keep"


# where it goes


def outputs(root: Path) -> Iterator[tuple[str, Path]]:
    """Places that cannot take a report."""
    (root / "file").write_text("x")
    yield "a file", root / "file"
    yield "within a file", root / "file" / "deep"
    yield "too long", root / ("x" * 300)
    yield "null byte", root / "a\0b"
    for name in ("cache", "worst"):
        (root / f"no {name}").mkdir()
        (root / f"no {name}" / name).write_text("x")
        yield f"{name} is a file", root / f"no {name}"
    (root / "page" / "report.html").mkdir(parents=True)
    yield "the page is a folder", root / "page"
    if Path("/proc/self").is_dir():
        yield "a folder that takes no files, even of root", Path("/proc/xdyna")
    if os.geteuid():
        (root / "read only").mkdir(mode=0o555)
        yield "read only", root / "read only"


def test_places_that_cannot_be_written(room: Path) -> None:
    for told, place in outputs(room):
        ended = run(room, suite="pixel", out=place)
        assert isinstance(ended.error, OutputError), told


def test_inputs_that_are_no_path(room: Path) -> None:
    for place in ("a\0b", "x" * 5000, "/dev/null", "/dev/null/x"):
        with pytest.raises(InputError):
            evaluate(place, room / "out", truth=room / "truth")


GARBAGE = (
    b"",
    b"\x93NUMPY\x01\x00v\x00%-117b\n" % b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999, 96), }",
    b"PK\x03\x04 not a zip",
    bytes(range(256)),
    b"[" * 100_000,
    b"1" * 5000,
    b"null",
    b'{"readings": 5, "unavailable": {}, "protocol": {}}',
    b'{"readings": {}, "unavailable": [], "protocol": 7}',
    *(
        b'{"readings": {"psnr": {"above": %s, "below": 1, "total": 1, "curve": %s}}, "unavailable": {}, "protocol": {}}'
        % tuple(words.split())
        for words in (b"NaN []", b"1e999 []", b'"x" []', b"1 [NaN]", b"1 5", b'1 ["a"]')
    ),
)  # fmt: skip


def test_garbage_in_the_cache_is_measured_again(room: Path) -> None:
    expected = run(room, suite="pixel,set")
    kept = sorted((room / "out" / "cache").iterdir())
    assert {path.suffix for path in kept} == {".json", ".npy"}
    for content in GARBAGE:
        for path in kept:
            path.write_bytes(content)
        assert run(room, suite="pixel,set").report["metrics"] == expected.report["metrics"], content[:80]


def test_numbers_that_are_none_never_reach_a_report() -> None:
    nan, infinite = math.nan, math.inf
    for reading in (
        Reading.of_frames([nan, infinite]),
        Reading.of_clip(nan, 2, curve=[nan, infinite]),
        Reading.of_clip(-infinite, 2),
        Reading.of_ratio(infinite, 1, 2),
        Reading.of_ratio(1, nan, 2),
        Reading.of_ratio(1, 0, 2),
    ):
        json.dumps(reading.to_json(), allow_nan=False)
        assert reading.value is None
        assert Result.over([reading]).value is None
        assert Result.over([reading, Reading.of_frames([3.0])]).value == 3.0
    assert Reading.of_frames([nan, 2.0]).value == 2.0
