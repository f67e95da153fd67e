"""Alignment: the driver's motion on the reference person's body, at the reference person's place.

Three ways:

* "none": the official one. The driving frame is cut to the canvas's aspect and resized (spec.md 4.1, 5).
* "rigid": one enlargement and shift for the whole clip, from the frame whose pose is most like the reference's.
* "retarget": the skeleton is rebuilt with the reference's lengths. Every bone keeps the direction it has in the
  picture and is multiplied by one factor for the clip, reference's length over driver's (`proportions`), so that
  perspective's shortening is kept. The middle of the hips (the neck, when one of the two shows no hips) stands where
  the reference's stands in the frame most like the reference, early frames preferred, and moves by the driver's
  motion times the ratio of the legs, which keeps a standing foot where it stands. The head moves with the neck and
  is scaled as a whole by the ratio of the faces, hands with the wrists by that of the forearms. Legs that the driver
  never shows stay as the reference has them; legs that the reference does not show leave the canvas below.

`frame_to_canvas` tells for every frame how the driver's *face* moves, so that its pixels can be carried along
(`warp_frame`) and face crops cut at the aligned landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from xdyna.conditions.face import crop_to_ratio
from xdyna.conditions.keypoints import Keypoints
from xdyna.conditions.proportions import (
    HEAD,
    HIPS,
    NECK,
    NOSE,
    SIDES,
    USUAL,
    Ratios,
    compare,
    lengths,
    lengths_per_frame,
    torso_length,
)
from xdyna.errors import OptionError

ALIGN_MODES = ("retarget", "rigid", "none")

_LEGS = (8, 9, 10, 11, 12, 13)
_LOWER_LEGS = (9, 10, 12, 13)
_DOWN = np.array([0.0, 1.0])

_USUAL_PLACES: tuple[tuple[int, int, str, tuple[float, float]], ...] = (
    (1, 0, "neck", (0, -1)),
    (1, 2, "shoulder", (-1, 0)), (2, 3, "upper_arm", (0, 1)), (3, 4, "forearm", (0, 1)),
    (1, 5, "shoulder", (1, 0)), (5, 6, "upper_arm", (0, 1)), (6, 7, "forearm", (0, 1)),
    (1, 8, "torso", (-0.19, 1)), (8, 9, "thigh", (0, 1)), (9, 10, "shin", (0, 1)),
    (1, 11, "torso", (0.19, 1)), (11, 12, "thigh", (0, 1)), (12, 13, "shin", (0, 1)),
    (0, 14, "head", (-0.25, -0.25)), (0, 15, "head", (0.25, -0.25)),
    (0, 16, "head", (-0.5, -0.1)), (0, 17, "head", (0.5, -0.1)),
)  # fmt: skip
"""Where a body point never seen is taken to be: parent, point, part and direction of a person standing upright."""


@dataclass(frozen=True)
class Aligned:
    """A driver's clip on a canvas.

    Attributes:
        keypoints: of size `canvas`; points may lie outside of it.
        frame_to_canvas: (f 2 3) float32, maps the driver's face from pixels of the driving frame to the canvas.
    """

    keypoints: Keypoints
    frame_to_canvas: np.ndarray


def align(
    driving: Keypoints,
    reference: Keypoints | None,
    *,
    canvas: tuple[int, int],
    mode: Literal["retarget", "rigid", "none"] = "retarget",
) -> Aligned:
    """Bring a driver's keypoints onto the reference's canvas (see the top of this file).

    Args:
        driving: the clip, missing points with score 0 (as `track` gives it).
        reference: the first frame is used; of any size, cut to the canvas as `media.crop_to` cuts the picture.
            None, or nobody in it, leaves only "none", which is then used.
        canvas: (height, width) of the output.
        mode: "retarget", "rigid" or "none".

    Returns:
        Finite everywhere, whatever is missing.

    Raises:
        OptionError: an unknown mode or an empty canvas.
    """
    if mode not in ALIGN_MODES:
        raise OptionError("align", f"{mode!r} is not one of {', '.join(ALIGN_MODES)}")
    if min(canvas) < 1:
        raise OptionError("size", f"must be at least 1 x 1, got {canvas[0]} x {canvas[1]}")
    driving = _finite(driving)
    nobody = reference is None or not (reference.body[:1, :, 2] > 0).any()
    if mode == "none" or reference is None or nobody or not (driving.body[..., 2] > 0).any():
        return _cropped(driving, canvas)
    target = _finite(reference[:1])
    target = target.moved(_crop_matrix(_centre_crop(target.size, canvas), canvas), canvas)
    return _rigid(driving, target) if mode == "rigid" else _retargeted(driving, target)


def warp_frame(
    frame: np.ndarray, matrix: np.ndarray, size: tuple[int, int], *, enlarging: int = cv2.INTER_LINEAR
) -> np.ndarray:
    """A driving frame carried to the canvas, black where there is no pixel.

    Args:
        frame: (h w 3) uint8.
        matrix: (2 3), one of `Aligned.frame_to_canvas`; in our coordinates, whose 0 is the corner of a pixel.
        size: (height, width) of the canvas.
        enlarging: OpenCV's interpolation where the frame is enlarged.

    Returns:
        (h w 3) uint8; averaged over pixels where the frame shrinks to half or less, else bilinear.
    """
    matrix = np.asarray(matrix, np.float64).copy()
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    shrink = min(int(1 / max(scale, 1e-6)), min(frame.shape[:2]))
    if shrink >= 2:
        height, width = (max(n // shrink, 1) for n in frame.shape[:2])
        matrix[:, 0] *= frame.shape[1] / width
        matrix[:, 1] *= frame.shape[0] / height
        frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    # OpenCV puts 0 in the middle of the first pixel.
    matrix[:, 2] += matrix[:, :2].sum(1) / 2 - 0.5
    flags = enlarging if scale > 1 else cv2.INTER_LINEAR
    return cv2.warpAffine(frame, matrix, (size[1], size[0]), flags=flags)


def _finite(keypoints: Keypoints) -> Keypoints:
    def clean(points: np.ndarray) -> np.ndarray:
        keep = np.isfinite(points).all(-1, keepdims=True) & (points[..., 2:] > 0)
        return np.where(keep, points, 0).astype(np.float32)

    return Keypoints(
        clean(keypoints.body),
        clean(keypoints.left_hand),
        clean(keypoints.right_hand),
        clean(keypoints.face),
        keypoints.size,
    )


def _centre_crop(size: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int, int, int]:
    """left, top, right, bottom of the centre crop of the canvas's aspect, as for the reference picture."""
    (height, width), (canvas_height, canvas_width) = size, canvas
    if width / height > canvas_width / canvas_height:
        cut = max(int(height * canvas_width / canvas_height), 1)
        left = (width - cut) // 2
        return left, 0, left + cut, height
    cut = max(int(width * canvas_height / canvas_width), 1)
    top = (height - cut) // 2
    return 0, top, width, top + cut


def _crop_matrix(box: tuple[int, int, int, int], canvas: tuple[int, int]) -> np.ndarray:
    """(2 3): from pixels of a picture to those of the canvas that shows its `box`."""
    left, top, right, bottom = box
    x, y = canvas[1] / max(right - left, 1), canvas[0] / max(bottom - top, 1)
    return np.array([[x, 0, -left * x], [0, y, -top * y]])


def _cropped(driving: Keypoints, canvas: tuple[int, int]) -> Aligned:
    matrix = _crop_matrix(crop_to_ratio(driving.size, canvas), canvas)
    return Aligned(driving.moved(matrix, canvas), _repeated(matrix, len(driving)))


def _repeated(matrix: np.ndarray, frames: int) -> np.ndarray:
    return np.repeat(matrix[None].astype(np.float32), frames, axis=0)


def _rigid(driving: Keypoints, target: Keypoints) -> Aligned:
    ratios = compare(lengths(driving), lengths(target))
    common = (driving.body[:, :14, 2] > 0) & (target.body[:, :14, 2] > 0)
    counts = common.sum(1)
    best, scale, shift = np.inf, ratios.whole, np.zeros(2)
    for index in np.flatnonzero(counts >= max(0.6 * counts.max(), 1)):
        seen = common[index]
        ours = driving.body[index, :14][seen, :2].astype(np.float64)
        theirs = target.body[0, :14][seen, :2].astype(np.float64)
        centre_ours, centre_theirs = ours.mean(0), theirs.mean(0)
        ours, theirs = ours - centre_ours, theirs - centre_theirs
        spread = float((ours**2).sum())
        # The best enlargement of this frame, but not one that a bent or hidden body would suggest.
        fitted = float((ours * theirs).sum()) / spread if spread > 0 else ratios.whole
        fitted = float(np.clip(fitted, 0.8 * ratios.whole, 1.25 * ratios.whole))
        misfit = float(((fitted * ours - theirs) ** 2).sum(1).mean())
        if misfit < best:
            best, scale, shift = misfit, fitted, centre_theirs - fitted * centre_ours
    if not np.isfinite(best):
        # No point in common: the middle of what each of the two shows.
        shift = _middle(target) - scale * _middle(driving)
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    return Aligned(driving.moved(matrix, target.size), _repeated(matrix, len(driving)))


def _middle(keypoints: Keypoints) -> np.ndarray:
    points = keypoints.body[keypoints.body[..., 2] > 0]
    return points[:, :2].astype(np.float64).mean(0)


def _retargeted(driving: Keypoints, target: Keypoints) -> Aligned:
    found, wanted = lengths(driving), lengths(target)
    ratios = compare(found, wanted)
    body, goal = _completed(driving, found), _completed(target, wanted)[0]
    rebuilt = _rebuilt(body, ratios)
    anchor = _most_alike(rebuilt, driving, goal, target, torso_length(wanted))
    near = _nearness(driving, found, anchor)
    if near < 0.85:
        # The driver comes nearer later: the size at the anchor is what the reference shows.
        ratios = Ratios(ratios.whole / near, {name: ratio / near for name, ratio in ratios.parts.items()})
        rebuilt = _rebuilt(body, ratios)

    hips_seen = (driving.body[:, HIPS, 2] > 0).all(1).mean() >= 0.5 and (target.body[0, HIPS, 2] > 0).all()
    root = list(HIPS) if hips_seen else [NECK]
    step = ratios.legs if hips_seen else ratios.whole
    path = body[:, root].mean(1)
    place = goal[root].mean(0) + step * (path - path[anchor])
    moved = rebuilt + (place - rebuilt[:, root].mean(1))[:, None]

    scores = driving.body[..., 2:].astype(np.float64)
    for part in (_LEGS, _LOWER_LEGS):
        # Legs that the driver does not show stay as the reference has them; with the hips, where these are not seen.
        if (driving.body[:, part, 2] > 0).mean() < 0.1:
            moved[:, part], scores[:, part] = goal[list(part)], target.body[0, part, 2:]
            break

    face_scale = ratios.parts["face"]
    matrices = np.zeros((len(driving), 2, 3))
    matrices[:, 0, 0] = matrices[:, 1, 1] = face_scale
    matrices[:, :, 2] = moved[:, NOSE] - face_scale * body[:, NOSE]
    hands = {
        name: _carried(getattr(driving, name), body[:, wrist], moved[:, wrist], ratios.parts["forearm"])
        for name, wrist in (("left_hand", 7), ("right_hand", 4))
    }
    keypoints = Keypoints(
        body=np.concatenate([moved, scores], -1).astype(np.float32),
        left_hand=hands["left_hand"],
        right_hand=hands["right_hand"],
        face=_carried(driving.face, body[:, NOSE], moved[:, NOSE], face_scale),
        size=target.size,
    )
    return Aligned(keypoints, matrices.astype(np.float32))


def _carried(points: np.ndarray, start: np.ndarray, end: np.ndarray, scale: float) -> np.ndarray:
    """(f n 3) points scaled about `start` (f 2), which goes to `end` (f 2)."""
    out = points.astype(np.float64)
    out[..., :2] = end[:, None] + scale * (out[..., :2] - start[:, None])
    return out.astype(np.float32)


def _completed(keypoints: Keypoints, found: dict[str, float]) -> np.ndarray:
    """(f 18 2) body points with a place for those missing: in time between sightings, else upright and usual."""
    frames = np.arange(len(keypoints))
    xy = np.full((len(frames), 18, 2), np.nan)
    for point in range(18):
        seen = np.flatnonzero(keypoints.body[:, point, 2] > 0)
        if len(seen):
            for axis in range(2):
                xy[:, point, axis] = np.interp(frames, seen, keypoints.body[seen, point, axis])
    unit = torso_length(found)
    known = np.isfinite(xy).all((0, 2))
    if not known[NECK]:
        xy[:, NECK] = _neck_from(xy, known, unit, keypoints.size)
    for parent, point, part, direction in _USUAL_PLACES:
        if not known[point]:
            length = found.get(part, USUAL[part] * unit)
            xy[:, point] = xy[:, parent] + length * np.array(direction)
    return xy


def _neck_from(xy: np.ndarray, known: np.ndarray, unit: float, size: tuple[int, int]) -> np.ndarray:
    """(f 2) a place for a neck never seen, from whatever was seen."""
    if known[[2, 5]].all():
        return xy[:, [2, 5]].mean(1)
    if known[NOSE]:
        return xy[:, NOSE] + USUAL["neck"] * unit * _DOWN
    if known[list(HIPS)].any():
        return np.nanmean(xy[:, HIPS], axis=1) - unit * _DOWN
    if known.any():
        return xy[:, known].mean(1)
    return np.tile([size[1] / 2, size[0] / 2], (len(xy), 1))


def _rebuilt(body: np.ndarray, ratios: Ratios) -> np.ndarray:
    """(f 18 2) -> (f 18 2): every bone multiplied by its part's ratio, the neck at (0, 0)."""
    out = np.zeros_like(body)
    part_of = {pair: name for name, pairs in SIDES.items() for pair in pairs}

    def hang(parent: int, child: int) -> None:
        out[:, child] = out[:, parent] + ratios.parts[part_of[parent, child]] * (
            body[:, child] - body[:, parent]
        )

    for parent, child in ((1, 0), (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7)):
        hang(parent, child)
    middle = body[:, HIPS].mean(1)
    for hip in HIPS:
        out[:, hip] = ratios.parts["torso"] * (middle - body[:, NECK]) + ratios.parts["hip"] * (
            body[:, hip] - middle
        )
    for parent, child in ((8, 9), (9, 10), (11, 12), (12, 13)):
        hang(parent, child)
    for point in HEAD[1:]:
        out[:, point] = out[:, NOSE] + ratios.parts["face"] * (body[:, point] - body[:, NOSE])
    return out


def _most_alike(
    rebuilt: np.ndarray, driving: Keypoints, goal: np.ndarray, target: Keypoints, unit: float
) -> int:
    """The frame whose pose is most like the reference's; the first unless it is clearly less alike."""
    both = (driving.body[:, :14, 2] > 0) & (target.body[:, :14, 2] > 0)
    ours, theirs = rebuilt[:, :14] * both[..., None], (goal[:14] - goal[NECK]) * both[..., None]
    # Shapes are compared, whatever their size: somebody far away stands like somebody near.
    spread = (ours**2).sum((1, 2))
    size = np.where(spread > 0, (ours * theirs).sum((1, 2)) / np.maximum(spread, 1e-9), 1).clip(0.5, 4)
    distance = np.hypot(*np.moveaxis(size[:, None, None] * ours - theirs, -1, 0)) / unit
    count = both.sum(1)
    unlike = distance.sum(1) / np.maximum(count, 1)
    # A frame that shows less of the body has less to be unlike in.
    unlike = unlike + 1.0 * (count < 0.7 * count.max()) + 0.1 * np.arange(len(unlike)) / len(unlike)
    return int(np.argmin(unlike))


def _nearness(driving: Keypoints, found: dict[str, float], anchor: int) -> float:
    """How large the driver is at the anchor as a share of their usual size in the clip, in [0.2, 1]."""
    near = max(len(driving) // 50, 1)
    around = lengths_per_frame(driving[max(anchor - near, 0) : anchor + near + 1])
    shares = [
        float(side.max()) / found[name]
        for name in ("torso", "shoulder", "thigh", "shin", "face")
        for side in around[name]
        if name in found and side.max() > 0
    ]
    return float(np.clip(np.percentile(shares, 75), 0.2, 1)) if shares else 1.0
