"""Who supplies the faces of S-Face patches in training: the built-in re-enactor and the fallback."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from xdyna.conditions.face import clipped_box, increased_box
from xdyna.data.reenact.expression import transfer
from xdyna.data.reenact.gallery import Gallery
from xdyna.data.reenact.gaze import gaze_offsets
from xdyna.data.reenact.geometry import read_faces
from xdyna.data.reenact.warp import FaceWarper, Inside, skin_colour
from xdyna.errors import OptionError

log = logging.getLogger(__name__)

_LARGEST_GAZE = 0.3
_VERTICAL_GAZE = 0.6
"""The pixels' word on how far up or down eyes look counts only so much: lids hide a part of the iris."""

_MARGIN = 0.12
"""How much farther than the face's box is painted, in sides of that box: smoothed boxes are larger at times."""


@dataclass(frozen=True)
class ReenactOptions:
    """How the built-in re-enactor works.

    Attributes:
        lasting: share of a clip's lasting smile and lifted brows that counts as expression and not as proportions:
            0 is purely relative to the clip, 1 is absolute.
        mouth: what fills the mouth of a source whose own is shut: "borrowed" from the target, its colours
            adjusted, or "painted".
        gaze: whether eyeballs turn as the target's do, as far as pixels tell.
        size: the face becomes up to exp(size) times larger or smaller.
        shift: standard deviation of its place, in half distances of the eyes' outer corners.
        gain, gamma: standard deviation of each channel's gain, largest logarithm of the gamma.
        blur: largest blur, as a share of the side of the box round the 68 landmarks.
        background: share of the clips that get a drawn background, of people whose mask is known.
    """

    lasting: float = 0.5
    mouth: Literal["borrowed", "painted"] = "borrowed"
    gaze: bool = True
    size: float = 0.12
    shift: float = 0.15
    gain: float = 0.12
    gamma: float = 0.25
    blur: float = 0.012
    background: float = 0.7

    def __post_init__(self) -> None:
        if self.mouth not in ("borrowed", "painted"):
            raise OptionError("reenact.mouth", f"{self.mouth!r} is not one of borrowed, painted")
        for name in ("lasting", "background"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(f"reenact.{name}", f"must be in [0, 1], got {getattr(self, name)}")
        for name in ("size", "shift", "gain", "gamma", "blur"):
            if getattr(self, name) < 0:
                raise OptionError(f"reenact.{name}", f"must be 0 or more, got {getattr(self, name)}")


STILL_LIFE = ReenactOptions(size=0, shift=0, gain=0, gamma=0, blur=0, background=0)
"""Without any augmentation: what is seen is the source's."""


class Reenactor:
    """Another person's picture, warped by landmarks to the target's expression and head pose.

    Args:
        gallery: the people to choose from.
        options: see there.
    """

    def __init__(self, gallery: Gallery, options: ReenactOptions = ReenactOptions()) -> None:
        if not len(gallery):
            raise OptionError("face gallery", "is empty", "Give pictures of other people's faces")
        self.gallery, self.options = gallery, options

    def without(self, names: Collection[str]) -> Reenactor:
        """The same without some people: those in the clip, when the gallery was made from the clips.

        Raises:
            OptionError: nobody is left.
        """
        return Reenactor(self.gallery.without(names), self.options)

    def __call__(
        self,
        frames: np.ndarray,
        landmarks: np.ndarray,
        *,
        generator: np.random.Generator,
        irises: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `FaceSource`.

        A frame without landmarks shows the face of the frame before, with score 0. Frames with some of the points
        get the others from the nearest complete frame.

        Args:
            frames, landmarks, generator: see `FaceSource`.
            irises: (f 2 3) x, y, score of the irises, the eye on the picture's left first, where they are known;
                otherwise the pixels are asked.
        """
        pictures = np.zeros_like(frames)
        found = np.zeros((len(frames), 68, 3), np.float32)
        complete, seen = _completed(landmarks)
        if not seen.any():
            return pictures, found
        places = np.flatnonzero(seen)
        reading = read_faces(complete[places])
        face = self.gallery.draw(generator, yaw=float(np.median(reading.pose.yaw)))
        look = _Look(self.options, generator, frames.shape[1:3])
        drawn = face.mask is not None and generator.uniform() < self.options.background
        warper = FaceWarper(face.picture, face.landmarks, mask=face.mask if drawn else None)
        points = transfer(reading, warper.points, lasting=self.options.lasting)
        pose = reading.pose.moved(size=look.size, shift=look.shift)
        gaze = self._gaze(frames, complete, places, irises=irises, warper=warper)
        middle = places[len(places) // 2]
        gain = np.clip(warper.skin / np.maximum(skin_colour(frames[middle], complete[middle]), 8), 0.4, 1.8)
        base = look.background() if drawn else look.plain(warper.skin)
        last = base
        for index in range(len(frames)):
            if seen[index]:
                row = int(np.searchsorted(places, index))
                xy = pose[row].project(points[row])[0]
                found[index, :, :2], found[index, :, 2] = xy, 1
                inside = Inside(
                    frames[index] if self.options.mouth == "borrowed" else None, complete[index], gain
                )
                last = base.copy()
                box = _painted_box(xy, frames.shape[1:3])
                if box[2] > box[0] and box[3] > box[1]:
                    part, alpha = warper.paint(points[row], pose[row], box=box, inside=inside, gaze=gaze[row])
                    where = last[box[1] : box[3], box[0] : box[2]]
                    if alpha is not None:
                        part = part * alpha[..., None] + where * (1 - alpha[..., None])
                    where[:] = look.film(part, side=float(np.ptp(xy, axis=0).max()))
            pictures[index] = last
        return pictures, found

    def _gaze(
        self, frames: np.ndarray, landmarks: np.ndarray, places: np.ndarray,
        *, irises: np.ndarray | None, warper: FaceWarper,
    ) -> np.ndarray:  # fmt: skip
        """(n 2 2): how far the source's eyeballs move in each of the frames `places`, in widths of the eye."""
        out = np.zeros((len(places), 2, 2))
        if not self.options.gaze:
            return out
        told = np.stack(
            [gaze_offsets(frames[i], landmarks[i], None if irises is None else irises[i]) for i in places]
        )
        own = gaze_offsets(warper.picture, warper.landmarks)
        # Both eyes look the same way; one that is hidden or shut says nothing.
        here = (told[..., :2] * told[..., 2:]).sum(1) / np.maximum(told[..., 2].sum(1), 1)[:, None]
        there = (own[:, :2] * own[:, 2:]).sum(0) / max(own[:, 2].sum(), 1)
        known = told[..., 2].any(1)
        if not known.any() or not own[:, 2].any():
            return out
        for axis, share in ((0, 1.0), (1, _VERTICAL_GAZE)):
            path = np.interp(places, places[known], here[known, axis])
            path = np.convolve(np.pad(path, 1, mode="edge"), (0.25, 0.5, 0.25), mode="valid")
            moved = share * (path - there[axis])
            out[..., axis] = np.clip(moved, -_LARGEST_GAZE, _LARGEST_GAZE)[:, None]
        return out


class SameFace:
    """The target's own face: for when there is nobody else. Identity can leak, and the log says so once."""

    def __init__(self) -> None:
        self._warned = False

    def __call__(
        self, frames: np.ndarray, landmarks: np.ndarray, *, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `FaceSource`: the frames and landmarks as they are."""
        if not self._warned:
            log.warning(
                "The face patches show the target's own face, so the network can copy who it is from them instead "
                "of from the reference. Use a re-enacted face (docs/concepts/faces.md)."
            )
            self._warned = True
        return frames, np.asarray(landmarks, np.float32)


class _Look:
    """How one clip's pictures differ from the source's: drawn once, so that a clip does not flicker."""

    def __init__(
        self, options: ReenactOptions, generator: np.random.Generator, size: tuple[int, ...]
    ) -> None:
        self._frame = (size[0], size[1])
        self.size = float(np.exp(generator.uniform(-options.size, options.size)))
        self.shift = options.shift * np.clip(generator.normal(size=2), -2, 2)
        gain = 1 + options.gain * np.clip(generator.normal(size=3), -2, 2)
        gain = gain + options.gain * generator.uniform(-1, 1)
        gamma = np.exp(options.gamma * generator.uniform(-1, 1))
        self._blur = options.blur * max(generator.uniform(-1, 1), 0)
        levels = np.arange(256) / 255
        table = np.clip(levels[:, None] * np.maximum(gain, 0.1), 0, 1) ** gamma
        self._table = (table * 255 + 0.5).astype(np.uint8)[:, None]
        self._colours = generator.uniform(10, 245, (2, 3))
        self._grain = generator.normal(size=(12, 12, 1)) * generator.uniform(0, 35)

    def background(self) -> np.ndarray:
        """(h w 3) uint8: two colours flowing into each other, and soft blotches."""
        height, width = self._frame
        slope = np.linspace(0, 1, height)[:, None, None]
        blotches = cv2.resize(self._grain, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
        picture = self._colours[0] * (1 - slope) + self._colours[1] * slope + blotches
        return np.clip(picture, 0, 255).astype(np.uint8)

    def plain(self, colour: np.ndarray) -> np.ndarray:
        """(h w 3) uint8 of a darker shade of a colour: it lies farther from the face than any crop reaches."""
        picture = np.empty((*self._frame, 3), np.uint8)
        picture[:] = np.clip(colour * 0.5, 0, 255)
        return picture

    def film(self, picture: np.ndarray, *, side: float) -> np.ndarray:
        """Blur, gain and gamma of a part (h w 3); `side` is that of the box round the landmarks, in pixels."""
        picture = np.clip(picture, 0, 255).astype(np.uint8)
        if self._blur * side > 0.2:
            picture = cv2.GaussianBlur(picture, (0, 0), self._blur * side)
        return cv2.LUT(picture, self._table.transpose(1, 0, 2))


def _painted_box(landmarks: np.ndarray, size: tuple[int, ...]) -> tuple[int, int, int, int]:
    box = increased_box((*landmarks.min(0), *landmarks.max(0)))
    margin = round(_MARGIN * (box[2] - box[0]))
    return clipped_box(
        (box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin), (size[0], size[1])
    )


def _completed(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(f 68 2) landmarks, missing points laid in from the nearest complete frame, and (f) where that worked."""
    xy = np.asarray(landmarks, np.float64)[..., :2].copy()
    there = (landmarks[..., 2] > 0) & np.isfinite(xy).all(-1)
    whole = np.flatnonzero(there.all(1))
    seen = there.sum(1) >= 34
    if not len(whole):
        return xy, np.zeros(len(xy), bool)
    for index in np.flatnonzero(seen & ~there.all(1)):
        model = xy[whole[np.abs(whole - index).argmin()]]
        known = there[index]
        matrix, _ = cv2.estimateAffinePartial2D(model[known], xy[index, known], method=cv2.LMEDS)
        if matrix is None:
            seen[index] = False
            continue
        xy[index, ~known] = model[~known] @ matrix[:, :2].T + matrix[:, 2]
    return xy, seen
