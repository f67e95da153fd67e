"""Whatever people put into the folders: `xdyna evaluate` says what to do about it, or reports finite numbers."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.clip_folders import write_frames, write_video
from tests.evaluation.hostile_folders import FRAMES, SIZE, box, clips, grey, lively, run
from xdyna.evaluation.pairs import pair_up


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
