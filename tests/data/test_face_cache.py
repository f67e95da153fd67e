"""Re-enacted faces kept beside a clip."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.data.reenacted import clips, people
from xdyna.conditions.face import FaceTracker
from xdyna.data.reenact import CachedFaces, CacheJob, Reenactor, cache_all, cache_faces
from xdyna.errors import InputError


def job(folder: Path, number: int = 0, **changes: object) -> CacheJob:
    clip = clips()[number]
    made = CacheJob(
        folder / f"{number}.face.npz", f"clip {number}", lambda: clip, Reenactor(people()), "reenact", 5
    )
    return replace(made, **changes)


def test_a_file_is_made_once_and_again_when_anything_changed(tmp_path: Path) -> None:
    def unread() -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError("the frames are not needed")

    assert cache_faces(job(tmp_path))
    assert not cache_faces(job(tmp_path, load=unread))
    assert cache_faces(job(tmp_path, seed=6))
    assert cache_faces(job(tmp_path, seed=6, source_key="another gallery"))
    assert cache_faces(job(tmp_path, seed=6, clip="clip 0, cut anew"))
    path = job(tmp_path).path
    path.write_bytes(path.read_bytes()[:200])
    assert cache_faces(job(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["0.face.npz"]


def test_face_maps_from_the_file_are_those_of_the_pictures(tmp_path: Path) -> None:
    one = job(tmp_path, 3)
    cache_faces(one)
    stored = CachedFaces(one.path)
    pictures, placed = Reenactor(people())(*clips()[3], generator=np.random.default_rng(5))
    assert len(stored) == len(pictures)
    assert stored.size == pictures.shape[1:3]
    assert np.array_equal(stored.landmarks, placed)
    direct, read = FaceTracker(), FaceTracker()
    for index, picture in enumerate(pictures):
        wanted = direct.step(picture, placed[index])
        got = read.step(stored.picture(index), stored.landmarks[index])
        for a, b in zip(wanted, got, strict=True):
            assert np.abs(a.astype(int) - b).mean() < 3
    assert one.path.stat().st_size < 12_000 * len(pictures)


def test_a_clip_that_fails_stops_no_other(tmp_path: Path) -> None:
    def broken() -> tuple[np.ndarray, np.ndarray]:
        raise InputError("dance.mp4", "is cut short")

    jobs = [job(tmp_path, 0), job(tmp_path, 1, load=broken), job(tmp_path, 2)]
    states = [state for _, state in cache_all(jobs)]
    assert states[0] == states[2] == "made"
    assert "cut short" in states[1]
    assert [state for _, state in cache_all(jobs)][::2] == ["there", "there"]


def test_faces_that_are_lost_and_clips_without_any(tmp_path: Path) -> None:
    frames, landmarks = clips()[0]
    gaps = landmarks.copy()
    gaps[4] = 0
    cache_faces(job(tmp_path, 0, load=lambda: (frames, gaps)))
    stored = CachedFaces(job(tmp_path, 0).path)
    assert not stored.landmarks[4].any()
    assert stored.picture(4).any()
    cache_faces(job(tmp_path, 1, load=lambda: (frames, np.zeros_like(landmarks))))
    stored = CachedFaces(job(tmp_path, 1).path)
    assert not stored.picture(2).any()


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        CachedFaces(tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(InputError, match="no re-enacted faces"):
        CachedFaces(tmp_path / "text.npz")
