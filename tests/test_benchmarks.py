"""The benchmarks run at tiny sizes, and measure what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import fewer_steps, full_size, full_size_ways, memory, real_pairs

from tests import tiny
from xdyna import media
from xdyna.conditions.keypoints import PARTS, Keypoints
from xdyna.synthbench.cases import case_params, people_of, render_params, to_bytes

SIZE = (64, 64)


def test_pairs_of_a_folder(tmp_path: Path) -> None:
    assert real_pairs.main(["--folder", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    for name in ("reference_2.jpg", "reference_1.png", "driving_b.mp4", "driving_a.mp4", "pose_a.mp4"):
        (tmp_path / name).touch()
    found = [(reference.name, video.name) for reference, video in real_pairs.pairs(tmp_path)]
    assert found == [
        ("reference_1.png", "driving_a.mp4"), ("reference_1.png", "driving_b.mp4"),
        ("reference_2.jpg", "driving_a.mp4"), ("reference_2.jpg", "driving_b.mp4"),
    ]  # fmt: skip


def test_a_pair_is_animated_by_the_command(tmp_path: Path) -> None:
    people = tmp_path / "people"
    people.mkdir()
    case = people_of(8, frames=3)[0]
    batch = render_params(case_params([case], frames=3), size=SIZE, device="cpu")
    media.write_image(people / "reference_x.png", to_bytes(batch.frames[0, :1])[0])
    tiny.write_video(people / "driving_y.mp4", to_bytes(batch.frames[0, 1:]))
    for name, frames in (("driver", slice(1, None)), ("reference", slice(0, 1))):
        points = {part: getattr(batch, part)[0, frames].numpy() for part in PARTS}
        Keypoints(**points, size=SIZE).save(tmp_path / f"{name}.npz")
    out = tmp_path / "out"
    arguments = [
        "--model",
        str(tiny.tiny_model(tmp_path / "model")),
        "--folder",
        str(people),
        "--frames",
        "3",
        "-o",
        str(out),
    ]
    extra = ["--", "--keypoints", str(tmp_path / "driver.npz"), "--reference-keypoints",
             str(tmp_path / "reference.npz"), "--steps", "1", "--device", "cpu"]  # fmt: skip
    assert real_pairs.main([*arguments, *extra]) == 0
    (row,) = media.read_json(out / "pairs.json")["pairs"]
    assert row["pair"] == "reference_x-driving_y"
    assert row["frames"] == 3
    assert row["peak_mib"] > 50
    assert 0 < row["parts"]["denoise"] < row["seconds"]
    assert (out / row["sheet"]).is_file()


def test_full_size_runs_at_a_small_width(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "full"
    ways = ["official", "plain", "channels-last", "fused-together", "graphs", "int8", "offload"]
    arguments = [
        "--width",
        "tiny",
        "--size",
        "64",
        "64",
        "--frames",
        "20",
        "--dtype",
        "float32",
        "-o",
        str(out),
    ]
    full_size.main([*arguments, "--rounds", "2", "--minutes", "3", "--cold", "--ways", *ways])
    made = json.loads((out / "full.json").read_text())
    assert made["about"]["dtype"] == "float32"
    rows = {(row["way"], row["row"]): row for row in made["rows"]}
    assert not [row for row in made["rows"] if "fail" in row["note"] or "left out" in row["note"]]
    error = "relative error after 2 steps"
    assert rows["plain", error]["median"] == 0
    # the official way's windows and ours are one computation
    assert rows["official", error]["median"] < 1e-5
    assert rows["offload", error]["median"] < 1e-5
    assert 1e-6 < rows["int8", error]["median"] < 1e-2
    for way in ways:
        assert rows[way, "window step s"]["runs"] == 2
        assert rows[way, "step of 20 frames s"]["median"] > 0
    assert rows["official", "step of 20 frames s"]["note"] == "windows x window step"
    assert rows["plain", "decode ms a frame, 4 at once"]["runs"] == 3
    assert rows["denoiser", "TFLOP"]["median"] > 0
    (whole,) = (row for key, row in rows.items() if key[1] == "20 frames, 25 steps, decoded s")
    assert whole["median"] > rows[whole["way"], "step of 20 frames s"]["median"]
    assert "| window step s |" in (out / "full.md").read_text()
    assert "official" in (out / "full.csv").read_text()
    assert "channels-last" in capsys.readouterr().out


def test_savings_are_measured_against_the_exact_loop(tmp_path: Path) -> None:
    model = str(tiny.tiny_model(tmp_path / "model"))
    out = tmp_path / "rows.json"
    rows = fewer_steps.main(
        ["--model", model, "--cases", "1", "--frames", "3", "--steps", "4", "--rounds", "1", "--size", "64",
         "-o", str(out)]
    )  # fmt: skip
    found = {row["way"]: row for row in rows}
    assert list(found) == list(fewer_steps.WAYS)
    assert 0 < found["cache 2"]["relative error"] < found["cache 3"]["relative error"] + 0.5
    assert found["interval"]["relative error"] < 1e-4, "both halves read the same"
    assert found["exact"]["seconds"] > 0
    assert json.loads(out.read_text())[1:] == rows


def test_a_way_that_fails_is_reported_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such layout")

    monkeypatch.setattr(full_size_ways, "hold", broken)
    arguments = ["--width", "tiny", "--size", "64", "64", "--frames", "16", "--dtype", "float32"]
    full_size.main([*arguments, "--rounds", "1", "--ways", "int8", "plain", "-o", str(tmp_path / "out")])
    rows = {
        (row["way"], row["row"]): row for row in json.loads((tmp_path / "out/out.json").read_text())["rows"]
    }
    assert "no such layout" in rows["int8", "first step"]["note"]
    assert rows["plain", "window step s"]["median"] > 0


def test_no_time_leaves_rows_out(tmp_path: Path) -> None:
    arguments = ["--width", "tiny", "--size", "64", "64", "--frames", "16", "--dtype", "float32"]
    full_size.main([*arguments, "--minutes", "0.1", "--ways", "plain", "-o", str(tmp_path / "out")])
    rows = json.loads((tmp_path / "out/out.json").read_text())["rows"]
    assert [row for row in rows if "left out" in row["note"]]


@pytest.mark.parametrize(
    ("ways", "controls", "denoiser"),
    [
        ({}, 1.25, 1.36),
        ({"offload": True}, 1.25, 1.22),
        ({"offload": True, "fused": True}, 0.82, 1.12),
        ({"graphs": True, "fused": True}, 1.02, 1.26),
    ],
    ids=str,
)
def test_a_step_at_the_published_size_needs_no_more_memory_than_stated(
    ways: dict[str, bool], controls: float, denoiser: float
) -> None:
    lines = list(memory.peaks("full", 16, (896, 512), top=1, **ways))
    peaks = {line.split(":")[0]: float(line.split()[1]) for line in lines if "beside" in line}
    assert 0.8 * controls < peaks["ControlNets"] < controls
    assert 0.8 * denoiser < peaks["denoiser"] < denoiser
    assert any("controls.py" in line or "recorded.py" in line for line in lines), (
        "and it says what takes the memory"
    )


def test_a_clip_on_several_processes(tmp_path: Path) -> None:
    out = tmp_path / "several"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv-backend", "c10d",
               "--rdzv-endpoint", "localhost:0", "-m", "benchmarks.several_gpus", "--width", "tiny", "--size", "64",
               "64", "--frames", "40", "--dtype", "float32", "--rounds", "1", "-o", str(out)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    made = json.loads((out / "several.json").read_text())
    assert made["about"]["device"] == "2 x cpu"
    rows = {(row["way"], row["row"]): row for row in made["rows"]}
    assert rows["2 processes", "times as fast"]["median"] > 0
    assert rows["2 processes", "relative difference after 2 steps"]["median"] < 1e-5
