"""People through MediaPipe's legacy Holistic, whose models lie in its wheel: offline, on any CPU.

Holistic sees one person. Others are found by painting over the person found and looking again; then
everybody has a Holistic of their own, which sees a frame whose other parts are painted over. A face or
a hand that Holistic misses on a body (they are small in a full-body frame) is looked for once more in an
enlarged crop.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np

from xdyna.conditions.keypoints import Keypoints
from xdyna.conditions.people import Person, box_of, overlap
from xdyna.errors import MissingPackage

BODY_FROM_POSE = (0, -1, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7)
"""For each of our body points the one of MediaPipe's 33; the neck (-1) is the middle of the shoulders."""

FACE_FROM_MESH = (
    127, 234, 93, 132, 58, 172, 150, 176, 152, 400, 379, 397, 288, 361, 323, 454, 356,  # jaw
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,  # brows
    168, 197, 5, 4, 98, 97, 2, 326, 327,  # nose
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # eyes
    61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91,  # outer lips
    78, 81, 13, 311, 308, 402, 14, 178,  # inner lips
)  # fmt: skip
"""For each of the 68 iBUG points the one of the mesh's 468 (478 with irises) that lies nearest to it."""

SEARCH_EVERY = 24
"""Every how many frames the whole picture is searched for people not yet followed."""

GIVE_UP_AFTER = 12
"""After how many frames without a sign of them a person is no longer looked for, unless found by a search."""

_SMALLEST_SIDE = 32
"""Pictures smaller than this hold no person that could be made out."""

_HAND_CROP, _FACE_CROP = 192, 256
_OTHERS_AT_LEAST = 0.25
"""Somebody less than this share of the largest person's height stands in the background."""


@contextmanager
def quiet() -> Iterator[None]:
    """Silence MediaPipe's C++ log, which is written past Python to file descriptor 2, and protobuf's warnings.

    Only round the making of a graph and its first frame, when it is written; nothing of ours is logged then.
    """
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        with no_protobuf_warnings():
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


@contextmanager
def no_protobuf_warnings() -> Iterator[None]:
    """Silence what protobuf says of MediaPipe's use of it, round every call into MediaPipe."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"SymbolDatabase\.GetPrototype", category=UserWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield


class _Graph:
    """One of MediaPipe's solutions, made at its first use and quiet."""

    def __init__(self, solution: str, **options: Any) -> None:
        self._solution, self._options = solution, options
        self._graph: Any = None

    def process(self, picture: np.ndarray) -> Any:
        picture = np.ascontiguousarray(picture)
        if self._graph is not None:
            with no_protobuf_warnings():
                return self._graph.process(picture)
        with quiet():
            try:
                from mediapipe.python.solutions import face_mesh, hands, holistic, pose
            except ImportError:
                raise MissingPackage(
                    "mediapipe", "to find people in pictures", "mediapipe==0.10.14"
                ) from None
            makers = {
                "holistic": holistic.Holistic,
                "pose": pose.Pose,
                "face": face_mesh.FaceMesh,
                "hands": hands.Hands,
            }
            self._graph = makers[self._solution](**self._options)
            return self._graph.process(picture)

    def close(self) -> None:
        if self._graph is not None:
            self._graph.close()
            self._graph = None


class MediapipeDetector:
    """Finds people with MediaPipe Holistic.

    Args:
        still: the frames are unrelated pictures, not a clip: nothing is carried from one to the next.
        max_people: how many people to look for; 1 takes whom Holistic takes, which is quickest.
        masks: also return each person's mask.
        retry: look again in enlarged crops for a face or hands that are missing on a body.
    """

    def __init__(
        self, *, still: bool = False, max_people: int = 4, masks: bool = False, retry: bool = True
    ) -> None:
        self.still, self.max_people, self.masks, self.retry = still, max_people, masks, retry

    def stream(self, frames: Iterable[np.ndarray]) -> Iterator[list[Person]]:
        """Everybody in each frame; see `Detector`. Frames are (h w 3) uint8 RGB of one size."""
        retry = _Retry() if self.retry else None
        search = _Search(self.max_people) if self.max_people > 1 else None
        followers = [_Follower(self.still, self.masks)]
        try:
            for number, frame in enumerate(frames):
                if min(frame.shape[:2]) < _SMALLEST_SIDE:
                    yield []
                    continue
                if search and (self.still or number % SEARCH_EVERY == 0):
                    followers = self._matched(followers, search.boxes(frame))
                people: list[Person] = []
                for follower in followers:
                    person = follower.step(frame, alone=len(followers) == 1, retry=retry)
                    if person and all(overlap(person.box, other.box) < 0.7 for other in people):
                        people.append(person)
                    elif person:
                        # Two followers on one person: the later one has lost its own.
                        follower.lost += 1
                kept = [follower for follower in followers if follower.lost <= GIVE_UP_AFTER]
                for follower in followers[1:]:
                    if follower not in kept:
                        follower.close()
                followers = kept or followers[:1]
                yield people
        finally:
            for follower in followers:
                follower.close()
            if retry:
                retry.close()
            if search:
                search.close()

    def _matched(self, followers: list[_Follower], boxes: list[_Box]) -> list[_Follower]:
        """The followers after a search: each box goes to its follower, or to a new one."""
        if self.still:
            # Of a still picture nothing is known before: each follower gets a box, and surplus ones go.
            for follower in followers[max(len(boxes), 1) :]:
                follower.close()
            followers = followers[: max(len(boxes), 1)]
            for follower in followers:
                follower.box = None
        for box in boxes:
            free = [f for f in followers if f.box is None]
            if any(f.box is not None and overlap(f.box, box) > 0.3 for f in followers):
                continue
            if free:
                free[0].box = box
            elif len(followers) < self.max_people:
                followers = [*followers, _Follower(self.still, self.masks, box)]
        return followers


_Box = tuple[float, float, float, float]


class _Follower:
    """One person's Holistic and the place where the person was last seen."""

    def __init__(self, still: bool, masks: bool, box: _Box | None = None) -> None:
        self.box, self.lost, self._masks = box, 0, masks
        self._graph = _Graph(
            "holistic",
            static_image_mode=still,
            model_complexity=1,
            smooth_landmarks=False,  # its filter lags behind quick motions; ours looks both ways
            enable_segmentation=masks,
            smooth_segmentation=not still,
            refine_face_landmarks=True,
        )

    def step(self, frame: np.ndarray, *, alone: bool, retry: _Retry | None) -> Person | None:
        view = frame
        if not alone and self.box is not None:
            view = _only(frame, _enlarged(self.box, 0.25 + 0.1 * self.lost))
        result = self._graph.process(view)
        if result.pose_landmarks is None:
            self.lost += 1
            return None
        size = (frame.shape[0], frame.shape[1])
        pose = _points(result.pose_landmarks, size)
        pose[:, 2] = [landmark.visibility for landmark in result.pose_landmarks.landmark]
        face, left, right = (
            None if found is None else _points(found, size)
            for found in (result.face_landmarks, result.left_hand_landmarks, result.right_hand_landmarks)
        )
        if retry:
            face = retry.face(frame, pose) if face is None else face
            left = retry.hand(frame, pose, 15, 13) if left is None else left
            right = retry.hand(frame, pose, 16, 14) if right is None else right
        keypoints = to_keypoints(pose, face, left, right, size)
        box = box_of(keypoints)
        if box is None:
            self.lost += 1
            return None
        self.box, self.lost = box, 0
        mask = None
        if self._masks and result.segmentation_mask is not None:
            mask = (result.segmentation_mask > 0.5).astype(np.uint8) * 255
        return Person(keypoints, box, mask)

    def close(self) -> None:
        self._graph.close()


class _Search:
    """Finds everybody in a picture, one after the other."""

    def __init__(self, max_people: int) -> None:
        self._max_people = max_people
        self._pose = _Graph("pose", static_image_mode=True, model_complexity=1, enable_segmentation=True)

    def boxes(self, frame: np.ndarray) -> list[_Box]:
        """Boxes of the people, largest first; those far smaller than the largest are left out."""
        size, picture = (frame.shape[0], frame.shape[1]), frame.copy()
        painted, colour = np.zeros(size, bool), frame.mean((0, 1)).astype(np.uint8)
        boxes: list[_Box] = []
        for _ in range(self._max_people):
            result = self._pose.process(picture)
            if result.pose_landmarks is None:
                break
            pose = _points(result.pose_landmarks, size)
            pose[:, 2] = [landmark.visibility for landmark in result.pose_landmarks.landmark]
            box = box_of(to_keypoints(pose, None, None, None, size), min_score=0.5)
            seen = int((pose[:, 2] > 0.5).sum())
            if box is None or seen < 12 or any(overlap(box, other) > 0.5 for other in boxes):
                break
            if boxes and _share_on(painted, pose[pose[:, 2] > 0.5]) > 0.3:
                break  # a ghost, seen in the outline of the one painted over
            boxes.append(box)
            painted |= _shape(result.segmentation_mask, box, size)
            picture[painted] = colour
        boxes.sort(key=lambda b: (b[2] - b[0]) * (b[3] - b[1]), reverse=True)
        return [b for b in boxes if b[3] - b[1] >= _OTHERS_AT_LEAST * (boxes[0][3] - boxes[0][1])]

    def close(self) -> None:
        self._pose.close()


class _Retry:
    """Looks for a face or a hand in an enlarged crop round the place where the body says it is."""

    def __init__(self) -> None:
        self._face = _Graph("face", static_image_mode=True, max_num_faces=1, refine_landmarks=True)
        self._hands = _Graph(
            "hands", static_image_mode=True, max_num_hands=1, model_complexity=1, min_detection_confidence=0.1
        )

    def face(self, frame: np.ndarray, pose: np.ndarray) -> np.ndarray | None:
        head = pose[:11]
        if head[:, 2].mean() < 0.5:
            return None
        low, high = head[:, :2].min(0), head[:, :2].max(0)
        side = 2.5 * max(float((high - low).max()), 0.25 * _shoulders(pose))
        found = self._in_crop(frame, (low + high) / 2, side, _FACE_CROP, self._face, "multi_face_landmarks")
        # The crop's largest face may be a neighbour's: it must hold this body's nose.
        if found is None or np.hypot(*(found[4, :2] - head[0, :2])) > side / 5:
            return None
        return found

    def hand(self, frame: np.ndarray, pose: np.ndarray, wrist: int, elbow: int) -> np.ndarray | None:
        if pose[wrist, 2] < 0.3:
            return None
        torso = max(_torso(pose), _shoulders(pose))
        # MediaPipe's wrist is followed by little finger and forefinger two and four places on.
        centre = pose[[wrist, wrist + 2, wrist + 4], :2].mean(0)
        found = self._in_crop(frame, centre, torso, _HAND_CROP, self._hands, "multi_hand_landmarks")
        if found is None:
            return None
        to_wrist = np.hypot(*(found[0, :2] - pose[wrist, :2]))
        extent = float(np.ptp(found[:, :2], axis=0).max())
        other = 31 - wrist
        nearer_to_other = to_wrist > np.hypot(*(found[0, :2] - pose[other, :2]))
        too_large = extent > 0.8 * max(float(np.hypot(*(pose[wrist] - pose[elbow])[:2])), 0.5 * torso)
        return None if to_wrist > 0.25 * torso or nearer_to_other or too_large else found

    @staticmethod
    def _in_crop(
        frame: np.ndarray, centre: np.ndarray, side: float, pixels: int, graph: _Graph, answer: str
    ) -> np.ndarray | None:
        if not np.isfinite(side) or side < 4:
            return None
        scale = pixels / side
        # Half a pixel, since OpenCV counts from pixels' centres and we from corners.
        shift = pixels / 2 - (centre - 0.5) * scale - 0.5
        matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        crop = cv2.warpAffine(
            frame, matrix, (pixels, pixels), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        found = getattr(graph.process(crop), answer)
        if not found:
            return None
        points = _points(found[0], (pixels, pixels))
        points[:, :2] = (points[:, :2] - pixels / 2) / scale + centre
        return points

    def close(self) -> None:
        self._face.close()
        self._hands.close()


def to_keypoints(
    pose: np.ndarray,
    face: np.ndarray | None,
    left_hand: np.ndarray | None,
    right_hand: np.ndarray | None,
    size: tuple[int, int],
) -> Keypoints:
    """MediaPipe's points in our layout.

    Args:
        pose: (33 3) x, y in pixels and visibility.
        face: (468 or more, 3), or None.
        left_hand: (21 3) of the person's own left hand, or None.
        right_hand: (21 3), or None.
        size: (height, width) of the frame.

    Returns:
        A clip of one frame; missing parts have score 0.
    """
    one = Keypoints.empty(1, size)
    body = one.body[0]
    body[:] = pose[list(BODY_FROM_POSE)]
    body[1, :2] = (pose[11, :2] + pose[12, :2]) / 2
    body[1, 2] = min(pose[11, 2], pose[12, 2])
    if face is not None:
        one.face[0] = face[list(FACE_FROM_MESH)]
    for hand, found in ((one.left_hand, left_hand), (one.right_hand, right_hand)):
        if found is not None:
            hand[0] = found
    return one


def _points(landmarks: Any, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    return np.array([(p.x * width, p.y * height, 1.0) for p in landmarks.landmark], np.float32)


def _shoulders(pose: np.ndarray) -> float:
    return float(np.hypot(*(pose[11] - pose[12])[:2]))


def _torso(pose: np.ndarray) -> float:
    return float(np.hypot(*(pose[11] + pose[12] - pose[23] - pose[24])[:2])) / 2


def _enlarged(box: _Box, share: float) -> _Box:
    left, top, right, bottom = box
    margin = share * max(right - left, bottom - top)
    return left - margin, top - margin, right + margin, bottom + margin


def _only(frame: np.ndarray, box: _Box) -> np.ndarray:
    """The frame with everything outside of the box painted in its mean colour."""
    height, width = frame.shape[:2]
    left, right = (int(np.clip(x, 0, width)) for x in (box[0], box[2]))
    top, bottom = (int(np.clip(y, 0, height)) for y in (box[1], box[3]))
    view = np.empty_like(frame)
    view[:] = frame.mean((0, 1)).astype(np.uint8)
    view[top:bottom, left:right] = frame[top:bottom, left:right]
    return view


def _shape(mask: np.ndarray | None, box: _Box, size: tuple[int, int]) -> np.ndarray:
    """(h w) bool, where to paint to hide a person: the mask with a margin or, without a mask, the box."""
    if mask is None:
        hidden = np.zeros(size, bool)
        left, top, right, bottom = (int(max(n, 0)) for n in _enlarged(box, 0.05))
        hidden[top:bottom, left:right] = True
        return hidden
    reach = max(3, int(0.03 * (box[3] - box[1])))
    return cv2.dilate((mask > 0.2).astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0


def _share_on(area: np.ndarray, points: np.ndarray) -> float:
    """Which share of the points lies on the (h w) bool area."""
    height, width = area.shape
    x, y = points[:, 0].astype(int).clip(0, width - 1), points[:, 1].astype(int).clip(0, height - 1)
    return float(area[y, x].mean()) if len(points) else 0.0
