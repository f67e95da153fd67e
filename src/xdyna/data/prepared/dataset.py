"""Samples for training from a manifest's clips: what a pool of made clips holds, of filmed ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from xdyna.conditions.draw import draw_pose
from xdyna.conditions.face import FaceTracker
from xdyna.conditions.keypoints import Keypoints
from xdyna.data.face_source import FaceSource
from xdyna.data.prepared.caches import MaskFile, Track, read_track
from xdyna.data.prepared.crops import Crop, choose_crop, person_box
from xdyna.data.prepared.frames import open_frames
from xdyna.data.prepared.manifest import ClipRow
from xdyna.data.synthetic.motion import EXPRESSIONS
from xdyna.errors import InputError, OptionError

STRIDE_FPS = 30
"""Strides are counted in frames of a video of this rate, so that speed is the same whatever a video's rate."""

SCENE_REFERENCES = ("first", "random")


@dataclass(frozen=True)
class SampleOptions:
    """How a sample is taken from a clip.

    Attributes:
        size: (height, width).
        frames: frames beside the reference.
        stride: the least and the largest distance between frames, in frames of a video of 30 a second.
        scatter: frames from anywhere in the clip instead of evenly spaced ones.
        zoom: the least and the largest enlargement; 1 shows as much of the frame as fits.
        close_up: how often (0 to 1) a sample is a close-up of head and shoulders, or of some part of a scene.
        close_up_zoom: the largest enlargement of close-ups.
        scene_reference: "first": a scene's reference is the first frame of the sample; "random": any of the clip.
            A person's is always one from outside of the sample, where the clip has one.
        landmarks: draw the face's 68 landmarks into the pose pictures (the ablation `w_landmarks`).

    Raises:
        OptionError: a value that is not allowed.
    """

    size: tuple[int, int] = (896, 512)
    frames: int = 16
    stride: tuple[int, int] = (2, 4)
    scatter: bool = False
    zoom: tuple[float, float] = (1.0, 1.1)
    close_up: float = 0.0
    close_up_zoom: float = 3.0
    scene_reference: str = "first"
    landmarks: bool = False

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise OptionError("frames", f"got {self.frames}, it must be at least 1")
        if any(side < 8 or side % 8 for side in self.size):
            raise OptionError("size", f"got {self.size}, both sides must be multiples of 8")
        if not 1 <= self.stride[0] <= self.stride[1]:
            raise OptionError("stride", f"got {self.stride}, it must be a rising pair of numbers from 1")
        if not 1 <= self.zoom[0] <= self.zoom[1]:
            raise OptionError("zoom", f"got {self.zoom}, it must be a rising pair of numbers from 1")
        if not 0 <= self.close_up <= 1:
            raise OptionError("close_up", f"got {self.close_up}, it must be from 0 to 1")
        if self.close_up_zoom < 1:
            raise OptionError("close_up_zoom", f"got {self.close_up_zoom}, it must be at least 1")
        if self.scene_reference not in SCENE_REFERENCES:
            raise OptionError("scene_reference", f"got {self.scene_reference!r}, allowed are first, random")


class ClipDataset(Dataset[dict[str, torch.Tensor]]):
    """Samples of a manifest's clips. The same (seed, index, draw) gives the same bytes.

    A sample is a dict of tensors with the names and meanings that `training.pool.Pool` gives them, index 0 of the
    frames being the reference:

    * frames (1+f 3 h w) uint8
    * conditions (1+f 9 h w) uint8: pose, local face, global face; blank for scenes
    * mask (1+f 1 h w) uint8: the person; 0 where the manifest has no mask
    * body (1+f 18 3), hands (1+f 42 3), face (1+f 68 3), head (1+f 3) float32 in pixels; 0 where unknown
    * expression (1+f 8) float32; 0 for filmed people, whose expression has no known numbers
    * human () bool

    Args:
        rows: clips of one or several manifests. Those too short for a sample are left out.
        options: how samples are taken.
        seed: of all choices.
        face_source: shows another person's face in the face conditions; None cuts the person's own, by which a
            network can tell who it is. Clips that bring such faces (`xdyna synth`) always use theirs.

    Attributes:
        rows: the clips used.
        too_short: how many were left out.

    Raises:
        InputError: every clip is too short.
    """

    def __init__(
        self,
        rows: Sequence[ClipRow],
        options: SampleOptions,
        *,
        seed: int = 0,
        face_source: FaceSource | None = None,
    ) -> None:
        self.rows = [row for row in rows if len(row) >= options.frames]
        self.too_short = len(rows) - len(self.rows)
        if not self.rows:
            raise InputError(
                "manifest",
                f"none of {len(rows)} clips has {options.frames} frames",
                "Take fewer frames a sample",
            )
        self.options, self.seed, self.face_source = options, seed, face_source

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, torch.Tensor]:
        """A sample of clip `index`; `key` is (index, draw), or an index for its first draw.

        Raises:
            InputError: the clip's files cannot be read.
        """
        index, draw = key if isinstance(key, tuple) else (key, 0)
        row = self.rows[index]
        generator = np.random.default_rng((self.seed, index, draw))
        track = None if row.keypoints is None or row.kind == "scene" else read_track(row.keypoints, len(row))
        moments = choose_moments(len(row), float(row.fps), self.options, generator)
        moments = np.concatenate([[self._reference(track, moments, len(row), generator)], moments])
        found = None if track is None else track.keypoints[moments]
        crop = self._crop(row, track, found, moments, generator)
        frames = crop.pictures(self._read(row, moments))
        sample = _nobody(len(moments), self.options.size)
        sample["frames"] = _channels_first(frames)
        if track is not None and found is not None:
            placed = found.moved(crop.matrix(), self.options.size)
            sample |= self._person(row, track, placed, moments, crop, frames, (index, draw))
        return {name: torch.from_numpy(value) for name, value in sample.items()} | {
            "human": torch.tensor(row.kind == "human")
        }

    def _reference(
        self, track: Track | None, moments: np.ndarray, length: int, generator: np.random.Generator
    ) -> int:
        """Which frame of the clip is the reference."""
        if track is None and self.options.scene_reference == "first":
            return int(moments[0])
        choice = np.arange(length)
        if track is not None:
            keypoints = track.keypoints
            outside = (choice < moments.min()) | (choice > moments.max())
            if self.options.scatter:
                outside = ~np.isin(choice, moments)
            there = (keypoints.body[..., 2] > 0).any(1)
            face = (keypoints.face[..., 2] > 0).any(1)
            # The first of these wishes that some frame fulfils.
            wishes = (outside & there & face, outside & there, there & face, there, outside)
            choice = next((choice[wish] for wish in wishes if wish.any()), choice)
        return int(generator.choice(choice))

    def _crop(
        self,
        row: ClipRow,
        track: Track | None,
        found: Keypoints | None,
        moments: np.ndarray,
        generator: np.random.Generator,
    ) -> Crop:
        options = self.options
        zoom = generator.uniform(*options.zoom)
        keep = None if found is None else person_box(found)
        heads = np.zeros((0, 3)) if track is None else track.head[moments]
        heads = heads[heads[:, 2] > 0]
        if generator.random() < options.close_up:
            zoom *= math.exp(generator.uniform(0, math.log(options.close_up_zoom)))
            if len(heads):
                low, high = heads[:, :2] - heads[:, 2:], heads[:, :2] + heads[:, 2:]
                keep = (*low.min(0).tolist(), *high.max(0).tolist())
        middle = float(heads[:, 0].mean()) if len(heads) else None
        return choose_crop(row.size, options.size, zoom=zoom, keep=keep, middle=middle, generator=generator)

    def _read(self, row: ClipRow, moments: np.ndarray) -> np.ndarray:
        frames = open_frames(row.video)
        if frames.size != row.size:
            raise InputError(
                row.video, f"has frames of (height, width) {frames.size}, its manifest says {row.size}",
                "Write the manifest again",
            )  # fmt: skip
        return frames.read((row.start + moments).tolist())

    def _person(
        self,
        row: ClipRow,
        track: Track,
        placed: Keypoints,
        moments: np.ndarray,
        crop: Crop,
        frames: np.ndarray,
        key: tuple[int, int],
    ) -> dict[str, np.ndarray]:
        """What a sample has of its person."""
        matrix = crop.matrix()
        head = track.head[moments].copy()
        known = head[:, 2:] > 0
        head[:, :2] = np.where(known, head[:, :2] * np.diag(matrix[:, :2]) + matrix[:, 2], 0)
        head[:, 2] *= matrix[1, 1]
        conditions = np.zeros((len(moments), 9, *crop.size), np.uint8)
        for place in range(len(moments)):
            conditions[place, :3] = draw_pose(placed, place, landmarks=self.options.landmarks).transpose(
                2, 0, 1
            )
        self._draw_faces(conditions[:, 3:], row, placed, moments, crop, frames, key)
        person = {
            "conditions": conditions,
            "body": placed.body,
            "hands": np.concatenate([placed.left_hand, placed.right_hand], 1),
            "face": placed.face,
            "head": head.astype(np.float32),
        }
        if row.mask is not None:
            masks = MaskFile(row.mask)
            if len(masks) != len(row) or masks.size != row.size:
                raise InputError(row.mask, "does not fit its clip", "Delete it and run `xdyna prepare` again")
            person["mask"] = crop.pictures(masks.read(moments.tolist()))[:, None]
        if track.expression is not None:
            person["expression"] = track.expression[moments].astype(np.float32)
        return person

    def _draw_faces(
        self,
        conditions: np.ndarray,
        row: ClipRow,
        placed: Keypoints,
        moments: np.ndarray,
        crop: Crop,
        frames: np.ndarray,
        key: tuple[int, int],
    ) -> None:
        """Fill in local and global face pictures, (1+f 6 h w)."""
        if row.faces is not None:
            both = open_frames(row.faces).read(moments.tolist())
            upper, lower = np.split(both, 2, axis=1)
            conditions[:, :3] = _channels_first(crop.pictures(lower))
            conditions[:, 3:] = _channels_first(crop.pictures(upper))
            return
        pictures, landmarks = frames, placed.face
        if self.face_source is not None:
            # Its own generator, so that the crops stay the same with and without it.
            generator = np.random.default_rng((self.seed, *key, 1))
            pictures, landmarks = self.face_source(frames, landmarks, generator=generator)
        tracker = FaceTracker()
        for place in range(len(moments)):
            if place == 1:
                tracker = FaceTracker()  # the reference is of another moment
            local, global_ = tracker.step(pictures[place], landmarks[place])
            conditions[place, :3] = local.transpose(2, 0, 1)
            conditions[place, 3:] = global_.transpose(2, 0, 1)


def choose_moments(
    length: int, fps: float, options: SampleOptions, generator: np.random.Generator
) -> np.ndarray:
    """Which frames of a clip a sample takes, rising, (f,) int64.

    Args:
        length: frames of the clip, at least `options.frames`.
        fps: its rate. A stride becomes the nearest whole number of its frames, at least 1, and no more than leaves
            a frame for the reference.
        options: `frames`, `stride` and `scatter` are read.
        generator: chooses stride and start.
    """
    count = options.frames
    if options.scatter:
        return np.sort(generator.choice(length, count, replace=False))
    stride = int(generator.integers(options.stride[0], options.stride[1] + 1))
    step = max(1, round(stride * fps / STRIDE_FPS))
    step = max(1, min(step, (length - 2) // max(1, count - 1)))
    start = int(generator.integers(0, length - (count - 1) * step))
    return start + step * np.arange(count)


def _nobody(count: int, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """A sample's fields without a person."""
    points = {
        "body": (18, 3),
        "hands": (42, 3),
        "face": (68, 3),
        "head": (3,),
        "expression": (len(EXPRESSIONS),),
    }
    return {
        "conditions": np.zeros((count, 9, *size), np.uint8),
        "mask": np.zeros((count, 1, *size), np.uint8),
        **{name: np.zeros((count, *shape), np.float32) for name, shape in points.items()},
    }


def _channels_first(pictures: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))
