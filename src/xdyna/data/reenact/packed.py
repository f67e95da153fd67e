"""Pictures kept small inside of .npz files: JPEG or PNG bytes in a row, and where each begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np

from xdyna.errors import InputError


def pack(
    pictures: Sequence[np.ndarray], kind: Literal["jpg", "png"], *, quality: int = 92
) -> dict[str, np.ndarray]:
    """`data` (n) uint8 and `ends` (k) int64 of k pictures (h w 3) or (h w) uint8, sizes may differ.

    Args:
        pictures: RGB or gray.
        kind: "jpg" loses a little, "png" nothing.
        quality: of JPEG, 0-100.
    """
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality] if kind == "jpg" else []
    coded = []
    for picture in pictures:
        ordered = np.ascontiguousarray(picture[..., ::-1]) if picture.ndim == 3 else picture
        coded.append(cv2.imencode(f".{kind}", ordered, settings)[1])
    data = np.concatenate([code.ravel() for code in coded]) if coded else np.zeros(0, np.uint8)
    return {"data": data, "ends": np.cumsum([code.size for code in coded]).astype(np.int64)}


class Packed:
    """What `pack` made, decoded one picture at a time.

    Args:
        data, ends: of `pack`.
        source: the file's name, for the message about a damaged one.
    """

    def __init__(self, data: np.ndarray, ends: np.ndarray, *, source: str) -> None:
        self._data, self._ends, self._source = data, ends, source

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> np.ndarray:
        """The picture, (h w 3) uint8 RGB or (h w) as it was packed.

        Raises:
            InputError: the bytes are no picture.
        """
        begin = int(self._ends[index - 1]) if index else 0
        code = self._data[begin : int(self._ends[index])]
        picture = cv2.imdecode(code, cv2.IMREAD_UNCHANGED) if len(code) else None
        if picture is None:
            raise InputError(
                self._source, f"picture {index} in it is damaged", "Delete the file and make it again"
            )
        return np.ascontiguousarray(picture[..., ::-1]) if picture.ndim == 3 else picture
