"""What lies beside a manifest: keypoints and masks of a clip, each in one small file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from xdyna.conditions.keypoints import PARTS, Keypoints
from xdyna.data.synthetic.motion import EXPRESSIONS
from xdyna.errors import InputError
from xdyna.media.files import existing_file, whole_file

_AGAIN = "Delete it and run `xdyna prepare` again"

HEAD_SHARE = 0.9
"""Half the height of a head over the distance from chin to brows. Faces are taken to be of thirds (chin to nose,
nose to brows, brows to hair), with a little more than half a third of hair above."""


@dataclass(frozen=True)
class Track:
    """The person of a clip.

    Attributes:
        keypoints: one frame for each of the clip's.
        head: (f 3) float32, the head's middle (x, y) and half its height in pixels; 0 where unknown.
        expression: (f 8) float32, the values named by `synthetic.EXPRESSIONS`; None where unknown, as in all
            clips that were filmed.
    """

    keypoints: Keypoints
    head: np.ndarray
    expression: np.ndarray | None = None


def write_track(
    path: Path, keypoints: Keypoints, *, head: np.ndarray | None = None, expression: np.ndarray | None = None
) -> None:
    """Write keypoints, and exact head and expression where they are known, as a compressed .npz.

    `Keypoints.load` reads it, too.
    """
    arrays: dict[str, Any] = {name: getattr(keypoints, name) for name in PARTS}
    arrays |= {"size": np.array(keypoints.size), "head": head, "expression": expression}
    with whole_file(path, overwrite=True) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **{name: value for name, value in arrays.items() if value is not None})


def read_track(path: Path, frames: int) -> Track:
    """Read what `write_track` wrote; a head that was not written is told from face or body.

    Args:
        path: the .npz.
        frames: how many the clip has.

    Raises:
        InputError: missing, no keypoints file, or of another number of frames.
    """
    keypoints = Keypoints.load(path)
    if len(keypoints) != frames:
        raise InputError(path, f"holds keypoints of {len(keypoints)} frames, the clip has {frames}", _AGAIN)
    with np.load(path, allow_pickle=False) as data:
        head = data["head"] if "head" in data else head_discs(keypoints)
        expression = data.get("expression")
    if head.shape != (frames, 3) or (
        expression is not None and expression.shape != (frames, len(EXPRESSIONS))
    ):
        raise InputError(path, "its head or expression does not fit its keypoints", _AGAIN)
    return Track(keypoints, head, expression)


def head_discs(keypoints: Keypoints) -> np.ndarray:
    """(f 3) float32: the head's middle (x, y) and half its height in pixels; 0 where it cannot be told.

    From the chin and the brows of the face; where no face was found, from nose and neck when an eye or ear is
    seen, too.
    """
    heads = np.zeros((len(keypoints), 3), np.float32)
    face, body = keypoints.face.astype(np.float64), keypoints.body.astype(np.float64)
    brows = face[:, 17:27]
    from_face = (face[:, 8, 2] > 0) & (brows[..., 2] > 0).all(1)
    up = brows[..., :2].mean(1) - face[:, 8, :2]
    half = HEAD_SHARE * np.linalg.norm(up, axis=1)
    middle = face[:, 8, :2] + HEAD_SHARE * up
    nose, neck = body[:, 0], body[:, 1]
    from_body = (nose[:, 2] > 0) & (neck[:, 2] > 0) & (body[:, 14:, 2] > 0).any(1) & ~from_face
    rise = nose[:, :2] - neck[:, :2]
    # Measured on people standing before the camera; the neck is the middle of the shoulders.
    middle = np.where(from_face[:, None], middle, nose[:, :2] + 0.25 * rise)
    half = np.where(from_face, half, 0.65 * np.linalg.norm(rise, axis=1))
    known = from_face | from_body
    heads[known, :2], heads[known, 2] = middle[known], half[known]
    return heads


class MaskFile:
    """The masks of a clip: a PNG each (one bit a pixel where they have no in-between values), in one .npz.

    Args:
        path: written by `write_masks`.

    Raises:
        InputError: missing, or not such a file.
    """

    def __init__(self, path: Path) -> None:
        self._path = existing_file(path, "a mask file")
        try:
            with np.load(path, allow_pickle=False) as data:
                self._bytes, self._offsets = data["png"], data["offsets"]
                height, width = (int(side) for side in data["size"])
        except Exception as error:
            raise InputError(path, f"is not a mask file of ours ({error})", _AGAIN) from error
        self.size = (height, width)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Masks (f h w) uint8, 255 on the person."""
        masks = np.empty((len(indices), *self.size), np.uint8)
        for place, index in enumerate(indices):
            png = self._bytes[self._offsets[index] : self._offsets[index + 1]]
            mask = cv2.imdecode(png, cv2.IMREAD_GRAYSCALE)
            if mask is None or mask.shape != self.size:
                raise InputError(self._path, f"mask {index} is damaged", _AGAIN)
            masks[place] = mask
        return masks


def pack_mask(mask: np.ndarray) -> bytes:
    """A mask (h w) uint8 as PNG, without loss."""
    bilevel = bool(((mask == 0) | (mask == 255)).all())
    # OpenCV's own choice of strategy suits photos: it takes twice the bytes.
    parameters = [cv2.IMWRITE_PNG_BILEVEL, int(bilevel), cv2.IMWRITE_PNG_COMPRESSION, 9 if bilevel else 6]
    parameters += [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT]
    return cv2.imencode(".png", mask, parameters)[1].tobytes()


def write_masks(path: Path, packed: Sequence[bytes], *, size: tuple[int, int]) -> None:
    """Write masks packed by `pack_mask`, all of `size`, for `MaskFile`."""
    offsets = np.cumsum([0, *(len(png) for png in packed)])
    with whole_file(path, overwrite=True) as temporary, open(temporary, "wb") as file:
        np.savez(file, png=np.frombuffer(b"".join(packed), np.uint8), offsets=offsets, size=np.array(size))
