"""Foreground and background of clips, by one mask a frame.

The paper does not say how its masks entered. Here one mask, that of the true video, is laid over both videos and
what is outside of it becomes black; the background is the complement.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from xdyna.errors import InputError, OptionError

Region = Literal["all", "fg", "bg"]
REGIONS: tuple[Region, ...] = ("all", "fg", "bg")


def region_of(frames: np.ndarray, masks: np.ndarray | None, region: Region, *, fill: int = 0) -> np.ndarray:
    """A clip with everything outside a region filled.

    Args:
        frames: (f h w 3) uint8.
        masks: (f h w), the person in each frame: booleans, or uint8 where 128 and above is the person. May be
            None for "all".
        region: "all" (the frames themselves), "fg" or "bg".
        fill: grey level outside, 0..255.

    Returns:
        (f h w 3) uint8.

    Raises:
        InputError: masks are missing, of another number or size, or hold something else.
        OptionError: an unknown region, or `fill` out of range.
    """
    if region not in REGIONS:
        raise OptionError("region", f"{region!r} is unknown", f"Allowed are {', '.join(REGIONS)}")
    if not 0 <= fill <= 255:
        raise OptionError("fill", f"{fill} is not in 0..255")
    if region == "all":
        return frames
    if masks is None:
        raise InputError("masks", f"the {region} region needs one mask a frame, and there is none")
    person = check_masks(masks, frames.shape[:3])
    inside = person if region == "fg" else ~person
    return np.where(inside[..., None], frames, np.uint8(fill))


def check_masks(masks: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Masks as booleans, if they fit a clip.

    Args:
        masks: booleans or uint8 (128 and above is the person).
        shape: frames, height and width of the clip.

    Returns:
        (f h w) bool.

    Raises:
        InputError: another shape or type.
    """
    masks = np.asarray(masks)
    if masks.shape != tuple(shape):
        got, wanted = ("x".join(map(str, side)) for side in (masks.shape, shape))
        raise InputError("masks", f"they are {got}, the clip is {wanted} (frames, height, width)")
    if masks.dtype == bool:
        return masks
    if masks.dtype == np.uint8:
        return masks >= 128
    raise InputError("masks", f"they are {masks.dtype}", "Give booleans, or uint8 with 0 and 255")
