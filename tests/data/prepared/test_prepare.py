from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.data.prepared.people import overlap, person
from xdyna import media
from xdyna.data.prepared.caches import MaskFile, read_track
from xdyna.data.prepared.folder import only_run
from xdyna.data.prepared.frames import open_frames
from xdyna.data.prepared.manifest import read_manifest
from xdyna.data.prepared.options import PrepareOptions
from xdyna.data.prepared.prepare import prepare
from xdyna.errors import InputError, OptionError, OutputError

SCENES = PrepareOptions(kind="scene", workers=1)


def shot(seed: int, frames: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """A picture of coloured blobs in which a block moves."""
    draws = np.random.default_rng(seed)
    blobs = draws.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    clip = np.stack([cv2.resize(blobs, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)] * frames)
    for index, frame in enumerate(clip):
        left = index % (size[1] - 8)
        frame[8:16, left : left + 8] = 255
    return clip


def write(path: Path, *shots: np.ndarray, fps: int = 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    clip = media.Clip(np.concatenate(shots), Fraction(fps))
    return media.write_clip(clip, path, overwrite=True, ai_generated=False)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Two shots, one long shot, a shot too short, and two files that are no videos."""
    folder = tmp_path / "videos"
    write(folder / "cut.mp4", shot(0, 25), shot(1, 30))
    write(folder / "long.mp4", shot(2, 70))
    write(folder / "brief.mp4", shot(3, 12))
    (folder / "text.mp4").write_text("no video")
    (folder / "cut-short.mp4").write_bytes((folder / "cut.mp4").read_bytes()[:400])
    return folder


def times(folder: Path) -> dict[str, int]:
    files = [
        path for path in folder.rglob("*") if path.is_file() and path.suffix in (".npz", ".mp4", ".json")
    ]
    return {str(path): path.stat().st_mtime_ns for path in files if path.name != "report.json"}


def test_scenes_are_split_at_cuts_and_in_length(videos: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    options = dataclasses.replace(SCENES, max_seconds=4.0)
    done = prepare([videos], tmp_path / "out", options=options, progress=lambda *a: told.append(a))
    rows = read_manifest(done.manifest)
    assert [(row.video.name, row.start, row.end) for row in rows] == [
        ("cut.mp4", 0, 25), ("cut.mp4", 25, 55), ("long.mp4", 0, 35), ("long.mp4", 35, 70),
    ]  # fmt: skip
    assert {row.kind for row in rows} == {"scene"}
    assert (done.clips, done.seconds, done.left_out) == (4, 12.5, 1)
    assert [Path(source).name for source, _ in done.failed] == ["cut-short.mp4", "text.mp4"]
    report = json.loads(done.report.read_text())
    assert report["left_out"][0]["reason"] == "is 12 frames long, too short at 10 a second"
    assert report["failed"][1]["reason"].startswith("is not a video")
    assert told[-1] == ("preparing clips", 125, 125)
    assert ("finding shots", 5, 5) in told
    assert any("2 sources could not be used" in line for line in done.lines())


def test_a_second_run_does_only_what_is_missing(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = dataclasses.replace(SCENES, rewrite=64)
    first = prepare([videos], out, options=options)
    before = times(out)
    assert prepare([videos], out, options=options) == first
    assert times(out) == before
    lost = sorted((out / "clips").iterdir())[1]
    lost.unlink()
    assert prepare([videos], out, options=options) == first
    changed = {path for path, time_ in times(out).items() if before[path] != time_}
    assert changed == {
        str(lost),
        str(out / "records" / lost.stem.rpartition("-")[0] / f"{lost.stem[-1]}.json"),
    }
    write(videos / "brief.mp4", shot(3, 24))
    assert prepare([videos], out, options=options).clips == first.clips + 1, (
        "a file that changed is planned anew"
    )


def test_runs_add_to_a_folder(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare([videos / "cut.mp4"], out, options=SCENES)
    done = prepare([videos / "long.mp4"], out, options=SCENES)
    assert (done.clips, done.failed) == (3, ())
    assert {row.video.name for row in read_manifest(out)} == {"cut.mp4", "long.mp4"}


def test_rewritten_clips_are_small_and_complete(videos: Path, tmp_path: Path) -> None:
    write(videos / "wide.mp4", shot(5, 30, size=(90, 161)))
    done = prepare([videos / "wide.mp4"], tmp_path / "out", options=dataclasses.replace(SCENES, rewrite=64))
    (row,) = read_manifest(done.manifest)
    assert (row.size, row.start, row.end) == ((64, 114), 0, 30)
    assert row.video.parent == tmp_path / "out" / "clips"
    frames = open_frames(row.video)
    assert (frames.size, frames.count(), frames.seekable) == ((64, 114), 30, True)
    original = media.read_clip(videos / "wide.mp4").frames
    for index in (0, 17, 29):
        expected = cv2.resize(original[index], (114, 64), interpolation=cv2.INTER_AREA)
        assert np.abs(frames.read([index])[0].astype(int) - expected).mean() < 4
    line = json.loads((tmp_path / "out" / "manifest.jsonl").read_text())
    assert line["video"] == f"clips/{row.video.name}"
    assert line["source"].endswith("wide.mp4#0-30")


def test_videos_that_cannot_be_searched_are_copied(tmp_path: Path) -> None:
    import av

    path = tmp_path / "raw.h264"
    with av.open(str(path), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for frame in np.concatenate([shot(0, 25), shot(1, 30)]):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    done = prepare([path], tmp_path / "out", options=dataclasses.replace(SCENES, min_seconds=0.5))
    rows = read_manifest(done.manifest)
    assert [len(row) for row in rows] == [25, 30]
    frames = media.read_clip(path).frames
    for row, begin in zip(rows, (0, 25), strict=True):
        assert row.video.parent.name == "clips"
        assert np.abs(open_frames(row.video).read([3])[0].astype(int) - frames[begin + 3]).mean() < 4


def test_parts_of_videos_and_folders_of_pictures(videos: Path, tmp_path: Path) -> None:
    for index, frame in enumerate(shot(7, 66)):
        media.write_image(tmp_path / "frames" / f"{index}.png", frame, ai_generated=False)
    entries = [
        {"video_path": str(videos / "long.mp4"), "kps_path": "x", "start_frame": 10, "end_frame": 40},
        {"video_path": str(videos / "long.mp4"), "kps_path": "x", "start_frame": 90},
        {"video_path": str(tmp_path / "frames"), "kps_path": "x"},
        {"video_path": str(tmp_path / "gone.mp4"), "kps_path": "x"},
    ]
    meta = tmp_path / "meta.json"
    meta.write_text(json.dumps(entries))
    options = PrepareOptions(layout="humanvid", kind="scene", workers=1)
    done = prepare([meta], tmp_path / "out", options=options)
    rows = {row.video.name: row for row in read_manifest(done.manifest)}
    assert (rows["long.mp4"].start, rows["long.mp4"].end) == (10, 40)
    assert (rows["frames"].end, rows["frames"].fps, rows["frames"].size) == (66, 30, (48, 64))
    reasons = dict(done.failed)
    assert "none from number 90 on" in reasons[str(videos / "long.mp4")]
    assert reasons[str(tmp_path / "gone.mp4")] == "no such file"


def test_people_are_found_and_others_left_out(tmp_path: Path) -> None:
    frames, batch = person()
    write(tmp_path / "person.mp4", frames, fps=8)
    write(tmp_path / "nobody.mp4", shot(0, 24, size=(128, 128)))
    options = PrepareOptions(kind="human", workers=1)
    done = prepare([tmp_path / "person.mp4", tmp_path / "nobody.mp4"], tmp_path / "out", options=options)
    (row,) = read_manifest(done.manifest)
    assert (row.video.name, row.person, row.people, len(row)) == ("person.mp4", 1.0, 1, 20)
    track = read_track(row.keypoints, 20)
    off = np.linalg.norm(track.keypoints.body[:, :14, :2] - batch.body[0, 1:, :14, :2].numpy(), axis=-1)
    assert off.mean() < 5
    masks = MaskFile(row.mask).read(range(20)) > 0
    truth = batch.mask[0, 1:, 0].numpy() > 0.5
    assert min(overlap(a, b) for a, b in zip(masks, truth, strict=True)) > 0.7
    (left_out,) = json.loads(done.report.read_text())["left_out"]
    assert Path(left_out["source"]).name == "nobody.mp4"
    assert "no person found" in left_out["reason"]
    strict = dataclasses.replace(options, min_height=0.99)
    with pytest.raises(InputError, match="not one clip came out") as caught:
        prepare([tmp_path / "person.mp4"], tmp_path / "strict", options=strict)
    assert "frame high (--min-height 0.99)" in str(caught.value)


def test_a_killed_run_is_taken_up_where_it_was(tmp_path: Path) -> None:
    for number in range(6):
        write(tmp_path / "videos" / f"{number}.mp4", shot(number, 60, size=(240, 320)))
    out, options = tmp_path / "out", dataclasses.replace(SCENES, rewrite=200, workers=2)
    command = [
        sys.executable, "-m", "xdyna", "prepare", str(tmp_path / "videos"), "-o", str(out), "--kind", "scene",
        "--rewrite", "200", "--workers", "2", "--quiet",
    ]  # fmt: skip
    run = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (records := list(out.glob("records/*/0.json"))) and time.monotonic() < deadline:
        time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    run.wait()
    time.sleep(0.2)  # the workers end by themselves
    records = list(out.glob("records/*/0.json"))
    assert 1 <= len(records) < 6, "killed in the middle"
    assert not (out / "manifest.jsonl").exists()
    for path in (out / "clips").glob("[!.]*"):
        assert open_frames(path).count() == 60, "whole, or not there under its name"
    before = {path: path.stat().st_mtime_ns for path in records}
    done = prepare([tmp_path / "videos"], out, options=dataclasses.replace(options, workers=1))
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in before.items())
    assert not list(out.rglob(".*.tmp*"))
    other = prepare(
        [tmp_path / "videos"], tmp_path / "other", options=dataclasses.replace(options, workers=1)
    )
    assert done.manifest.read_text() == other.manifest.read_text()


def test_one_run_at_a_time(videos: Path, tmp_path: Path) -> None:
    with only_run(tmp_path / "out"), pytest.raises(OutputError, match="another xdyna is writing"):
        prepare([videos], tmp_path / "out", options=SCENES)
    prepare([videos], tmp_path / "out", options=SCENES)


def test_places_that_cannot_be_written(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="a part of its path is a file"):
        prepare([videos], tmp_path / "file" / "out", options=SCENES)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"min_seconds": 5.0, "max_seconds": 2.0}, "--min-seconds"),
        ({"detector": "dwpose"}, "--dwpose"),
        ({"kind": "dog"}, "--kind"),
        ({"layout": "heap"}, "--layout"),
        ({"rewrite": 8}, "--rewrite"),
    ],
)
def test_options_that_cannot_be(values: dict, words: str) -> None:
    with pytest.raises(OptionError) as caught:
        dataclasses.replace(SCENES, **values)
    assert words in str(caught.value)


def test_the_verbs(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from xdyna.cli import main

    out = str(tmp_path / "out")
    assert (
        main(["prepare", str(videos / "cut.mp4"), "-o", out, "--kind", "scene", "-q", "--workers", "1"]) == 0
    )
    assert f"{out}/manifest.jsonl: 2 clips, 6 s" in capsys.readouterr().out
    assert (
        main(["synth", "-o", out, "--clips", "1", "--frames", "3", "--size", "64", "-q", "--workers", "1"])
        == 0
    )
    assert "3 clips" in capsys.readouterr().out
    assert main(["prepare", str(videos), "-o", out]) == 2
    assert "--kind: must be given" in capsys.readouterr().err
