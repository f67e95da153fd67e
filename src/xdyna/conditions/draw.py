"""Drawing a pose the way the official head-less pose videos show it.

Measured on the official pose videos (896 x 512); equal to DWPose's drawing with its eyes and ears left out:
13 limbs in their colour at 0.6 brightness, over them 14 joints (nose and neck among them) at full colour,
hands over both. The geometry, which `data.synthetic` repeats in torch:

* Coordinates are pixels with (0, 0) the top left *corner* of the picture, so that the centre of the pixel in
  column i and row j is (i + 0.5, j + 0.5), and resizing a picture multiplies them.
* All widths below are for 896 x 512 and are multiplied by sqrt(height * width / (896 * 512)), so that a frame
  of any aspect looks like a larger one scaled down (`stroke_widths`).
* limb: an ellipse centred between the two joints, its axis along the limb; half-length = half the distance of
  the joints, half-width 4.5 (OpenCV's polygon of half-width 4 covers its border pixels too).
* joint: a disc of radius 4.
* hand edge: a capsule (a line with round ends) of half-width 1.5; hand point: a disc of radius 4.
* face landmark (an option, off for the official model): a white disc of radius 3, as OpenPose and DWPose draw it.
* Order: limbs in the order of `LIMBS`, joints 0..13, then the left and the right hand, each its 20 edges and
  then its 21 points, then the 68 landmarks. Later covers earlier.
* Edges are anti-aliased: a pixel is covered by clip(0.5 - d, 0, 1), d the signed distance in pixels of its
  centre from the shape's border, and the colour is mixed in by that much. For the ellipse d is k (k - 1) / g,
  the usual first-order distance: with (u, v) along and across and half-axes (a, b), k = |(u/a, v/b)| and
  g = |(u/a^2, v/b^2)|.
* A limb or edge is drawn when both its ends have a score above 0, a point when its own score is.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import asdict, dataclass

import numpy as np

from xdyna.conditions.keypoints import Keypoints

Colour = tuple[int, int, int]

LIMBS: tuple[tuple[int, int], ...] = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0),
)  # fmt: skip
"""The limbs as pairs of body points, in drawing order: shoulders, arms, trunk and legs, then neck to nose."""

LIMB_COLOURS: tuple[Colour, ...] = (
    (153, 0, 0), (153, 51, 0), (153, 102, 0), (153, 153, 0), (102, 153, 0), (51, 153, 0), (0, 153, 0),
    (0, 153, 51), (0, 153, 102), (0, 153, 153), (0, 102, 153), (0, 51, 153), (0, 0, 153),
)  # fmt: skip
"""RGB colour of each limb: OpenPose's colours at 0.6 brightness."""

JOINTS: tuple[int, ...] = tuple(range(14))
"""The body points that are drawn: all but eyes and ears."""

JOINT_COLOURS: tuple[Colour, ...] = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0),
    (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255),
)  # fmt: skip
"""RGB colour of each of `JOINTS`."""

HAND_EDGES: tuple[tuple[int, int], ...] = tuple(
    (0 if step == 0 else 4 * finger + step, 4 * finger + step + 1) for finger in range(5) for step in range(4)
)
"""The 20 lines of a hand: for each finger from the thumb, from the wrist to the tip."""

HAND_EDGE_COLOURS: tuple[Colour, ...] = tuple(
    (int(255 * r), int(255 * g), int(255 * b))
    for r, g, b in (colorsys.hsv_to_rgb(i / 20, 1, 1) for i in range(20))
)
"""RGB colour of each hand edge: once round the hues."""

HAND_POINT_COLOUR: Colour = (0, 0, 255)
"""RGB colour of every hand point."""

LANDMARK_COLOUR: Colour = (255, 255, 255)
"""RGB colour of every face landmark."""

OFFICIAL_SIZE: tuple[int, int] = (896, 512)
"""(height, width) for which the widths are given."""


@dataclass(frozen=True)
class StrokeWidths:
    """Half-widths and radii in pixels.

    Attributes:
        limb: half-width of a limb's ellipse.
        joint: radius of a joint's disc.
        hand_edge: half-width of a hand's line.
        hand_point: radius of a hand point's disc.
        landmark: radius of a face landmark's disc.
    """

    limb: float = 4.5
    joint: float = 4.0
    hand_edge: float = 1.5
    hand_point: float = 4.0
    landmark: float = 3.0


def stroke_widths(size: tuple[int, int]) -> StrokeWidths:
    """The widths for a frame of `size` = (height, width), by the square root of its area."""
    scale = float(np.sqrt(size[0] * size[1] / (OFFICIAL_SIZE[0] * OFFICIAL_SIZE[1])))
    return StrokeWidths(**{name: width * scale for name, width in asdict(StrokeWidths()).items()})


class _Canvas:
    """An RGB picture onto which shapes are mixed; knows the three shapes of a pose."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.pixels = np.zeros((*size, 3), np.float32)

    def ellipse(self, start: np.ndarray, end: np.ndarray, half_width: float, colour: Colour) -> None:
        grid = self._grid(start, end, half_width)
        if grid is None:
            return
        (rows, columns), x, y = grid
        axis = end - start
        length = float(np.hypot(*axis))
        a, b = max(length / 2, 0.5), half_width
        along = axis / length if length > 0 else np.array([1.0, 0.0])
        x, y = x - (start[0] + end[0]) / 2, y - (start[1] + end[1]) / 2
        u, v = (x * along[0] + y * along[1]) / a, (y * along[0] - x * along[1]) / b
        k, g = np.hypot(u, v), np.hypot(u / a, v / b)
        # At the very centre both are 0; there the pixel is inside anyway.
        distance = np.where(g > 0, k * (k - 1) / np.maximum(g, 1e-9), -b)
        self._mix(rows, columns, distance, colour)

    def capsule(self, start: np.ndarray, end: np.ndarray, half_width: float, colour: Colour) -> None:
        grid = self._grid(start, end, half_width)
        if grid is None:
            return
        (rows, columns), x, y = grid
        axis = end - start
        place = ((x - start[0]) * axis[0] + (y - start[1]) * axis[1]) / max(float(axis @ axis), 1e-9)
        place = _unit(place)
        distance = np.hypot(x - start[0] - place * axis[0], y - start[1] - place * axis[1]) - half_width
        self._mix(rows, columns, distance, colour)

    def disc(self, centre: np.ndarray, radius: float, colour: Colour) -> None:
        grid = self._grid(centre, centre, radius)
        if grid is None:
            return
        (rows, columns), x, y = grid
        self._mix(rows, columns, np.hypot(x - centre[0], y - centre[1]) - radius, colour)

    def _grid(
        self, start: np.ndarray, end: np.ndarray, margin: float
    ) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray] | None:
        """The part of the picture that a shape can touch, with its pixels' centres (x (1 w), y (h 1))."""
        height, width = self.pixels.shape[:2]
        # Plain numbers: a pose has a hundred shapes, and numpy takes longer over two than over a picture's part.
        (x0, y0), (x1, y1) = start.tolist(), end.tolist()
        reach = margin + 1
        sides = (min(x0, x1) - reach, min(y0, y1) - reach, max(x0, x1) + reach, max(y0, y1) + reach)
        if not all(math.isfinite(side) for side in (x0, y0, x1, y1)):
            return None
        left, right = (min(max(side, 0), width) for side in (math.floor(sides[0]), math.ceil(sides[2])))
        top, bottom = (min(max(side, 0), height) for side in (math.floor(sides[1]), math.ceil(sides[3])))
        if left >= right or top >= bottom:
            return None
        x = np.arange(left, right, dtype=np.float64)[None] + 0.5
        y = np.arange(top, bottom, dtype=np.float64)[:, None] + 0.5
        return (slice(top, bottom), slice(left, right)), x, y

    def _mix(self, rows: slice, columns: slice, distance: np.ndarray, colour: Colour) -> None:
        cover = _unit(0.5 - distance).astype(np.float32)[..., None]
        part = self.pixels[rows, columns]
        part += cover * (np.array(colour, np.float32) - part)


def _unit(values: np.ndarray) -> np.ndarray:
    """Clipped to [0, 1], without what `np.clip` does before it clips: the arrays here are small and many."""
    return np.minimum(np.maximum(values, 0), 1)


def draw_pose(keypoints: Keypoints, index: int, *, hands: bool = True, landmarks: bool = False) -> np.ndarray:
    """Draw one frame's pose, head-less, as the official pose videos do (see the top of this file).

    Args:
        keypoints: the clip; points with score 0 are left out, points outside the frame are cut off by it.
        index: which frame of the clip.
        hands: also draw the hands.
        landmarks: also draw the face's 68 landmarks (the paper's ablation "w/lmk"; evaluation.md 1.2).

    Returns:
        (h w 3) uint8 RGB of `keypoints.size`, black where nothing is drawn.
    """
    widths = stroke_widths(keypoints.size)
    canvas = _Canvas(keypoints.size)
    body = keypoints.body[index].astype(np.float64)
    xy, seen = body[:, :2], body[:, 2] > 0
    for (start, end), colour in zip(LIMBS, LIMB_COLOURS, strict=True):
        if seen[start] and seen[end]:
            canvas.ellipse(xy[start], xy[end], widths.limb, colour)
    for joint, colour in zip(JOINTS, JOINT_COLOURS, strict=True):
        if seen[joint]:
            canvas.disc(xy[joint], widths.joint, colour)
    if hands:
        for hand in (keypoints.left_hand[index], keypoints.right_hand[index]):
            _draw_hand(canvas, hand.astype(np.float64), widths)
    if landmarks:
        for x, y, score in keypoints.face[index].astype(np.float64):
            if score > 0:
                canvas.disc(np.array((x, y)), widths.landmark, LANDMARK_COLOUR)
    return np.rint(canvas.pixels).clip(0, 255).astype(np.uint8)


def _draw_hand(canvas: _Canvas, hand: np.ndarray, widths: StrokeWidths) -> None:
    xy, seen = hand[:, :2], hand[:, 2] > 0
    for (start, end), colour in zip(HAND_EDGES, HAND_EDGE_COLOURS, strict=True):
        if seen[start] and seen[end]:
            canvas.capsule(xy[start], xy[end], widths.hand_edge, colour)
    for point in range(len(hand)):
        if seen[point]:
            canvas.disc(xy[point], widths.hand_point, HAND_POINT_COLOUR)
