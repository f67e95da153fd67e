from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from xdyna import media
from xdyna.conditions.draw import draw_pose
from xdyna.conditions.face import FaceTracker
from xdyna.data.prepared.caches import MaskFile, read_track
from xdyna.data.prepared.dataset import ClipDataset, SampleOptions, choose_moments
from xdyna.data.prepared.manifest import ClipRow
from xdyna.errors import InputError, OptionError

OPTIONS = SampleOptions(size=(64, 64), frames=4, zoom=(1.0, 1.0))
FIELDS = {
    "frames": ((5, 3, 64, 64), torch.uint8), "conditions": ((5, 9, 64, 64), torch.uint8),
    "mask": ((5, 1, 64, 64), torch.uint8), "body": ((5, 18, 3), torch.float32),
    "hands": ((5, 42, 3), torch.float32), "face": ((5, 68, 3), torch.float32), "head": ((5, 3), torch.float32),
    "expression": ((5, 8), torch.float32), "human": ((), torch.bool),
}  # fmt: skip


def of_kind(rows: list[ClipRow], kind: str) -> list[ClipRow]:
    return [row for row in rows if row.kind == kind]


def moments_of(dataset: ClipDataset, index: int, draw: int) -> list[int]:
    """Which frames of the clip a sample shows, found by looking for its pictures."""
    clip = media.read_clip(dataset.rows[index].video).frames
    shown = dataset[(index, draw)]["frames"].permute(0, 2, 3, 1).numpy()
    return [int(np.flatnonzero((clip == picture).all((1, 2, 3)))[0]) for picture in shown]


def test_fields_are_those_of_a_pool(rows: list[ClipRow]) -> None:
    dataset = ClipDataset(rows, OPTIONS)
    for index in range(len(dataset)):
        sample = dataset[index]
        assert {name: (tuple(v.shape), v.dtype) for name, v in sample.items()} == FIELDS
        assert bool(sample["human"]) == (dataset.rows[index].kind == "human")


def test_a_sample_is_the_clips_own_data(rows: list[ClipRow]) -> None:
    dataset = ClipDataset(of_kind(rows, "human"), OPTIONS, seed=5)
    row, sample = dataset.rows[1], dataset[(1, 3)]
    moments = moments_of(dataset, 1, 3)
    track = read_track(row.keypoints, len(row))
    np.testing.assert_array_equal(sample["body"], track.keypoints.body[moments])
    np.testing.assert_array_equal(sample["head"], track.head[moments])
    np.testing.assert_array_equal(sample["expression"], track.expression[moments])
    np.testing.assert_array_equal(sample["mask"][:, 0], MaskFile(row.mask).read(moments))
    for place, moment in enumerate(moments):
        pose = draw_pose(track.keypoints, moment)
        np.testing.assert_array_equal(sample["conditions"][place, :3].permute(1, 2, 0), pose)
    faces = media.read_clip(row.faces).frames[moments]
    np.testing.assert_array_equal(sample["conditions"][:, 6:].permute(0, 2, 3, 1), faces[:, :64])
    np.testing.assert_array_equal(sample["conditions"][:, 3:6].permute(0, 2, 3, 1), faces[:, 64:])


def test_the_same_key_gives_the_same_bytes_and_another_another(rows: list[ClipRow]) -> None:
    dataset, again = (ClipDataset(rows, SampleOptions(size=(48, 64), frames=4), seed=7) for _ in range(2))
    for index in range(len(dataset)):
        one, two = dataset[(index, 2)], again[(index, 2)]
        assert all(torch.equal(one[name], two[name]) for name in one)
        assert not torch.equal(one["frames"], dataset[(index, 3)]["frames"])
    other = ClipDataset(rows, SampleOptions(size=(48, 64), frames=4), seed=8)
    assert not torch.equal(dataset[0]["frames"], other[0]["frames"])


def test_references_of_people_are_outside_of_the_sample(rows: list[ClipRow]) -> None:
    dataset = ClipDataset(of_kind(rows, "human"), OPTIONS)
    references = set()
    for draw in range(12):
        reference, *moments = moments_of(dataset, 0, draw)
        assert not moments[0] <= reference <= moments[-1]
        references.add(reference)
    assert len(references) > 4


def test_a_person_fills_the_whole_clip_only_if_it_must(rows: list[ClipRow]) -> None:
    short = [dataclasses.replace(of_kind(rows, "scene")[0], end=4)]
    dataset = ClipDataset(short, OPTIONS)
    assert moments_of(dataset, 0, 0)[1:] == [0, 1, 2, 3]


def test_references_of_scenes(rows: list[ClipRow]) -> None:
    scenes = of_kind(rows, "scene")
    first = ClipDataset(scenes, OPTIONS)
    for draw in range(4):
        reference, *moments = moments_of(first, 0, draw)
        assert reference == moments[0]
    anywhere = ClipDataset(scenes, dataclasses.replace(OPTIONS, scene_reference="random"))
    pairs = [moments_of(anywhere, 0, draw) for draw in range(8)]
    assert any(reference != moments[0] for reference, *moments in pairs)
    assert not first[0]["conditions"].any(), "blank"
    assert not first[0]["mask"].any()


def test_keypoints_of_scenes_are_not_read(rows: list[ClipRow]) -> None:
    person = of_kind(rows, "human")[0]
    sample = ClipDataset([dataclasses.replace(person, kind="scene")], OPTIONS)[0]
    assert not sample["conditions"].any()
    assert not sample["human"]


@pytest.mark.parametrize(("fps", "steps"), [(8.0, {1}), (30.0, {2, 3, 4}), (60.0, {4, 6, 8}), (24.0, {2, 3})])
def test_strides_keep_the_speed(fps: float, steps: set[int]) -> None:
    found = set()
    for seed in range(40):
        moments = choose_moments(200, fps, SampleOptions(frames=16), np.random.default_rng(seed))
        (step,) = set(np.diff(moments).tolist())
        assert moments[0] >= 0
        assert moments[-1] < 200
        found.add(step)
    assert found == steps


def test_short_clips_take_smaller_strides() -> None:
    for seed in range(20):
        moments = choose_moments(20, 60.0, SampleOptions(frames=16), np.random.default_rng(seed))
        assert np.diff(moments).tolist() == [1] * 15
        moments = choose_moments(16, 60.0, SampleOptions(frames=16), np.random.default_rng(seed))
        assert moments.tolist() == list(range(16))
        assert choose_moments(1, 30.0, SampleOptions(frames=1), np.random.default_rng(seed)).tolist() == [0]


def test_scattered_frames_are_different_and_rise(rows: list[ClipRow]) -> None:
    dataset = ClipDataset(of_kind(rows, "human"), dataclasses.replace(OPTIONS, scatter=True))
    gaps = set()
    for draw in range(6):
        reference, *moments = moments_of(dataset, 0, draw)
        assert reference not in moments
        assert sorted(set(moments)) == moments
        gaps |= set(np.diff(moments).tolist())
    assert len(gaps) > 2


def test_close_ups_enlarge_and_keep_the_head(rows: list[ClipRow]) -> None:
    people = of_kind(rows, "human")
    near = ClipDataset(people, dataclasses.replace(OPTIONS, close_up=1.0, close_up_zoom=3.0))
    far = ClipDataset(people, OPTIONS)
    heights = []
    for draw in range(8):
        sample = near[(0, draw)]
        head = sample["head"]
        assert (head[:, :2] > -1).all()
        assert (head[:, :2] < 65).all()
        heights.append(float(head[0, 2]))
    assert max(heights) > 1.8 * float(far[0]["head"][0, 2])


class Swap:
    """A face source that gives a plain colour, and remembers what it was given."""

    def __init__(self) -> None:
        self.seen: list[tuple[np.ndarray, np.ndarray, int]] = []

    def __call__(
        self, frames: np.ndarray, landmarks: np.ndarray, *, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        self.seen.append((frames, landmarks, int(generator.integers(1000))))
        return np.full_like(frames, 77), landmarks


def test_the_face_source_gives_the_faces(rows: list[ClipRow]) -> None:
    filmed = [dataclasses.replace(row, faces=None) for row in of_kind(rows, "human")]
    swap = Swap()
    own, swapped = ClipDataset(filmed, OPTIONS), ClipDataset(filmed, OPTIONS, face_source=swap)
    one, two = own[(0, 1)], swapped[(0, 1)]
    assert torch.equal(one["frames"], two["frames"]), "all else is the same"
    assert torch.equal(one["conditions"][:, :3], two["conditions"][:, :3])
    frames, landmarks, number = swap.seen[0]
    np.testing.assert_array_equal(frames, one["frames"].permute(0, 2, 3, 1))
    np.testing.assert_array_equal(landmarks, one["face"])
    assert set(two["conditions"][:, 3:].unique().tolist()) == {0, 77}
    assert (two["conditions"][:, 3:][one["conditions"][:, 3:] > 0] == 77).all(), "where the own face was"
    swapped[(0, 1)], swapped[(0, 2)]
    assert swap.seen[1][2] == number
    assert swap.seen[2][2] != number


def test_own_faces_are_cut_as_at_inference(rows: list[ClipRow]) -> None:
    filmed = [dataclasses.replace(row, faces=None) for row in of_kind(rows, "human")]
    sample = ClipDataset(filmed, OPTIONS)[0]
    tracker = FaceTracker()
    for place in range(1, 5):
        local, global_ = tracker.step(
            sample["frames"][place].permute(1, 2, 0).numpy(), sample["face"][place].numpy()
        )
        np.testing.assert_array_equal(sample["conditions"][place, 3:6].permute(1, 2, 0), local)
        np.testing.assert_array_equal(sample["conditions"][place, 6:].permute(1, 2, 0), global_)


def test_batches_of_both_kinds(rows: list[ClipRow]) -> None:
    dataset = ClipDataset(rows, OPTIONS)
    (batch,) = DataLoader(dataset, batch_size=len(dataset), sampler=[(i, 1) for i in range(len(dataset))])
    assert batch["frames"].shape == (5, 5, 3, 64, 64)
    assert batch["human"].tolist() == [row.kind == "human" for row in rows]


def test_clips_too_short_are_left_out(rows: list[ClipRow]) -> None:
    mixed = [rows[0], dataclasses.replace(rows[1], end=3)]
    dataset = ClipDataset(mixed, OPTIONS)
    assert (len(dataset), dataset.too_short) == (1, 1)
    with pytest.raises(InputError, match="none of 1 clips has 4 frames"):
        ClipDataset(mixed[1:], OPTIONS)


def test_files_that_do_not_fit_the_row(rows: list[ClipRow]) -> None:
    people = of_kind(rows, "human")
    with pytest.raises(InputError, match="its manifest says"):
        ClipDataset([dataclasses.replace(people[0], size=(32, 32))], OPTIONS)[0]
    with pytest.raises(InputError, match="20 frames, the clip has 19"):
        ClipDataset([dataclasses.replace(people[0], end=19)], OPTIONS)[0]


@pytest.mark.parametrize(
    "change",
    [
        {"frames": 0}, {"size": (60, 64)}, {"stride": (4, 2)}, {"stride": (0, 2)}, {"zoom": (0.5, 1.0)},
        {"close_up": 1.5}, {"close_up_zoom": 0.5}, {"scene_reference": "last"},
    ],
)  # fmt: skip
def test_options_that_cannot_be(change: dict) -> None:
    with pytest.raises(OptionError, match=next(iter(change))):
        SampleOptions(**change)


def test_landmarks_are_drawn_into_the_pose_where_wanted(rows: list[ClipRow]) -> None:
    people = of_kind(rows, "human")
    plain = ClipDataset(people, OPTIONS)
    drawn = ClipDataset(people, dataclasses.replace(OPTIONS, landmarks=True))
    changed = 0
    for index in range(len(plain)):
        before, after = plain[index], drawn[index]
        different = (before["conditions"] != after["conditions"]).any(1).any(0)
        assert torch.equal(before["conditions"][:, 3:], after["conditions"][:, 3:]), "faces stay as they are"
        changed += int(different.any())
    assert changed
