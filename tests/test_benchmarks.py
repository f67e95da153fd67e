"""The benchmarks run at tiny sizes, and measure what they say."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks import embedded_model, real_pairs
from benchmarks.generation import Animator
from benchmarks.held_out import (
    CHUNK,
    HUMAN_SHARE,
    STILL_SHARE,
    Job,
    carried_heads,
    case_params,
    moved_like,
    own_job,
    people_of,
    render_params,
    retargeted,
    to_bytes,
)
from benchmarks.pictures import write_curve
from benchmarks.table import BARS, lookup

from tests import tiny
from xdyna import media, weights
from xdyna.conditions.keypoints import PARTS, Keypoints
from xdyna.data.synthetic import HELD_OUT_SEED, make_batch
from xdyna.evaluation.figures import Figure
from xdyna.evaluation.judge import Judge
from xdyna.models import XDynaUNet
from xdyna.options import AnimateOptions
from xdyna.pipeline import XDynaPipeline

SIZE = (64, 64)


def told_pipeline() -> XDynaPipeline:
    """The tiny model, able to be told how lively a scene is."""
    parts = tiny.tiny_components()
    known = {name: value for name, value in parts["unet"].config.items() if not name.startswith("_")}
    unet = XDynaUNet(**{**known, "motion_condition": True})
    for parameter in unet.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    preset = dataclasses.replace(tiny.PRESET, height=64, width=64, motion_energy=6.0, shared_noise=0.5)
    return XDynaPipeline(**{**parts, "unet": unet.eval()}, preset=preset, name="tiny")


@pytest.fixture(scope="module")
def pipeline() -> XDynaPipeline:
    return told_pipeline()


@pytest.fixture(scope="module")
def job() -> Job:
    batch = render_params(case_params([4, 5], frames=3), size=SIZE, device="cpu")
    return own_job(batch, [4, 5])


# ---------------------------------------------------------------------------------------------- cases


def test_cases_are_those_of_the_world_whatever_their_number() -> None:
    batch = make_batch(HELD_OUT_SEED + 1, CHUNK, frames=2, size=(32, 32), human_share=HUMAN_SHARE,
                       still_share=STILL_SHARE)  # fmt: skip
    picked = render_params(case_params([0, CHUNK + 3], frames=2), size=(32, 32), device="cpu")
    torch.testing.assert_close(picked.frames[1], batch.frames[3])
    torch.testing.assert_close(picked.body[1], batch.body[3])
    assert people_of(6, frames=2) == [c for c in range(6) if c in people_of(16, frames=2)]


def test_another_ones_motion_moves_a_person_where_they_stand() -> None:
    own, theirs = (case_params([case], frames=2) for case in (4, 5))
    swapped = moved_like(own, theirs)
    assert torch.equal(swapped.motion["framing"], own.motion["framing"])
    assert torch.equal(swapped.motion["phase"], theirs.motion["phase"])
    before, after = (
        render_params(params, size=SIZE, device="cpu", landmarks=False) for params in (own, swapped)
    )
    assert not torch.equal(before.expression, after.expression)
    assert torch.equal(before.scene, after.scene)


def test_somebody_driven_by_themselves_is_where_they_were() -> None:
    case = people_of(8, frames=3)[1]
    batch = render_params(case_params([case], frames=3), size=(96, 96), device="cpu")
    # With the first driven frame as its reference, retargeting has nothing to change.
    batch.frames[:, 0], batch.head[:, 0] = batch.frames[:, 1], batch.head[:, 1]
    for name in PARTS:
        getattr(batch, name)[:, 0] = getattr(batch, name)[:, 1]
    driven = retargeted(batch, batch, [case])
    seen = (batch.body[:, 1:, :14, 2] > 0) & (driven.body[:, :, :14, 2] > 0)
    gap = (driven.body[:, :, :14, :2] - batch.body[:, 1:, :14, :2]).norm(dim=-1)
    assert seen.any()
    assert gap[seen].max() < 0.12 * 96
    assert gap[seen].mean() < 0.03 * 96
    assert (driven.job.pose - batch.pose[:, 1:]).abs().mean() < 0.02
    torch.testing.assert_close(driven.expression, batch.expression[:, 1:])
    assert (driven.head[..., 2] / batch.head[:, 1:, 2] - 1).abs().max() < 0.1


def test_a_driver_of_another_size_is_brought_to_the_references() -> None:
    batch = render_params(case_params([5], frames=3), size=(96, 96), device="cpu")
    small = dataclasses.replace(batch)
    for name in PARTS:
        points = getattr(batch, name).clone()
        points[..., :2] = points[..., :2] * 0.5 + torch.tensor([30.0, 8.0])
        setattr(small, name, points)
    plain, shrunk = retargeted(batch, batch, [5]), retargeted(batch, small, [5])
    seen = (plain.body[..., :14, 2] > 0) & (shrunk.body[..., :14, 2] > 0)
    gap = (plain.body[..., :14, :2] - shrunk.body[..., :14, :2]).norm(dim=-1)
    assert gap[seen].max() < 2, "half the size and elsewhere, yet the same on the reference"


def test_heads_move_with_their_faces() -> None:
    matrix = np.array([[[2.0, 0, 5], [0, 2, -3]]])
    assert carried_heads(np.array([[10.0, 20, 4]]), matrix).tolist() == [[25, 37, 8]]


# ----------------------------------------------------------------------------------------- generation


def test_a_case_gives_the_same_clip_alone_and_among_others(pipeline: XDynaPipeline, job: Job) -> None:
    animator = Animator(pipeline)
    both = animator(job)
    assert both.shape == (2, 3, 3, *SIZE)
    alone = animator(Job(job.reference[1:], job.pose[1:], job.face[1:], job.seeds[1:]))
    assert (both[1] - alone[0]).abs().max() <= 1 / 255 + 1e-6
    assert animator.clips == 3
    assert animator.seconds > 0


def test_a_case_gives_what_the_product_gives(pipeline: XDynaPipeline, tmp_path: Path) -> None:
    """The pipeline, fed the case's own picture, video and keypoints, makes the clip that is measured."""
    cases = people_of(8, frames=3)[:2]
    own, theirs = (render_params(case_params([case], frames=3), size=SIZE, device="cpu") for case in cases)
    driven = retargeted(own, theirs, cases[:1])
    measured = Animator(pipeline)(driven.job)[0]
    for name, batch, frames in (("driver", theirs, slice(1, None)), ("reference", own, slice(0, 1))):
        points = {part: getattr(batch, part)[0, frames].numpy() for part in PARTS}
        Keypoints(**points, size=SIZE).save(tmp_path / f"{name}.npz")
    options = AnimateOptions(
        model="tiny", detector="given", keypoints=str(tmp_path / "driver.npz"), seed=cases[0],
        reference_keypoints=str(tmp_path / "reference.npz"), size="64x64",
    )  # fmt: skip
    output = pipeline(to_bytes(own.frames[0, :1])[0], to_bytes(theirs.frames[0, 1:]), options=options)
    gap = np.abs(output.frames.astype(int) - to_bytes(measured).astype(int))
    assert gap.max() <= 1


def test_energy_reaches_the_network(pipeline: XDynaPipeline, job: Job) -> None:
    animator = Animator(pipeline)
    still, lively = animator(job, energy=0.0), animator(job, energy=17.0)
    assert not torch.equal(still, lively)
    each = animator(job, energy=torch.tensor([0.0, 17.0]))
    assert (each[0] - still[0]).abs().max() <= 1 / 255 + 1e-6
    assert (each[1] - lively[1]).abs().max() <= 1 / 255 + 1e-6


# --------------------------------------------------------------------------------------------- report


@pytest.fixture(scope="module")
def reported(
    pipeline: XDynaPipeline, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The whole benchmark, from a model folder and a judge's file."""
    folder = tmp_path_factory.mktemp("benchmark")
    parts = {name: getattr(pipeline, name) for name in ("unet", "vae", "pose_controlnet", "face_controlnet")}
    weights.save_model(
        folder / "model", {**parts, "scheduler": pipeline.scheduler}, storage="fp32", preset=pipeline.preset
    )
    torch.manual_seed(0)
    Judge(8).save(folder / "judge.safetensors")
    arguments = ["--model", str(folder / "model"), "--judge", str(folder / "judge.safetensors"), "--cases", "5",
                 "--frames", "3", "--steps", "1", "--batch", "3", "-o", str(folder / "out")]  # fmt: skip
    assert embedded_model.main([*arguments, "--device", "cpu"]) == 0
    return folder, json.loads((folder / "out" / "report.json").read_text())


def test_the_report_has_every_figure_of_the_issue(reported: tuple[Path, dict[str, Any]]) -> None:
    folder, report = reported
    assert report["cases"] == 5
    assert report["people"] == len(people_of(5, frames=3)) == 2
    for bar in BARS:
        found = lookup(report[bar.block], bar.name)
        if bar.name == "psnr_still" and not report["still"]:
            continue
        assert found is not None, bar.label
        assert found["clips"] >= 1, bar.label
        assert found["frames"] == 3 * found["clips"] or "expressions" in bar.name
        assert found["value"] is not None
    assert report["truth"]["psnr"]["value"] == 60
    assert report["truth"]["scene_motion"]["value"] == 1
    assert report["copy_reference"]["scene_motion"]["value"] == 0
    assert report["cross_rendered"]["joint_error_pct"]["clips"] == report["people"]
    assert report["cross_rendered_truth"]["psnr"]["value"] == 60
    assert "psnr" not in report["cross_driven"], "nobody knows the true pixels of a retargeted clip"
    assert list(report["knob"]) == ["none", "0.0", "0.5", "1.0", "1.5", "2.0", "true"]
    unchanged = report["knob"]["none"].pop("change")
    assert report["knob"]["none"] == report["model"]
    assert unchanged["joint_error_pct"]["value"] == 0
    told, untold = (report["knob"][name]["joint_error_pct"]["value"] for name in ("2.0", "none"))
    assert report["knob"]["2.0"]["change"]["joint_error_pct"]["value"] == pytest.approx(
        told - untold, abs=2e-4
    )
    assert report["knob"]["2.0"] != report["knob"]["0.0"]
    text = (folder / "out" / "report.md").read_text()
    assert "told the truth" in text
    assert all(bar.label in text for bar in BARS)


def test_pictures_and_videos_are_there(reported: tuple[Path, dict[str, Any]]) -> None:
    out = reported[0] / "out"
    names = {path.name for path in out.iterdir()}
    people = people_of(5, frames=3)
    assert {f"case_{case:02d}.png" for case in range(5)} <= names
    assert {f"cross_{case:02d}.{end}" for case in people for end in ("png", "mp4")} <= names
    assert {"case_00.mp4", "knob_00.mp4", "knob.png", "report.json", "report.md"} <= names
    assert media.count_frames(out / "case_00.mp4") == 6
    assert not [name for name in names if "tmp" in name]


def test_parts_are_chosen(reported: tuple[Path, dict[str, Any]]) -> None:
    folder = reported[0]
    arguments = ["--model", str(folder / "model"), "--judge", str(folder / "judge.safetensors"), "--cases", "2",
                 "--frames", "3", "--steps", "1", "--device", "cpu"]  # fmt: skip
    assert embedded_model.main([*arguments, "--suite", "self", "-o", str(folder / "self")]) == 0
    report = json.loads((folder / "self" / "report.json").read_text())
    assert "model" in report
    assert not {"cross_driven", "knob"} & set(report)
    assert {path.name for path in (folder / "self").iterdir()} == {"report.json", "report.md"}
    assert embedded_model.main([*arguments, "--suite", "sheets", "-o", str(folder / "sheets")]) == 0
    assert (folder / "sheets" / "case_01.png").is_file()
    assert "model" not in json.loads((folder / "sheets" / "report.json").read_text())


def test_a_model_that_cannot_be_told_has_no_knob(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = embedded_model.Plan(cases=1, frames=2, size=SIZE, batch=1, suites=("knob",), output=tmp_path)
    untold = tiny.tiny_pipeline()
    report = embedded_model.measure(Animator(untold, steps=1), Judge(8).eval(), plan)
    assert "knob" not in report
    assert "cannot be told" in capsys.readouterr().err


def test_mistakes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--judge", str(tmp_path / "absent"), "-o", str(tmp_path / "out"), "--device", "cpu"]
    assert embedded_model.main(arguments) == 2
    assert "absent" in capsys.readouterr().err
    assert embedded_model.main([*arguments, "--cases", "0"]) == 2
    assert "at least 1" in capsys.readouterr().err


def test_verdicts() -> None:
    still, motion, error = (
        next(bar for bar in BARS if word in bar.label) for word in ("walls", "scene motion", "joint")
    )
    assert [still.verdict(v) for v in (0.1, 0.4, 0.6, None)] == ["aim", "met", "**missed**", "not measured"]
    assert [motion.verdict(v) for v in (1.0, 0.92, 1.2)] == ["aim", "met", "**missed**"]
    assert [error.verdict(v) for v in (0.9, 1.0, 2.0)] == ["aim", "met", "**missed**"]


def test_the_curve_is_drawn_where_the_values_are(tmp_path: Path) -> None:
    points = [(x, Figure(10 * x, 10 * x - 1, 10 * x + 1, 4, 64)) for x in (0.0, 1.0, 2.0)]
    write_curve(tmp_path / "curve.png", {"left": {"rises": points}, "empty": {"nothing": []}})
    picture = media.read_image(tmp_path / "curve.png").astype(int)
    red = (picture[..., 0] > 180) & (picture[..., 1] < 90) & (np.arange(picture.shape[0])[:, None] > 60)
    rows, columns = np.nonzero(red)
    assert np.corrcoef(rows, columns)[0, 1] < -0.99
    assert columns.max() < picture.shape[1] // 2, "the other panel is empty"


# ----------------------------------------------------------------------------------------- real pairs


def test_pairs_of_a_folder(tmp_path: Path) -> None:
    assert real_pairs.main(["--folder", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    for name in ("reference_2.jpg", "reference_1.png", "driving_b.mp4", "driving_a.mp4", "pose_a.mp4"):
        (tmp_path / name).touch()
    found = [(reference.name, video.name) for reference, video in real_pairs.pairs(tmp_path)]
    assert found == [
        ("reference_1.png", "driving_a.mp4"), ("reference_1.png", "driving_b.mp4"),
        ("reference_2.jpg", "driving_a.mp4"), ("reference_2.jpg", "driving_b.mp4"),
    ]  # fmt: skip


def test_a_pair_is_animated_by_the_command(reported: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
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
        str(reported[0] / "model"),
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
