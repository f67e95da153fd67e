"""Ready keypoints instead of detection.

Three forms are read: a `keypoints.npz` of ours; OpenPose's JSON, as a folder of one `*_keypoints.json` for each
frame or as one file with the list of frames; and a ready pose video, as the official repository uses, whose
pictures are taken as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xdyna.conditions.keypoints import PARTS, Keypoints
from xdyna.conditions.people import Person, box_of
from xdyna.conditions.track import track
from xdyna.errors import InputError

BODY_FROM_BODY25 = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)
"""For each of our body points the one of OpenPose's BODY_25 model, which adds the middle of the hips and feet."""

_LISTS = {
    "body": "pose_keypoints_2d",
    "left_hand": "hand_left_keypoints_2d",
    "right_hand": "hand_right_keypoints_2d",
    "face": "face_keypoints_2d",
}


@dataclass(frozen=True)
class PoseVideo:
    """A ready pose video. It has no keypoints, so nothing can be aligned and there is no face.

    Attributes:
        path: the video, read like any other.
    """

    path: Path


def read_keypoints(
    path: str | Path, *, size: tuple[int, int], person: int | None = None
) -> Keypoints | PoseVideo:
    """Read ready keypoints, or tell that a path is a pose video.

    Args:
        path: a .npz, a .json, a folder of .json files; any other file is taken for a pose video.
        size: (height, width) of the driving frames, in whose pixels the result is. Keypoints made for frames of
            another size but the same aspect are scaled.
        person: which person of OpenPose's, the largest first; None takes the largest and warns if there are more.

    Returns:
        Keypoints of `size`, or a `PoseVideo`.

    Raises:
        InputError: missing, unreadable, or made for frames of another aspect.
        OptionError: no such person.
    """
    path = Path(path)
    if path.is_dir() or path.suffix.lower() == ".json":
        return _read_openpose(path, size, person)
    if not path.exists():
        raise InputError(path, "no such file or folder", "Check the path given with --keypoints")
    if path.suffix.lower() == ".npz":
        return _scaled(Keypoints.load(path), size, path)
    return PoseVideo(path)


def _scaled(keypoints: Keypoints, size: tuple[int, int], path: Path) -> Keypoints:
    (height, width), (had_height, had_width) = size, keypoints.size
    if (height, width) == (had_height, had_width):
        return keypoints
    x, y = width / max(had_width, 1), height / max(had_height, 1)
    if min(had_width, had_height) < 1 or abs(x / y - 1) > 0.02:
        raise InputError(
            path,
            f"was made for frames of {had_width} x {had_height}, but the driving video's are {width} x {height}",
            "Give keypoints of this driving video",
        )
    return keypoints.moved(np.array([[x, 0, 0], [0, y, 0]]), size)


def _read_openpose(path: Path, size: tuple[int, int], person: int | None) -> Keypoints:
    frames = list(_frames(path))
    if not frames:
        raise InputError(path, "holds no frames", "Give OpenPose's folder of *_keypoints.json files")
    sizes = {
        (f["canvas_height"], f["canvas_width"])
        for f in frames
        if f.get("canvas_height") and f.get("canvas_width")
    }
    if len(sizes) > 1:
        raise InputError(path, "its frames are of different sizes", "Give keypoints of one video")
    try:
        drawn = tuple(int(n) for n in sizes.pop()) if sizes else size
        people = [[_person(entry) for entry in frame.get("people") or []] for frame in frames]
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(path, f"is not as OpenPose writes it ({error})", _OPENPOSE_FORM) from error
    made_for = (drawn[0], drawn[1])
    coordinates = [
        parts[name][parts[name][:, 2] > 0, :2] for frame in people for parts in frame for name in PARTS
    ]
    largest = max((float(xy.max()) for xy in coordinates if len(xy)), default=0.0)
    # OpenPose's --keypoint_scale 3 writes shares of the frame instead of pixels.
    unit = np.array([made_for[1], made_for[0], 1]) if largest <= 1 else np.ones(3)

    def stream() -> Iterator[list[Person]]:
        for frame in people:
            found = []
            for parts in frame:
                clip = Keypoints(
                    **{name: (parts[name] * unit).astype(np.float32)[None] for name in PARTS}, size=made_for
                )
                box = box_of(clip, min_score=1e-6)
                if box is not None:
                    found.append(Person(clip, box))
            yield found

    clip = track(stream(), person=person, source=path, min_score=0, max_gap=0, smooth=False)
    return _scaled(clip, size, path)


_OPENPOSE_FORM = 'Each frame is {"people": [{"pose_keypoints_2d": [x, y, score, ...], ...}, ...]}'


def _frames(path: Path) -> Iterator[dict[str, Any]]:
    """The frames' JSON objects, in order."""
    if not path.exists():
        raise InputError(path, "no such file or folder", "Check the path given with --keypoints")
    if path.is_dir():
        files = sorted(path.glob("*_keypoints.json")) or sorted(path.glob("*.json"))
        if not files:
            raise InputError(path, "has no .json files", "Give OpenPose's folder of *_keypoints.json files")
    else:
        files = [path]
    for file in files:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                file, f"is no JSON file that can be read ({error})", "Give OpenPose's own files"
            ) from error
        entries = content if isinstance(content, list) else [content]
        for entry in entries:
            if not isinstance(entry, dict) or "people" not in entry:
                raise InputError(file, "is not as OpenPose writes it", _OPENPOSE_FORM)
            yield entry


def _person(entry: dict[str, Any]) -> dict[str, np.ndarray]:
    """The four groups of one person, (n 3) float64; missing ones all 0."""
    parts = {}
    for name, count in PARTS.items():
        points = np.array(entry.get(_LISTS[name]) or [], np.float64)
        if points.ndim != 1 or len(points) % 3:
            raise ValueError(f"{_LISTS[name]} is no list of x, y, score")
        points = points.reshape(-1, 3)
        if name == "body" and len(points) == 25:
            points = points[list(BODY_FROM_BODY25)]
        if name == "face" and len(points) == 70:
            points = points[:68]  # the last two are the pupils
        if len(points) not in (0, count):
            raise ValueError(f"{_LISTS[name]} has {len(points)} points, not {count}")
        points = np.nan_to_num(points) if len(points) else np.zeros((count, 3))
        points[:, 2] = points[:, 2].clip(0, 1)
        parts[name] = points * (points[:, 2:] > 0)
    return parts
