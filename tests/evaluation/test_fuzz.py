"""Whatever people put into the folders: `xdyna evaluate` says what to do about it, or reports finite numbers."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.clip_folders import moving, write_frames, write_video
from xdyna.errors import InputError, OutputError, XdynaError
from xdyna.evaluation.options import EvaluateOptions
from xdyna.evaluation.pairs import pair_up
from xdyna.evaluation.readings import Reading, Result
from xdyna.evaluation.report import tex_text
from xdyna.evaluation.run import evaluate

SIZE = (32, 40)
FRAMES = 3


@pytest.fixture(autouse=True)
def no_networks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDYNA_WEIGHTS", str(tmp_path / "no weights"))


class Ended(NamedTuple):
    """How an evaluation ended: with an error, or a report."""

    error: XdynaError | None
    report: dict[str, Any]

    def value(self, name: str) -> float | None:
        assert self.error is None, self.error
        found: float | None = self.report["metrics"][name]["value"]
        return found


def run(root: Path, *, suite: str = "all", out: Path | None = None, **options: Any) -> Ended:
    """Evaluate ROOT/pred against ROOT/truth, ROOT/driving and ROOT/masks, as far as they are there.

    Anything else than the two good endings fails.
    """
    out = out or root / "out"
    others = {kind: root / kind for kind in ("truth", "driving", "masks") if (root / kind).is_dir()}
    try:
        evaluate(
            root / "pred", out, **others,
            options=EvaluateOptions(suite=suite, workers=1, device="cpu", resamples=5, **options),
        )  # fmt: skip
    except XdynaError as error:
        return _refused(error, out)
    report = strict(out / "report.json")
    for name, found in report["metrics"].items():
        for number in (found["value"], found["low"], found["high"], found["coverage"]):
            assert number is None or math.isfinite(number), name
        assert 0 <= found["coverage"] <= 1, name
        assert name not in report["unavailable"]
    for path in (out / "cache").glob("*.json"):
        strict(path)
    for name in ("report.md", "report.tex", "report.html"):
        found = re.search(r"\b(nan|NaN|inf|Infinity|None)\b", (out / name).read_text())
        assert found is None, f"{name} says {found}"
    return Ended(None, report)


def _refused(error: XdynaError, out: Path) -> Ended:
    assert len(str(error)) > 20
    assert error.remedy, f"says what to do: {error}"
    assert "\0" in str(out) or len(out.name) > 255 or not list(out.glob(".*.tmp*")), "nothing half written"
    return Ended(error, {})


def strict(path: Path) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{path} holds {word}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def clips(root: Path, **sets: np.ndarray | list[np.ndarray]) -> Path:
    """Sets of clips a, b, ... as folders of frames."""
    for kind, given in sets.items():
        for name, clip in zip("abcd", given if isinstance(given, list) else [given], strict=False):
            write_frames(root / kind / name, clip)
    return root


def grey(level: int, *, frames: int = FRAMES, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.full((frames, *size, 3), level, np.uint8)


def lively(seed: int = 0, *, frames: int = FRAMES, size: tuple[int, int] = SIZE) -> np.ndarray:
    return moving(seed, frames=frames, size=size)


def box() -> np.ndarray:
    """Masks of somebody."""
    masks = grey(0)
    masks[:, 8:24, 8:24] = 255
    return masks


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips that nothing is wrong with, to be copied and spoilt."""
    root = tmp_path_factory.mktemp("good")
    return clips(root, pred=[lively(1), lively(2)], truth=[lively(3), lively(4)])


@pytest.fixture
def room(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "room"))


# what is in the pictures


@pytest.mark.parametrize(
    ("pred", "truth", "expected"),
    [
        (grey(0), grey(0), {"mae": 0, "psnr": 100, "ssim_disco": 1, "ssim_gaussian": 1, "false_motion": 0}),
        (grey(255), grey(0), {"mae": 255, "psnr": 0, "false_motion": 0, "colour_drift": 0}),
        (grey(7), lively(), {"scene_motion_ratio": 0, "flicker_ratio": 0}),
        (lively(), grey(99), {"colour_drift": None, "joint_error_pct": None}),
        (lively(frames=1), lively(1, frames=1), {"false_motion": None, "colour_drift": None, "psnr": None}),
        (lively(frames=2), lively(1, frames=2), {"psnr": None}),
        (lively(size=(16, 16)), lively(1, size=(16, 16)), {"psnr": None}),
        (lively(size=(17, 31)), lively(size=(17, 31)), {"psnr": 100}),
        (lively(size=(20, 64)), lively(), {"psnr": None}),
    ],
    ids=["black", "white on black", "still", "true still", "one frame", "two", "16x16", "17x31", "other size"],
)  # fmt: skip
def test_odd_content_gives_finite_numbers(
    tmp_path: Path, pred: np.ndarray, truth: np.ndarray, expected: dict[str, float | None]
) -> None:
    ended = run(clips(tmp_path, pred=[pred, pred], truth=[truth, truth]))
    for name, value in expected.items():
        if value is not None:
            assert ended.value(name) == pytest.approx(value), name
        elif name == "psnr":
            assert 0 < (ended.value(name) or 0) < 60
        else:
            assert ended.value(name) is None or name == "colour_drift"
    assert ended.report["metrics"]["dtfvd[synth]"]["value"] >= 0
    assert "needs" in ended.report["unavailable"]["fid"]


@pytest.mark.parametrize("masked", [False, True])
def test_cross_driving_of_odd_clips(tmp_path: Path, masked: bool) -> None:
    driving = [grey(0, size=(16, 70)), lively(1, size=(33, 17))]
    root = clips(tmp_path, pred=[lively(), grey(255)], driving=driving)
    ended = run(clips(root, masks=[box(), grey(0)]) if masked else root)
    assert ended.report["unavailable"]["psnr"].endswith("needs --truth")
    assert ended.value("joint_error_pct") is None
    assert (ended.value("dtfvd[synth]") or 0) > 0


def test_a_single_window_is_no_set(tmp_path: Path) -> None:
    ended = run(clips(tmp_path, pred=lively(), truth=lively(1)), suite="set")
    assert "at least 2" in ended.report["unavailable"]["dtfvd[synth]"]


def test_what_a_mask_leaves_nothing_of_is_not_judged(tmp_path: Path) -> None:
    """Two pictures that are black since nothing is left of them are equal: that is no merit."""
    for name, level, empty, full in (("nobody", 0, "fg", "bg"), ("only the person", 255, "bg", "fg")):
        masks = [grey(level), grey(level)]
        root = clips(tmp_path / name, pred=[lively(1), lively(2)], truth=[lively(3), lively(4)], masks=masks)
        ended = run(root, suite="pixel,set,motion")
        for metric in ("psnr", "ssim_disco", "l1_disco"):
            assert ended.value(f"{empty}:{metric}") is None
            assert ended.report["metrics"][f"{empty}:{metric}"]["coverage"] == 0
            assert ended.value(f"{full}:{metric}") == pytest.approx(ended.value(metric))
        assert "nothing of this part" in ended.report["unavailable"][f"{empty}:dtfvd[synth]"]
        assert ended.value(f"{full}:dtfvd[synth]") == pytest.approx(ended.value("dtfvd[synth]"))
    masks = box()
    masks[1] = 0
    ended = run(clips(tmp_path / "gone once", pred=lively(), truth=lively(1), masks=masks), suite="pixel")
    assert ended.report["clips"]["a"]["curves"]["fg:psnr"][1] is None
    assert ended.report["metrics"]["fg:psnr"]["frames"] == FRAMES - 1


def test_masks_of_another_size_are_resized(tmp_path: Path) -> None:
    masks = np.repeat(np.repeat(box(), 2, 1), 2, 2)
    one = run(clips(tmp_path / "x", pred=lively(), truth=lively(1), masks=masks), suite="pixel")
    two = run(clips(tmp_path / "y", pred=lively(), truth=lively(1), masks=box()), suite="pixel")
    assert one.value("fg:psnr") == pytest.approx(two.value("fg:psnr"))


def test_pictures_of_every_kind_are_read(room: Path) -> None:
    folder, frame = room / "pred" / "a", lively()[0]
    deep = np.random.default_rng(0).integers(0, 65536, SIZE).astype(np.uint16)
    Image.fromarray(deep).save(folder / "0000.png")
    Image.fromarray(frame[..., 0]).save(folder / "0001.png")
    Image.fromarray(np.dstack([frame, grey(0)[0, ..., :1]])).save(folder / "0002.png")
    Image.fromarray(frame).convert("P").save(room / "truth" / "a" / "0000.png")
    Image.fromarray(frame[..., 0] > 128).save(room / "truth" / "a" / "0001.png")
    ended = run(room)
    assert ended.value("psnr") is not None
    (pair, _) = pair_up(room / "pred", truth=room / "truth")
    read = pair.read_pred()
    assert np.array_equal(read[0, ..., 1], deep >> 8)
    assert np.array_equal(read[1, ..., 2], frame[..., 0])
    assert (read[2] == 255).all(), "transparent lies over white"


# what is wrong with the files


def cut(path: Path, share: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def put(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def both(room: Path, name: str, content: bytes) -> None:
    put(room / "pred" / name, content)
    put(room / "truth" / name, content)


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def only_a_reference(folder: Path) -> None:
    emptied(folder)
    Image.fromarray(lively()[0]).save(folder / "reference.png")


def instead(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def gap(room: Path) -> None:
    """Three frames in each folder, and not the same ones."""
    for kind in ("pred", "truth"):
        write_frames(room / kind / "a", lively(frames=4))
    without(room, "pred/a/0001.png", "truth/a/0002.png")


def without(room: Path, *frames: str) -> None:
    for frame in frames:
        (room / frame).unlink()


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut picture": (lambda r: cut(r / "pred/a/0001.png"), "damaged or cut short"),
    "cut true picture": (lambda r: cut(r / "truth/b/0002.png", 0.9), "damaged or cut short"),
    "text as picture": (lambda r: put(r / "pred/a/0001.png", b"hello"), "is not a picture"),
    "empty picture": (lambda r: put(r / "pred/a/0001.png", b""), r"is empty \(0 bytes\)"),
    "empty video": (lambda r: both(r, "c.mp4", b""), r"c.mp4: is empty \(0 bytes\)"),
    "text as video": (lambda r: both(r, "c.mp4", b"hello"), r"c.mp4: is not a video"),
    "tiny picture": (lambda r: Image.new("RGB", (8, 8)).save(r / "pred/a/0000.png"), "8 x 8 pixels"),
    "sizes change": (lambda r: Image.new("RGB", (44, 32)).save(r / "pred/a/0001.png"), "must have one size"),
    "frame missing": (lambda r: without(r, "pred/a/0001.png"), r"a \(pred 2, truth 3\)"),
    "other frames missing": (gap, "frames are missing within a"),
    "only a reference": (lambda r: only_a_reference(r / "pred/a"), "--pred lacks a"),
    "nothing but a reference": (lambda r: only_a_reference(r / "pred"), "neither videos nor folders"),
    "no frames": (lambda r: emptied(r / "truth/b"), "--truth lacks b"),
    "nothing": (lambda r: emptied(r / "pred"), "neither videos nor folders"),
    "link to nowhere": (lambda r: instead(r / "pred/a/0001.png", lambda p: p.symlink_to("x")), "no such file"),
    "link to itself": (lambda r: instead(r / "pred/a/0001.png", lambda p: p.symlink_to(p)), "no such file"),
    "folder as picture": (lambda r: instead(r / "pred/a/0001.png", Path.mkdir), "is a folder, not a picture"),
    "pipe as picture": (lambda r: instead(r / "pred/a/0001.png", os.mkfifo), "is not a regular file"),
    "pipe as first picture": (lambda r: instead(r / "pred/a/0000.png", os.mkfifo), "is not a regular file"),
    "name not text": (lambda r: os.rename(r / "pred/a", os.fsencode(r / "pred") + b"/\xff"), r"pred/\\udcff.*UTF-8"),
}  # fmt: skip


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_told_by_name_before_any_work(room: Path, name: str) -> None:
    spoil, message = BROKEN[name]
    spoil(room)
    ended = run(room, partial=name == "name not text")
    assert ended.error is not None
    assert re.search(message, str(ended.error)), ended.error
    assert not (room / "out" / "report.json").exists()


def test_a_gap_in_both_folders_is_no_fault(room: Path) -> None:
    gap(room)
    (room / "truth/a/0001.png").rename(room / "truth/a/0002.png")
    assert run(room, suite="pixel").value("psnr") is not None


def test_videos_spoilt_anywhere(tmp_path: Path) -> None:
    """Cut off, or with bytes overwritten: an error, or as many frames as the other clip has."""
    for kind in ("pred", "truth"):
        write_video(tmp_path / kind / "a.mp4", lively(frames=12, size=(64, 64)))
    whole = (tmp_path / "pred" / "a.mp4").read_bytes()
    generator = np.random.default_rng(0)
    errors = 0
    for number in range(16):
        content = bytearray(whole)
        if number % 2:
            del content[int(generator.integers(len(content))) :]
        else:
            start = int(generator.integers(len(content) - 64))
            content[start : start + 64] = generator.bytes(64)
        (tmp_path / "pred" / "a.mp4").write_bytes(content)
        errors += run(tmp_path, suite="pixel,motion", out=tmp_path / f"out{number}").error is not None
    assert errors >= 8, "a cut MP4 has no index"


def test_a_video_whose_index_promises_more_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "pred" / "a.mp4", lively(frames=4, size=(64, 64)))
    clips(tmp_path, truth=lively(frames=6, size=(64, 64)))
    monkeypatch.setattr("xdyna.evaluation.clips.count_frames", lambda path: 6)
    ended = run(tmp_path, suite="motion")
    assert "4 of its first 6 frames can be read" in str(ended.error)


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


# at random


@pytest.mark.parametrize("seed", range(12))
def test_any_mixture_ends_well(tmp_path: Path, seed: int) -> None:
    """Clips of drawn content, sizes, lengths, layouts and masks; every third set gets a spoilt file on top."""
    generator = np.random.default_rng(seed)

    def drawn(size: tuple[int, int], frames: int) -> np.ndarray:
        kind = generator.integers(4)
        if kind == 0:
            return grey(int(generator.integers(256)), frames=frames, size=size)
        if kind == 1:
            return generator.integers(0, 256, (frames, *size, 3)).astype(np.uint8)
        return lively(int(generator.integers(99)), frames=frames, size=size)

    frames = int(generator.integers(1, 5))
    for name in "abc"[: int(generator.integers(1, 4))]:
        for kind in ("pred", "truth", "masks")[: int(generator.integers(2, 4)) if name == "a" else 3]:
            if kind == "masks" and name != "a" and not (tmp_path / "masks").is_dir():
                continue
            height, width = (int(n) for n in generator.integers(16, 48, 2))
            clip = drawn((height, width), frames)
            if kind != "masks" and generator.integers(3) == 0:
                clip = np.resize(clip, (frames, height // 2 * 2, width // 2 * 2, 3))
                write_video(tmp_path / kind / f"{name}.mp4", clip)
            else:
                write_frames(tmp_path / kind / name, clip)
    spoilt = seed % 3 == 2
    if spoilt:
        files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
        path = files[int(generator.integers(len(files)))]
        content = bytearray(path.read_bytes())
        content[len(content) // 3 : len(content) // 2] = generator.bytes(7)
        path.write_bytes(content)
    ended = run(tmp_path)
    assert spoilt or ended.error is None, ended.error
