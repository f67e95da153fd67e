"""One face's picture, painted with another shape and pose."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from xdyna.data.reenact.expression import at_rest, lid_gaps, mouth_gap
from xdyna.data.reenact.geometry import MIRRORED, HeadPose, read_faces
from xdyna.data.reenact.mesh import (
    affine_maps,
    head_points,
    hidden_side,
    mesh_points,
    seen_corners,
    triangles,
    visible,
)

_EYES = (slice(36, 42), slice(42, 48))
_MOUTH = slice(60, 68)
_CHEEKS = [2, 29, 14, 33]
_OWN_MOUTH = 0.10
"""A source whose lips are parted by this share of its mouth's width shows its own mouth from inside."""

_FINE = 110.0
"""Faces smaller than this, in pixels, are painted larger and averaged down."""

_SHIFT = 5
"""Binary places of the coordinates given to OpenCV's polygons."""


@dataclass(frozen=True)
class Inside:
    """What fills the mouth where the source's is shut.

    Attributes:
        frame: (h w 3) uint8, the target's frame, to borrow its mouth; None paints one.
        landmarks: (68 2) of that frame.
        gain: (3) by how much the source's skin is lighter than the target's.
    """

    frame: np.ndarray | None
    landmarks: np.ndarray
    gain: np.ndarray


class FaceWarper:
    """A source face, ready to be painted in any shape and pose.

    Args:
        picture: (h w 3) uint8.
        landmarks: (68 2 or 3) pixels.
        mask: (h w) uint8, 255 on the person, or None.

    Attributes:
        points: (68 3) the face with the pose taken out.
        skin: (3) colour of the cheeks.
    """

    def __init__(self, picture: np.ndarray, landmarks: np.ndarray, *, mask: np.ndarray | None = None) -> None:
        self.picture, self.mask = np.ascontiguousarray(picture), mask
        self.landmarks = np.asarray(landmarks, np.float64)[:, :2]
        reading = read_faces(self.landmarks[None])
        self.pose, self.points = reading.pose, at_rest(self.landmarks)
        self.head = head_points(self.points)
        self.mesh = mesh_points(self.landmarks, self.head, self.pose)
        self.hidden = hidden_side(self.landmarks)
        self.corners = seen_corners(self.mesh, self.hidden)
        self.skin, self.lip = skin_colour(picture, self.landmarks), self._lip_colour()
        width = np.hypot(*(self.points[64] - self.points[60])[:2])
        self.parted = float(mouth_gap(self.points)) / max(float(width), 1e-6)
        self._eyeballs = self._without_lids()

    def paint(
        self,
        points: np.ndarray,
        pose: HeadPose,
        *,
        box: tuple[int, int, int, int],
        inside: Inside,
        gaze: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The face in another shape and pose.

        Args:
            points: (68 3) the face wanted, with the pose taken out.
            pose: one frame's.
            box: left, top, right, bottom of the part of the frame to paint, whole pixels.
            inside: what fills the mouth.
            gaze: (2 2) for each eye how far the eyeball moves right and down, in widths of the eye.

        Returns:
            (h w 3) uint8 of the box's size, and the person's share of each pixel (h w) float32 or None without a mask.
        """
        left, top, right, bottom = box
        size = (bottom - top, right - left)
        landmarks = pose.project(points)[0]
        fine = int(np.clip(np.ceil(_FINE / max(float(np.ptp(landmarks, axis=0).max()), 1)), 1, 8))

        # From pixels of the frame to fine pixels' centres, and the points there.
        def to_fine(xy: np.ndarray) -> np.ndarray:
            return (xy - (left, top)) * fine - 0.5

        wanted = mesh_points(landmarks, self.head, pose)
        maps, label = self._labels(to_fine(wanted), points, pose, size=(size[0] * fine, size[1] * fine))
        where = _places(maps, label)
        picture = cv2.remap(self.picture, *where, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        for number, eye in enumerate(_EYES):
            shift = np.zeros(2) if gaze is None else gaze[number]
            self._paint_eye(picture, to_fine(landmarks), points, pose, eye=eye, shift=shift, fine=fine)
        if self.parted < _OWN_MOUTH:
            self._paint_mouth(picture, to_fine(landmarks[_MOUTH]), inside)
        alpha = None
        if self.mask is not None:
            alpha = cv2.remap(self.mask, *where, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            alpha = cv2.resize(alpha, size[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        return cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA), alpha

    def _labels(
        self, mesh: np.ndarray, points: np.ndarray, pose: HeadPose, *, size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Maps (k+1 2 3) from fine pixels to the source, and (h w) which of them a pixel follows."""
        shown = visible(mesh, points, self.head, pose)
        corners = triangles()[shown]
        maps = affine_maps(mesh[corners], self.corners[shown])
        # What lies beyond the ring follows the head without turning.
        ring = [-16, -12, -8]
        beyond = affine_maps(mesh[None, ring], self.mesh[None, ring])
        label = np.full(size, len(maps), np.uint8)  # there are 196 triangles
        polygons = np.round(mesh[corners] * 2**_SHIFT).astype(np.int32)
        for number in np.flatnonzero(np.isfinite(maps).all((1, 2))):
            cv2.fillConvexPoly(label, polygons[number], int(number), shift=_SHIFT)
        return np.concatenate([maps, beyond]), label

    def _paint_eye(
        self, picture: np.ndarray, landmarks: np.ndarray, points: np.ndarray, pose: HeadPose,
        *, eye: slice, shift: np.ndarray, fine: int,
    ) -> None:  # fmt: skip
        """The eyeball keeps its shape; the lids uncover more or less of it."""
        outline = landmarks[eye]
        window = _window(outline, picture.shape, margin=2)
        if window is None:
            return
        (top, bottom), (left, right) = window
        pairs = slice(0, 2) if eye.start == 36 else slice(2, 4)
        usual = max(float(lid_gaps(self.points)[pairs].mean()), 1e-3)
        tall = max(1.0, float(lid_gaps(points)[pairs].mean()) / usual)
        corners = np.array([eye.start, eye.start + 3])
        if self.hidden == (-1 if eye.start == 36 else 1):
            corners = MIRRORED[corners]
        start = _axes(outline[[0, 3]], pose.rotation[0, :2, 1] * pose.scale[0] * fine * tall)
        end = _axes(self.landmarks[corners], self.pose.rotation[0, :2, 1] * self.pose.scale[0])
        if abs(np.linalg.det(start[:, :2])) < 1e-3:
            return
        turn = end[:, :2] @ np.linalg.inv(start[:, :2])
        # The eyeball moves one way, so what is seen comes from the other side.
        moved = end[:, 2] - turn @ start[:, 2] - 0.5 - end[:, 0] * shift[0] - _down(end) * shift[1]
        x, y = np.meshgrid(np.arange(left, right, dtype=np.float32), np.arange(top, bottom, dtype=np.float32))
        where = [(turn[i, 0] * x + turn[i, 1] * y + moved[i]).astype(np.float32) for i in range(2)]
        ball = cv2.remap(self._eyeballs, *where, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        share = _polygon(outline - (left, top), ball.shape[:2], soft=0.7)[..., None]
        part = picture[top:bottom, left:right]
        part[:] = (part * (1 - share) + ball * share + 0.5).astype(np.uint8)

    def _paint_mouth(self, picture: np.ndarray, outline: np.ndarray, inside: Inside) -> None:
        """A shut mouth has no inside: it is borrowed from the target, or painted."""
        gap = _gap(outline)
        window = _window(outline, picture.shape, margin=3)
        if gap < 1 or window is None:
            return
        (top, bottom), (left, right) = window
        place = outline - (left, top)
        size = (bottom - top, right - left)
        fill = self._borrowed(place, size, inside)
        fill = self._painted(place, size) if fill is None else fill
        share = _polygon(place, size, soft=max(0.7, 0.08 * gap))[..., None]
        part = picture[top:bottom, left:right]
        part[:] = (part * (1 - share) + fill * share + 0.5).astype(np.uint8)

    def _borrowed(self, place: np.ndarray, size: tuple[int, int], inside: Inside) -> np.ndarray | None:
        theirs = inside.landmarks[_MOUTH]
        if inside.frame is None or _gap(theirs) < 1.5:
            return None
        # A little less than the whole, so that no lip of the target comes along.
        middle = place.mean(0)
        ours = np.column_stack([middle + (place - middle) * 1.12, np.ones(8)])
        turn, *_ = np.linalg.lstsq(ours, theirs - 0.5, rcond=None)
        x, y = np.meshgrid(np.arange(size[1]), np.arange(size[0]))
        where = np.stack([x, y, np.ones_like(x)], -1) @ turn
        found = cv2.remap(
            inside.frame, where[..., 0].astype(np.float32), where[..., 1].astype(np.float32),
            cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        return np.clip(found * inside.gain, 0, 255)

    def _painted(self, place: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Dark, with a tongue below and teeth above."""
        y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
        (left, right), width = (place[0], place[4]), np.hypot(*(place[4] - place[0]))
        along = (right - left) / max(width, 1e-6)
        u = ((x - left[0]) * along[0] + (y - left[1]) * along[1]) / max(width, 1e-6)
        v = (y - left[1]) * along[0] - (x - left[0]) * along[1]

        def line(points: np.ndarray) -> np.ndarray:
            across = (points - left) @ along / max(width, 1e-6)
            height = (points - left) @ np.array([-along[1], along[0]])
            return np.interp(u, across, height)

        upper, lower = line(place[[0, 1, 2, 3, 4]]), line(place[[0, 7, 6, 5, 4]])
        light = float(np.clip(self.skin.mean() / 190, 0.35, 1.15))
        out = np.empty((*size, 3))
        out[:] = self.lip * 0.22
        level = (v - upper) / np.maximum(lower - upper, 1e-3)
        tongue = np.clip(1.4 - np.hypot((u - 0.5) / 0.36, (level - 1.1) / 0.5), 0, 1)[..., None]
        out += tongue * (np.array([176, 92, 92]) * light - out)
        tooth = np.clip(0.09 * width - (v - upper), 0, 1) * np.clip(6 * np.minimum(u - 0.06, 0.94 - u), 0, 1)
        teeth = (tooth * np.clip((lower - upper) / (0.06 * width), 0, 1))[..., None]
        return out + teeth * (np.array([226, 220, 208]) * light - out)

    def _without_lids(self) -> np.ndarray:
        """The picture with what is round the eyes' openings painted over by what is in them."""
        outside = np.zeros(self.picture.shape[:2], np.uint8)
        openings = np.zeros_like(outside)
        for eye in _EYES:
            outline = self.landmarks[eye] - 0.5
            middle, width = outline.mean(0), float(np.ptp(outline[:, 0]))
            cv2.ellipse(
                outside, [int(n) for n in middle], (max(int(0.75 * width), 2), max(int(0.5 * width), 2)),
                0, 0, 360, 255, -1,
            )  # fmt: skip
            # Lashes and the lids' shadow are not eyeball.
            inner = middle + (outline - middle) * (0.92, 0.8)
            cv2.fillPoly(openings, [np.round(inner * 2**_SHIFT).astype(np.int32)], 255, shift=_SHIFT)
        return cv2.inpaint(self.picture, cv2.subtract(outside, openings), 3, cv2.INPAINT_TELEA)

    def _lip_colour(self) -> np.ndarray:
        area = np.zeros(self.picture.shape[:2], np.uint8)
        cv2.fillPoly(area, [np.round(self.landmarks[[48, *range(54, 60)]]).astype(np.int32)], 1)
        return self.picture[area > 0].mean(0) if area.any() else self.skin * (0.85, 0.6, 0.6)


def skin_colour(picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """(3): median colour of the cheeks and the nose, 0-255."""
    outline = np.round(np.asarray(landmarks)[_CHEEKS, :2]).astype(np.int32)
    area = np.zeros(picture.shape[:2], np.uint8)
    cv2.fillConvexPoly(area, cv2.convexHull(outline), 1)
    found = picture[area > 0]
    return np.median(found, axis=0) if len(found) else np.full(3, 128.0)


def _places(maps: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where in the source every pixel (h w) looks, in OpenCV's coordinates; `label` is uint8."""
    table = np.zeros((256, 2, 3), np.float32)
    table[: len(maps)] = np.nan_to_num(maps)
    table[:, :, 2] -= 0.5
    y = np.arange(label.shape[0], dtype=np.float32)[:, None]
    x = np.arange(label.shape[1], dtype=np.float32)

    def along(axis: int) -> np.ndarray:
        out = cv2.LUT(label, table[:, axis, 0])
        out *= x
        out += cv2.LUT(label, table[:, axis, 2])
        down = cv2.LUT(label, table[:, axis, 1])
        down *= y
        out += down
        return out

    return along(0), along(1)


def _window(
    outline: np.ndarray, shape: tuple[int, ...], *, margin: int
) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Rows and columns round an outline inside of a picture; None where it lies outside."""
    low, high = (
        np.floor(outline.min(0)).astype(int) - margin,
        np.ceil(outline.max(0)).astype(int) + margin + 1,
    )
    top, bottom, left, right = max(low[1], 0), min(high[1], shape[0]), max(low[0], 0), min(high[0], shape[1])
    return ((top, bottom), (left, right)) if top < bottom and left < right else None


def _polygon(outline: np.ndarray, size: tuple[int, int], *, soft: float) -> np.ndarray:
    """(h w) in [0, 1], 1 inside of the outline, its edge softened by so many pixels."""
    area = np.zeros(size, np.uint8)
    points = np.round(outline * 2**_SHIFT).astype(np.int32)
    cv2.fillPoly(area, [points], 255, lineType=cv2.LINE_AA, shift=_SHIFT)
    return cv2.GaussianBlur(area, (0, 0), soft).astype(np.float32) / 255


def _gap(outline: np.ndarray) -> float:
    """How far the lips of an inner mouth (8 2) are apart in the middle, in pixels, however the head is tilted."""
    return float(np.hypot(*(outline[[7, 6, 5]] - outline[[1, 2, 3]]).T).mean())


def _axes(corners: np.ndarray, down: np.ndarray) -> np.ndarray:
    """(2 3): from an eye's own coordinates (across in eye widths, down in units of the face) to pixels."""
    return np.column_stack([corners[1] - corners[0], down, corners.mean(0)])


def _down(axes: np.ndarray) -> np.ndarray:
    """One width of the eye, downwards."""
    down = axes[:, 1] / max(float(np.hypot(*axes[:, 1])), 1e-6)
    return down * float(np.hypot(*axes[:, 0]))
