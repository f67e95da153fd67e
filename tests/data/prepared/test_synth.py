from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from xdyna import media
from xdyna.data.prepared.caches import MaskFile, read_track
from xdyna.data.prepared.manifest import ClipRow, read_manifest
from xdyna.data.prepared.options import SynthOptions
from xdyna.data.prepared.synth import PART, synth
from xdyna.data.synthetic import render, sample_params
from xdyna.errors import OptionError

OPTIONS = SynthOptions(clips=2, frames=4, size="96x64", seed=3, workers=1)


def test_clips_are_the_rendered_ones_exactly(rows: list[ClipRow]) -> None:
    assert {row.kind for row in rows} == {"human", "scene"}
    for row in rows[:3]:
        seed = int(row.video.stem.rpartition("-")[2])
        shares = {name: getattr(SynthOptions(), name) for name in ("modelled_share", "captured_share")}
        params = sample_params(seed, 1, frames=20, **shares)
        batch = render(
            params.identity, params.motion, params.foreign, params.scene, params.times[:, 1 : 1 + PART], (64, 64),
            human=params.human, company=params.company, modelled=params.modelled,
        )  # fmt: skip

        def pictures(tensor: torch.Tensor) -> np.ndarray:
            return (tensor[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()

        assert (row.fps, len(row), row.size) == (8, 20, (64, 64))
        np.testing.assert_array_equal(media.read_clip(row.video, limit=PART).frames, pictures(batch.frames))
        assert (row.kind == "human") == bool(batch.human)
        if row.kind == "scene":
            assert row.keypoints is row.mask is row.faces is None
            continue
        both = np.concatenate([pictures(batch.face_global), pictures(batch.face_local)], 1)
        np.testing.assert_array_equal(media.read_clip(row.faces, limit=PART).frames, both)
        np.testing.assert_array_equal(
            MaskFile(row.mask).read(range(PART)), pictures(batch.mask.expand(-1, -1, 3, -1, -1))[..., 0]
        )
        track = read_track(row.keypoints, 20)
        np.testing.assert_array_equal(track.keypoints.body[:PART], batch.body[0].numpy())
        np.testing.assert_array_equal(track.head[:PART], batch.head[0].numpy())
        np.testing.assert_array_equal(track.expression[:PART], batch.expression[0].numpy())


def test_a_second_run_adds_what_is_missing(tmp_path: Path) -> None:
    synth(tmp_path, options=OPTIONS)
    first = {row.video.name: row.video.stat().st_mtime_ns for row in read_manifest(tmp_path)}
    assert len(first) == 2
    (tmp_path / "clips" / "made-000000003.mp4").unlink()
    told: list[tuple[str, int, int | None]] = []
    done = synth(tmp_path, options=dataclasses.replace(OPTIONS, clips=3), progress=lambda *a: told.append(a))
    assert told[0] == ("rendering clips", 1, 3)
    assert (done.clips, done.failed, done.left_out) == (3, (), 0)
    second = {row.video.name: row.video.stat().st_mtime_ns for row in read_manifest(tmp_path)}
    assert second["made-000000004.mp4"] == first["made-000000004.mp4"]
    assert second["made-000000003.mp4"] != first["made-000000003.mp4"]


def test_other_options_make_clips_anew(tmp_path: Path) -> None:
    synth(tmp_path, options=OPTIONS)
    synth(tmp_path, options=dataclasses.replace(OPTIONS, size="64"))
    assert {row.size for row in read_manifest(tmp_path)} == {(64, 64)}


def test_several_workers_write_the_same(tmp_path: Path) -> None:
    for name, workers in (("one", 1), ("two", 2)):
        synth(tmp_path / name, options=dataclasses.replace(OPTIONS, workers=workers))
    one, two = ((tmp_path / name / "manifest.jsonl").read_text() for name in ("one", "two"))
    assert one == two, "hashes of the videos included"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 899_999_999}, "kept for evaluation"),
        ({"size": "64x65"}, "even"),
        ({"size": "12"}, "from 64 to 4096"),
        ({"device": "cuda:99"}, "--device"),
        ({"clips": 0}, "--clips"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, change: dict, words: str) -> None:
    with pytest.raises(OptionError) as caught:
        synth(tmp_path, options=dataclasses.replace(OPTIONS, **change))
    assert words in str(caught.value)
    assert not list(tmp_path.rglob("*.mp4"))
