"""The condition clips made from a driving video.

Two passes over the video, each streaming: the first finds the driver's keypoints in every frame; then, once
they are aligned to the reference person, the second draws poses and cuts faces. The condition clips go to a
scratch folder on disk, so that memory does not grow with the video's length.
"""

from __future__ import annotations

import errno
import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal, cast

import cv2
import numpy as np

from xdyna import media
from xdyna.conditions.align import Aligned, align, warp_frame
from xdyna.conditions.closeup import CloseUp, joined_maps, plan_close_up
from xdyna.conditions.detect import make_detector
from xdyna.conditions.draw import draw_pose
from xdyna.conditions.face import FaceTracker
from xdyna.conditions.given import PoseVideo, read_keypoints
from xdyna.conditions.keypoints import Keypoints
from xdyna.conditions.track import track
from xdyna.driving import DrivingVideo
from xdyna.errors import InputError, OutputError
from xdyna.options import AnimateOptions

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int | None], None]
"""Called with (what is being done, how far, of how many or None when not known)."""


@dataclass
class ConditionClips:
    """Pose and face pictures of a clip, in files of a scratch folder that goes with this object.

    Attributes:
        size: (height, width) of the pictures.
        frames: how many there are.
        fps: their frame rate.
        keypoints: the aligned keypoints they were drawn from, or None for a ready pose video.
        reference_pose: (h w 3) uint8, the reference person's own pose; None where it is not known, or not asked for.
        own: the reference person's own keypoints, likewise.
        near: the head's close-up: its way, its reference (s s 3) uint8 and its own condition clips; None without one.
        faces_found: in how many frames a face was found.
    """

    size: tuple[int, int]
    fps: Fraction
    frames: int = 0
    keypoints: Keypoints | None = None
    reference_pose: np.ndarray | None = None
    own: Keypoints | None = None
    near: tuple[CloseUp, np.ndarray, ConditionClips] | None = None
    faces_found: int = 0
    extremes: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = tempfile.TemporaryDirectory(prefix="xdyna-")
        self._place = Path(self._folder.name)

    def append(self, pose: np.ndarray, local: np.ndarray, global_: np.ndarray) -> None:
        """Add one frame's pictures, each (h w 3) uint8."""
        for name, picture in (("pose", pose), ("local", local), ("global", global_)):
            low, high = self.extremes.get(name, (255, 0))
            self.extremes[name] = (min(low, int(picture.min())), max(high, int(picture.max())))
            self._write(name, picture)
        self.frames += 1

    def append_result(self, picture: np.ndarray) -> None:
        """Keep a frame of what was made from these conditions, (h w 3) uint8."""
        self._write("result", picture)

    def result(self, indices: Sequence[int]) -> np.ndarray:
        """What `append_result` kept, (f h w 3) uint8."""
        return self._read("result", indices)

    def pose(self, indices: Sequence[int]) -> np.ndarray:
        """Pose pictures, (f h w 3) uint8."""
        return self._read("pose", indices)

    def face_local(self, indices: Sequence[int]) -> np.ndarray:
        """Eye and mouth patches, (f h w 3) uint8."""
        return self._read("local", indices)

    def face_global(self, indices: Sequence[int]) -> np.ndarray:
        """Face boxes, (f h w 3) uint8."""
        return self._read("global", indices)

    def own_pose(self) -> np.ndarray:
        """The reference person's own pose, (h w 3) uint8; black where it is not known."""
        return np.zeros((*self.size, 3), np.uint8) if self.reference_pose is None else self.reference_pose

    def close(self) -> None:
        """Delete the scratch folder."""
        if self._folder is not None:
            self._folder.cleanup()
        if self.near is not None:
            self.near[-1].close()

    def __getstate__(self) -> dict[str, object]:
        # a pickled copy, in another process of this machine, reads the same files and owns none
        return vars(self) | {"_folder": None}

    def __enter__(self) -> ConditionClips:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _file(self, name: str) -> Path:
        return self._place / f"{name}.raw"

    def _write(self, name: str, picture: np.ndarray) -> None:
        try:
            with open(self._file(name), "ab") as file:
                file.write(np.ascontiguousarray(picture).tobytes())
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise OutputError(
                    self._place,
                    "the disk is full while frames are kept there",
                    "Free some space, or point TMPDIR at a larger disk",
                ) from error
            raise

    def _read(self, name: str, indices: Sequence[int]) -> np.ndarray:
        # plain reads rather than a memory map, whose pages would count as this process's memory
        height, width = self.size
        bytes_each = height * width * 3
        pictures = np.empty((len(indices), height, width, 3), np.uint8)
        with open(self._file(name), "rb") as file:
            for place, index in enumerate(indices):
                file.seek(index * bytes_each)
                pictures[place] = np.frombuffer(file.read(bytes_each), np.uint8).reshape(height, width, 3)
        return pictures


def find_keypoints(
    frames: Iterator[np.ndarray],
    *,
    options: AnimateOptions,
    source: str,
    still: bool,
    person: int | None = None,
) -> Keypoints:
    """One person's keypoints over some frames, by the detector the options name."""
    detector = make_detector(
        "mediapipe" if options.detector == "given" else options.detector, still=still, folder=options.dwpose
    )
    return track(
        detector.stream(frames),
        person=person,
        source=source,
        min_score=options.min_score,
        smooth=options.smooth and not still,
    )


def make_conditions(
    driving: DrivingVideo,
    reference: np.ndarray | None,
    *,
    options: AnimateOptions,
    canvas: tuple[int, int],
    landmarks: bool = False,
    reference_pose: bool = False,
    picture: np.ndarray | None = None,
    close_up: int = 0,
    reference_name: str = "reference picture",
    progress: Progress | None = None,
) -> ConditionClips:
    """Pose and face clips of a driving video on the reference's canvas.

    Args:
        driving: from `open_driving`.
        reference: (h w 3) uint8 at the canvas's size; None aligns to nothing.
        options: detector, keypoints, person, align, face mode and so on.
        canvas: (height, width) of the result.
        landmarks: also draw the face's landmarks into the pose pictures (not into those of a ready pose video).
        reference_pose: also draw the reference person's own pose, if somebody is found in the picture.
        picture: (h w 3) uint8, what `reference` was cut from, which may show the head in more pixels.
        close_up: side in pixels of a close-up of the head, whose conditions are made too where there is a small one;
            0 for none.
        reference_name: how messages call the reference.
        progress: told how far each pass is.

    Raises:
        InputError: nobody found in the driving video or the reference, or unusable ready keypoints.
    """

    def tell(what: str, done: int) -> None:
        if progress is not None:
            progress(what, done, driving.expected)

    def counted(what: str) -> Iterator[np.ndarray]:
        for index, frame in enumerate(driving):
            yield frame
            tell(what, index + 1)

    pose_video: PoseVideo | None = None
    if options.keypoints is not None:
        given = read_keypoints(options.keypoints, size=driving.size, person=options.person)
        if isinstance(given, PoseVideo):
            pose_video, keypoints = given, None
        else:
            keypoints = _chosen(given, driving, options.keypoints)
    else:
        keypoints = find_keypoints(
            counted("finding the driver"),
            options=options,
            source=driving.name,
            still=False,
            person=options.person,
        )
    aligned = target = None
    if keypoints is not None:
        mode = cast(Literal["retarget", "rigid", "none"], options.align if reference is not None else "none")
        target = None if mode == "none" else reference_keypoints(reference, options, reference_name)
        aligned = align(keypoints, target, canvas=canvas, mode=mode)

    clips = ConditionClips(size=canvas, fps=driving.fps, keypoints=aligned.keypoints if aligned else None)
    if reference_pose and reference is not None:
        clips.own = _own_keypoints(reference, target, options, reference_name)
        if clips.own is not None:
            clips.reference_pose = draw_pose(clips.own, 0, landmarks=landmarks)
    mode_of_faces: Literal["tracked", "official"] = (
        "official" if options.face_mode == "official" else "tracked"
    )
    near: _Near | None = None
    if close_up and aligned is not None and reference is not None:
        own = clips.own or _own_keypoints(reference, target, options, reference_name)
        path = None if own is None else plan_close_up(aligned.keypoints, own, side=close_up)
        if own is not None and path is not None:
            near = _Near(
                path, aligned, own, FaceTracker(mode=mode_of_faces), driving.fps, landmarks=landmarks
            )
            shown = reference if picture is None else picture
            clips.near = (path, _close_reference(shown, canvas, path), near.clips)
    try:
        tracker = FaceTracker(mode=mode_of_faces)
        poses = _pose_pictures(pose_video, driving, canvas) if pose_video is not None else None
        for index, frame in enumerate(counted("preparing pose and face")):
            if aligned is None:
                assert poses is not None
                blank = np.zeros((*canvas, 3), np.uint8)
                clips.append(next(poses), blank, blank)
                continue
            if index >= len(aligned.keypoints):
                break
            face = aligned.keypoints.face[index]
            clips.faces_found += bool((face[:, 2] > 0).any())
            warped = warp_frame(frame, aligned.frame_to_canvas[index], canvas)
            local, global_ = tracker.step(warped, face)
            pose = draw_pose(aligned.keypoints, index, landmarks=landmarks)
            clips.append(pose, local, global_)
            if near is not None:
                near.append(frame)
    except BaseException:
        clips.close()
        raise
    if clips.frames == 0:
        clips.close()
        raise InputError(driving.name, "no frame could be read", "Give a video that plays")
    if clips.faces_found == 0:
        logger.warning(
            "%s: no face found in any of %d frames, so the result's face does not follow the driver",
            driving.name, clips.frames,
        )  # fmt: skip
    return clips


class _Near:
    """Makes a close-up's condition clips beside the whole picture's, from the same driving frames."""

    def __init__(
        self,
        path: CloseUp,
        aligned: Aligned,
        own: Keypoints,
        tracker: FaceTracker,
        fps: Fraction,
        *,
        landmarks: bool,
    ) -> None:
        size = (path.side, path.side)
        self._matrices, self._frames = path.matrices(), aligned.frame_to_canvas
        self._tracker, self._landmarks = tracker, landmarks
        own = own.moved(path.reference_matrix(), size)
        self._keypoints = aligned.keypoints.moved(self._matrices, size)
        self.clips = ConditionClips(
            size=size,
            fps=fps,
            keypoints=self._keypoints,
            own=own,
            reference_pose=draw_pose(own, 0, landmarks=landmarks),
        )

    def append(self, frame: np.ndarray) -> None:
        """The next driving frame's, straight from its own pixels."""
        index = self.clips.frames
        face = self._keypoints.face[index]
        matrix = joined_maps(self._matrices[index], self._frames[index])
        warped = warp_frame(frame, matrix, self.clips.size, enlarging=cv2.INTER_CUBIC)
        self.clips.faces_found += bool((face[:, 2] > 0).any())
        pose = draw_pose(self._keypoints, index, landmarks=self._landmarks)
        self.clips.append(pose, *self._tracker.step(warped, face))


def _close_reference(picture: np.ndarray, canvas: tuple[int, int], path: CloseUp) -> np.ndarray:
    """The reference's close-up (s s 3) uint8, from the picture as given: (h w 3) uint8."""
    left, top, width, height = media.middle_box(picture.shape, canvas)
    scale = np.array([canvas[1] / width, canvas[0] / height])
    onto_canvas = np.concatenate([np.diag(scale), -(scale * (left, top))[:, None]], 1)
    matrix = joined_maps(path.reference_matrix(), onto_canvas)
    return warp_frame(picture, matrix, (path.side, path.side), enlarging=cv2.INTER_CUBIC)


def reference_keypoints(reference: np.ndarray | None, options: AnimateOptions, name: str) -> Keypoints:
    """The reference person's keypoints: given ones, or found in the picture."""
    if options.reference_keypoints is not None:
        keypoints = Keypoints.load(options.reference_keypoints)
        if reference is not None and keypoints.size != reference.shape[:2]:
            height, width = reference.shape[:2]
            scale = np.array([[width / keypoints.size[1], 0, 0], [0, height / keypoints.size[0], 0]])
            keypoints = keypoints.moved(scale, (height, width))
        return keypoints[:1]
    assert reference is not None
    try:
        return find_keypoints(iter([reference]), options=options, source=name, still=True)
    except InputError as error:
        raise InputError(
            name,
            error.problem,
            "Use a picture that shows the person clearly, or --align none to skip alignment",
        ) from error


def _own_keypoints(
    reference: np.ndarray, found: Keypoints | None, options: AnimateOptions, name: str
) -> Keypoints | None:
    """The reference person's keypoints; None where nobody is found."""
    if found is not None:
        return found
    try:
        return reference_keypoints(reference, options, name)
    except InputError:
        return None


def _chosen(keypoints: Keypoints, driving: DrivingVideo, path: str) -> Keypoints:
    """The frames of ready keypoints that belong to the chosen driving frames."""
    count = driving.limit or math.ceil((len(keypoints) - driving.start) / driving.step)
    indices = [driving.start + math.floor(k * driving.step) for k in range(max(0, count))]
    if not indices or indices[-1] >= len(keypoints):
        raise InputError(
            path,
            f"holds keypoints of {len(keypoints)} frames, too few for {driving.name} as chosen",
            "Give keypoints of the whole driving video, or lower --frames",
        )
    return keypoints[indices]


def _pose_pictures(video: PoseVideo, driving: DrivingVideo, canvas: tuple[int, int]) -> Iterator[np.ndarray]:
    """Ready pose pictures for the chosen frames, resized as the official code does (area, aspect not kept)."""
    path = video.path

    frames = iter(replace(driving, source=path, name=str(path)))
    for frame in frames:
        yield cv2.resize(frame, (canvas[1], canvas[0]), interpolation=cv2.INTER_AREA)
    raise InputError(path, f"has fewer frames than {driving.name}", "Give a pose video of the same length")
