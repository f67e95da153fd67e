"""People through DWPose's two ONNX files, which the user brings: a YOLOX detector and a whole-body pose net.

The arithmetic is that of the public files `yolox_l.onnx` and `dw-ll_ucoco_384.onnx` (input sizes are read from
the files): YOLOX on a letterboxed BGR picture; the pose net on an RGB crop of each person, 1.25 times its box,
whose SimCC outputs hold, for each of COCO-WholeBody's 133 points, a score for every half pixel column and row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from xdyna.conditions.keypoints import Keypoints
from xdyna.conditions.people import Person, box_of
from xdyna.errors import InputError, MissingPackage

BODY_FROM_WHOLEBODY = (0, -1, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
"""For each of our body points the one of the 133; the neck (-1) is the middle of the shoulders."""

FACE, LEFT_HAND, RIGHT_HAND = slice(23, 91), slice(91, 112), slice(112, 133)

_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
_STD = np.array([58.395, 57.12, 57.375], np.float32)
_PADDING_GREY = 114
_BOX_SCORE, _BOX_OVERLAP, _BOX_MARGIN = 0.3, 0.45, 1.25
_SIMCC_PER_PIXEL = 2.0


class DwposeDetector:
    """Finds people with DWPose.

    Args:
        folder: holds the two files: `*yolox*.onnx`, and `dw-ll*.onnx` or `*ucoco*.onnx`.
        max_people: the most people returned for a frame, largest boxes first.

    Raises:
        InputError: a file is missing, is no ONNX file, or has other inputs and outputs.
        MissingPackage: onnxruntime is not installed.
    """

    def __init__(self, folder: str | Path, *, max_people: int = 4) -> None:
        self._max_people = max_people
        box_file = _one_file(folder, ("*yolox*.onnx",), "the person detector, e.g. yolox_l.onnx")
        pose_file = _one_file(
            folder, ("dw-ll*.onnx", "*ucoco*.onnx"), "the pose network, e.g. dw-ll_ucoco_384.onnx"
        )
        self._boxes = _session(box_file, outputs=1)
        self._pose = _session(pose_file, outputs=2)
        self._box_size = _input_size(self._boxes, box_file)
        self._pose_size = _input_size(self._pose, pose_file)
        self._pose_file = pose_file

    def stream(self, frames: Iterable[np.ndarray]) -> Iterator[list[Person]]:
        """Everybody in each frame; see `Detector`. Frames are (h w 3) uint8 RGB."""
        for frame in frames:
            people = []
            for box in self._find_boxes(frame)[: self._max_people]:
                keypoints = to_keypoints(self._find_points(frame, box), (frame.shape[0], frame.shape[1]))
                around = box_of(keypoints)
                if around is not None:
                    people.append(Person(keypoints, around))
            yield people

    def _find_boxes(self, frame: np.ndarray) -> np.ndarray:
        """(n 4) left, top, right, bottom in pixels, largest first."""
        height, width = self._box_size
        ratio = min(height / frame.shape[0], width / frame.shape[1])
        inner = max(int(frame.shape[0] * ratio), 1), max(int(frame.shape[1] * ratio), 1)
        picture = np.full((height, width, 3), _PADDING_GREY, np.float32)
        picture[: inner[0], : inner[1]] = cv2.resize(
            frame, (inner[1], inner[0]), interpolation=cv2.INTER_LINEAR
        )
        (found,) = _run(self._boxes, picture[..., ::-1])
        boxes, scores = decode_yolox(found[0], self._box_size)
        boxes = boxes / ratio
        keep = scores > _BOX_SCORE
        boxes = _without_doubles(boxes[keep], scores[keep])
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        return boxes[np.argsort(-areas)]

    def _find_points(self, frame: np.ndarray, box: np.ndarray) -> np.ndarray:
        """(133 3) x, y in pixels and score."""
        height, width = self._pose_size
        centre, extent = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) * _BOX_MARGIN
        extent = np.maximum(extent, [extent[1] * width / height, extent[0] * height / width])
        scale = width / extent[0]
        shift = np.array([width, height]) / 2 - centre * scale
        matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        crop = cv2.warpAffine(frame, matrix, (width, height), flags=cv2.INTER_LINEAR)
        across, down = _run(self._pose, (crop.astype(np.float32) - _MEAN) / _STD)
        if across.shape[1] != 133 or down.shape[1] != 133:
            raise InputError(
                self._pose_file,
                f"gives {across.shape[1]} points, not COCO-WholeBody's 133",
                "Give DWPose's whole-body network, e.g. dw-ll_ucoco_384.onnx",
            )
        points = decode_simcc(across[0], down[0])
        # Half a pixel, since the network counts from pixels' centres and we from corners.
        points[:, :2] = (points[:, :2] - shift) / scale + 0.5
        return points


def decode_yolox(found: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and scores of people from YOLOX's raw output.

    Args:
        found: (n 85) for every cell of the grids of stride 8, 16 and 32 over `size`: centre offset, log size,
            objectness, and the 80 classes of which the first is person.
        size: (height, width) of the network's input.

    Returns:
        (n 4) left, top, right, bottom in the input's pixels, and (n) scores in [0, 1].
    """
    cells, strides = [], []
    for stride in (8, 16, 32):
        rows, columns = np.mgrid[: size[0] // stride, : size[1] // stride]
        cells.append(np.stack([columns, rows], -1).reshape(-1, 2))
        strides.append(np.full((len(cells[-1]), 1), stride))
    stride_of = np.concatenate(strides)
    centres = (found[:, :2] + np.concatenate(cells)) * stride_of
    sides = np.exp(found[:, 2:4]) * stride_of
    return np.concatenate([centres - sides / 2, centres + sides / 2], 1), found[:, 4] * found[:, 5]


def decode_simcc(across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """(n w) and (n h) scores for every half pixel -> (n 3) x, y in the crop's pixels, score in [0, 1]."""
    place = np.stack([across.argmax(1), down.argmax(1)], 1) / _SIMCC_PER_PIXEL
    score = np.minimum(across.max(1), down.max(1)).clip(0, 1)
    return np.concatenate([place, score[:, None]], 1).astype(np.float64)


def to_keypoints(points: np.ndarray, size: tuple[int, int]) -> Keypoints:
    """COCO-WholeBody's (133 3) points as a clip of one frame in our layout; the feet are left out."""
    one = Keypoints.empty(1, size)
    one.body[0] = points[list(BODY_FROM_WHOLEBODY)]
    one.body[0, 1, :2] = (points[5, :2] + points[6, :2]) / 2
    one.body[0, 1, 2] = min(points[5, 2], points[6, 2])
    one.face[0], one.left_hand[0], one.right_hand[0] = points[FACE], points[LEFT_HAND], points[RIGHT_HAND]
    return one


def _without_doubles(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Non-maximum suppression: of boxes that overlap much, the best only."""
    left = np.argsort(-scores)
    kept: list[int] = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        low = np.maximum(boxes[best, :2], boxes[left, :2])
        high = np.minimum(boxes[best, 2:], boxes[left, 2:])
        common = (high - low).clip(0).prod(1)
        areas = (boxes[left, 2:] - boxes[left, :2]).prod(1) + (boxes[best, 2:] - boxes[best, :2]).prod()
        left = left[common / np.maximum(areas - common, 1e-9) <= _BOX_OVERLAP]
    return boxes[kept]


def _one_file(folder: str | Path, patterns: tuple[str, ...], what: str) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(folder, "no such folder", "Name the folder that holds DWPose's two ONNX files")
    found = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    if len(found) == 1:
        return found[0]
    problem = (
        f"no {' or '.join(patterns)} in it"
        if not found
        else f"several files match: {found[0].name}, {found[1].name}"
    )
    raise InputError(folder, problem, f"Put exactly one file there that is {what}")


def _session(path: Path, *, outputs: int) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingPackage("onnxruntime", "for --detector dwpose", "'xdyna-animate[dwpose]'") from None
    try:
        usable = onnxruntime.get_available_providers()
        providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in usable]
        session = onnxruntime.InferenceSession(str(path), providers=providers)
    except Exception as error:
        raise InputError(
            path, f"is no ONNX network that can be run ({error})", "Fetch the file again"
        ) from error
    if len(session.get_inputs()) != 1 or len(session.get_outputs()) != outputs:
        raise InputError(
            path,
            f"has {len(session.get_inputs())} inputs and {len(session.get_outputs())} outputs, not 1 and {outputs}",
            "Give DWPose's own file",
        )
    return session


def _input_size(session: Any, path: Path) -> tuple[int, int]:
    shape = session.get_inputs()[0].shape
    if len(shape) != 4 or shape[1] != 3 or not all(isinstance(n, int) for n in shape[2:]):
        raise InputError(path, f"its input is {shape}, not (1, 3, height, width)", "Give DWPose's own file")
    return int(shape[2]), int(shape[3])


def _run(session: Any, picture: np.ndarray) -> list[np.ndarray]:
    """Run a network on one (h w 3) float32 picture."""
    tensor = np.ascontiguousarray(picture.transpose(2, 0, 1)[None], np.float32)
    return session.run(None, {session.get_inputs()[0].name: tensor})
