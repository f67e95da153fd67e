"""Face crops: what the S-Face ControlNet sees of the driver's face (spec.md 4.1).

Of a frame two pictures are made, black but for the face: `global_` keeps a box round the whole face, `local`
keeps three patches, at the two eyes and the mouth. `face_crops` is the official arithmetic with all its
quirks, fixture x; `FaceTracker` is what a clip goes through, either exactly as the official loop does or so
that a face that is lost for some frames, or stands at the border, does not vanish.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from xdyna.errors import OptionError

Box = tuple[int, int, int, int]
Centres = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

NO_BOX: Box = (0, 0, 0, 0)
NO_CENTRES: Centres = ((0, 0), (0, 0), (0, 0))

CENTRE_POINTS: tuple[slice, slice, slice] = (slice(43, 48), slice(37, 42), slice(49, 68))
"""The points averaged for the left eye, the right eye and the mouth. Points 42, 36 and 48 are left out, as in
the official code, whose weights were trained with such centres."""

FACE_MODES = ("tracked", "official")

_LEAST_POINTS = 34
"""With fewer than half of the 68 points a box says little about where the face is."""


@dataclass(frozen=True)
class FaceCrops:
    """The two condition pictures of one frame, and where they were cut.

    Attributes:
        local: (h w 3) uint8, black but for the patches at eyes and mouth.
        global_: (h w 3) uint8, black but for the face's box.
        box: left, top, right, bottom of the face's box in pixels, right and bottom not included.
        centres: (x, y) of the left eye, the right eye and the mouth.
    """

    local: np.ndarray
    global_: np.ndarray
    box: Box
    centres: Centres


def increased_box(box: Sequence[float] | np.ndarray) -> Box:
    """The box copied for a face: the landmarks' box made square and enlarged (spec.md 4.1).

    Args:
        box: left, top, right, bottom over the 68 landmarks, in pixels.

    Returns:
        left, top, right, bottom as whole numbers truncated towards 0; may reach outside of the picture.
    """
    left, top, right, bottom = (float(n) for n in box)
    side = max(right - left, bottom - top)
    x, y = (left + right) / 2, (top + bottom) / 2
    return int(x - 1.35 * side), int(y - 1.25 * side), int(x + 1.35 * side), int(y + 1.45 * side)


def clipped_box(box: Box, size: tuple[int, int]) -> Box:
    """`box` cut at the border of a picture of `size` = (height, width)."""
    height, width = size
    left, top, right, bottom = box
    return max(0, left), max(0, top), min(width, right), min(height, bottom)


def crop_to_ratio(image_size: tuple[int, int], target_size: tuple[int, int]) -> Box:
    """Where the official code cuts a driving frame to the aspect of the output (`crop2ratio`, spec.md 4.1).

    Args:
        image_size: (height, width) of the frame.
        target_size: (height, width) whose aspect is wanted.

    Returns:
        left, top, right, bottom; centred in x, a quarter of the surplus above in y.
    """
    (height, width), (target_height, target_width) = image_size, target_size
    if width / height < target_width / target_height:
        cut_width, cut_height = width, int(width / target_width * target_height)
    else:
        cut_width, cut_height = int(height / target_height * target_width), height
    left, top = (width - cut_width) // 2, (height - cut_height) // 4
    return left, top, left + cut_width, top + cut_height


def selected_frames(frames: int, *, length: int, stride: int = 1) -> list[int]:
    """The frames the official code takes of a video: 0, stride, 2 stride, ..., at most `length` of them."""
    return list(range(0, frames, stride))[:length]


def face_crops(
    frame: np.ndarray,
    landmarks: np.ndarray | None,
    *,
    last_box: Box = NO_BOX,
    last_centres: Centres = NO_CENTRES,
) -> FaceCrops:
    """The official crops of one frame, quirks included (spec.md 4.1, fixture x).

    Quirks kept: a landmarks' box inside `last_box` leaves the box where it was; a patch whose slice would
    start at a negative index vanishes or wraps round instead of being clipped; without a face the last box
    and centres are copied again (all black when there were none).

    Args:
        frame: (h w 3) uint8, already cut and resized to the output's size.
        landmarks: (68 2) or (68 3) float in pixels of `frame`; None when no face was found.
        last_box: the box of the frame before, all 0 when there is none (always so in the official loop).
        last_centres: the centres of the frame before.
    """
    height, width = frame.shape[:2]
    box, centres = last_box, last_centres
    if landmarks is not None:
        xy = np.asarray(landmarks)[:, :2]
        centres = _centres(xy)
        found = (*xy.min(0), *xy.max(0))
        inside = (
            found[0] >= last_box[0]
            and found[1] >= last_box[1]
            and found[2] <= last_box[2]
            and found[3] <= last_box[3]
        )
        if not inside:
            box = clipped_box(increased_box(found), (height, width))
    half_x, half_y = _patch_half_sizes(box)
    patches = [(x - half_x, y - half_y, x + half_x, y + half_y) for x, y in centres]
    return FaceCrops(_kept(frame, patches), _kept(frame, [box]), box, centres)


def _centres(xy: np.ndarray) -> Centres:
    means = [xy[points].mean(0) for points in CENTRE_POINTS]
    left, right, mouth = ((round(float(x)), round(float(y))) for x, y in means)
    return left, right, mouth


def _patch_half_sizes(box: Box) -> tuple[int, int]:
    return int((box[2] - box[0]) / 512 * 64), int((box[3] - box[1]) / 512 * 64)


def _kept(frame: np.ndarray, boxes: Sequence[Box]) -> np.ndarray:
    """A black picture with the boxes' pixels copied, by plain numpy slices."""
    picture = np.zeros_like(frame)
    for left, top, right, bottom in boxes:
        picture[top:bottom, left:right] = frame[top:bottom, left:right]
    return picture


class FaceTracker:
    """Turns the frames of a clip, in order, into the two face conditions.

    In mode "official" every frame is cut on its own by `face_crops`, as the official loop does: a frame
    without a face is black. In mode "tracked"

    * the side of the box follows the landmarks' smoothly (its centre follows at once, as the face does);
    * a lost face is held: for up to `hold` frames the last box and centres are cut from the current pixels,
      which still show the head unless it moved far; then the pictures are black until a face is found;
    * patches are clipped at the picture's border instead of vanishing.

    Neither mode ever gives anything but uint8 pixels of the frame, or black.

    Args:
        mode: "tracked" or "official".
        hold: how many frames a lost face is held. Only in "tracked".
        smoothing: share of the last frame's side in this frame's, in [0, 1). Only in "tracked".

    Raises:
        OptionError: a value that is not allowed.
    """

    def __init__(
        self, mode: Literal["tracked", "official"] = "tracked", *, hold: int = 8, smoothing: float = 0.6
    ) -> None:
        if mode not in FACE_MODES:
            raise OptionError("face mode", f"{mode!r} is not one of {', '.join(FACE_MODES)}")
        if hold < 0:
            raise OptionError("face hold", f"must be 0 or more frames, got {hold}")
        if not 0 <= smoothing < 1:
            raise OptionError("face smoothing", f"must be in [0, 1), got {smoothing}")
        self.mode, self.hold, self.smoothing = mode, hold, smoothing
        self._side: float | None = None
        self._box, self._centres = NO_BOX, NO_CENTRES
        self._lost = 0

    def step(self, frame: np.ndarray, landmarks: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """The conditions of the next frame.

        Args:
            frame: (h w 3) uint8 at the output's size (the driver's, warped to the canvas).
            landmarks: (68 3) float, x and y in pixels of `frame` and a score, 0 for a missing point; or None.

        Returns:
            local and global_, each (h w 3) uint8.
        """
        points = _usable_points(landmarks)
        if self.mode == "official":
            complete = points is not None and len(points) == 68
            crops = face_crops(frame, landmarks if complete else None, last_centres=self._centres)
            self._centres = crops.centres
            return crops.local, crops.global_
        if points is None or landmarks is None:
            self._lost += 1
            if self._lost > self.hold:
                self._side, self._box, self._centres = None, NO_BOX, NO_CENTRES
        else:
            self._lost = 0
            self._follow(points, landmarks)
        return self._cut(frame)

    def _follow(self, points: np.ndarray, landmarks: np.ndarray) -> None:
        low, high = points.min(0), points.max(0)
        centre, side = (low + high) / 2, float(max(*(high - low), 1.0))
        if self._side is not None:
            side = self.smoothing * self._side + (1 - self.smoothing) * side
        self._side = side
        self._box = increased_box((*(centre - side / 2), *(centre + side / 2)))
        centres = []
        for part, last in zip(CENTRE_POINTS, self._centres, strict=True):
            seen = landmarks[part][_present(landmarks[part])]
            mean = seen[:, :2].mean(0) if len(seen) else None
            centres.append(last if mean is None else (round(float(mean[0])), round(float(mean[1]))))
        self._centres = (centres[0], centres[1], centres[2])

    def _cut(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        size = (frame.shape[0], frame.shape[1])
        box = _ordered(clipped_box(self._box, size))
        half_x, half_y = _patch_half_sizes(self._box)
        patches = [
            _ordered(clipped_box((x - half_x, y - half_y, x + half_x, y + half_y), size))
            for x, y in self._centres
        ]
        return _kept(frame, patches), _kept(frame, [box])


def _present(landmarks: np.ndarray) -> np.ndarray:
    return (landmarks[:, 2] > 0) & np.isfinite(landmarks[:, :2]).all(1)


def _usable_points(landmarks: np.ndarray | None) -> np.ndarray | None:
    """The (n 2) points that are there, or None when too few are to speak of a face."""
    if landmarks is None:
        return None
    seen = landmarks[_present(landmarks)][:, :2]
    return seen.astype(np.float64) if len(seen) >= _LEAST_POINTS else None


def _ordered(box: Box) -> Box:
    """An empty box where a box lies outside of the picture (its slices must not wrap round)."""
    left, top, right, bottom = box
    return box if left < right and top < bottom else NO_BOX
