"""Pictures: reading whatever people have, cropping as the official code does, writing PNG."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from xdyna.errors import InputError, OutputError
from xdyna.media import provenance
from xdyna.media.files import existing_file, whole_file

log = logging.getLogger(__name__)

MAX_PIXELS = 80_000_000
"""Pictures with more pixels than this are refused before they are decoded."""

MIN_SIDE = 16
"""Pictures with a side shorter than this show nobody."""

# Formats that decode without outside programs: PIL would start Ghostscript for an .eps.
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "TGA", "ICO")
_VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv")
_TO_PICTURE = "Give a PNG, JPEG or WebP picture"


def read_image(path: str | Path) -> np.ndarray:
    """Read a picture as people see it.

    The EXIF rotation is applied; transparent parts lie over white; palettes, gray and CMYK become RGB; of 16
    bits a channel the upper 8 are kept; of an animation the first frame is taken, with a warning in the log.
    Colour profiles are not applied (nor does the official code).

    Args:
        path: PNG, JPEG, WebP, AVIF, GIF, BMP, TIFF, JPEG 2000, PPM, TGA or ICO.

    Returns:
        (h w 3) uint8, RGB.

    Raises:
        InputError: missing, a folder, empty, not a picture, truncated, with a side below 16 pixels, with more
            than 80 million pixels, or with floating-point values.
    """
    path = existing_file(path, "a picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
            image = Image.open(path, formats=_readable_formats())
    except Image.DecompressionBombError:
        raise _too_large(path, "") from None
    except UnidentifiedImageError:
        if path.suffix.lower() in _VIDEO_SUFFIXES:
            remedy = f"{_TO_PICTURE}; the driving video is the other argument"
            raise InputError(path, "looks like a video, not a picture", remedy) from None
        raise InputError(path, "is not a picture of a kind we can read", _TO_PICTURE) from None
    except Exception as error:  # PIL's header parsers raise many kinds on damaged files
        raise _damaged(path, error) from error
    with image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise _too_large(path, f"{width} x {height} pixels, ")
        if min(width, height) < MIN_SIDE:
            problem = f"is {width} x {height} pixels (width x height); each side must have {MIN_SIDE} or more"
            raise InputError(path, problem, "Give a larger picture")
        if getattr(image, "is_animated", False) and image.format in ("GIF", "PNG", "WEBP", "AVIF"):
            log.warning("%s: is animated; its first frame is used.", path)
        try:
            image.load()
            # A copy of the pixels, so that nothing depends on the open file.
            upright = ImageOps.exif_transpose(image)
            return _to_rgb(upright, path)
        except InputError:
            raise
        except Exception as error:
            raise _damaged(path, error) from error


def _readable_formats() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _to_rgb(image: Image.Image, path: Path) -> np.ndarray:
    if image.mode.startswith("I;16"):
        gray = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        kind = "32-bit" if image.mode == "I" else "floating-point"
        raise InputError(
            path, f"has {kind} values, whose white is unknown", "Save it with 8 or 16 bits a channel"
        )
    if image.has_transparency_data:
        pixels = np.asarray(image.convert("RGBA"))
        alpha = pixels[..., 3:].astype(np.uint16)
        over_white = pixels[..., :3] * alpha + 255 * (255 - alpha)
        return ((over_white + 127) // 255).astype(np.uint8)
    return np.array(image.convert("RGB"))


def _too_large(path: Path, size: str) -> InputError:
    problem = f"is too large ({size}at most {MAX_PIXELS // 1_000_000} million pixels are read)"
    return InputError(path, problem, "Make the picture smaller first")


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(path, f"is damaged or cut short ({error})", "Download or export it again")


def middle_box(image_size: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The middle of a picture that has another's aspect, sides rounded down as the official code does.

    Args:
        image_size: (height, width, ...) of the picture.
        size: (height, width) whose aspect is wanted.

    Returns:
        left, top, width, height in pixels of the picture.
    """
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"size must be positive, got {size}")
    image_height, image_width = image_size[:2]
    if image_width / image_height > width / height:
        cut_height, cut_width = image_height, int(image_height / height * width)
    else:
        cut_height, cut_width = int(image_width / width * height), image_width
    # Very long thin pictures round down to nothing.
    cut_height, cut_width = max(cut_height, 1), max(cut_width, 1)
    return (image_width - cut_width) // 2, (image_height - cut_height) // 2, cut_width, cut_height


def crop_to(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cut the middle of a picture to the aspect of `size` and resize it to `size`.

    Exactly what the official code does with the reference (fixture xiv; spec.md 5): sides are rounded down,
    then OpenCV's bilinear resize without low-pass filter.

    Args:
        image: (h w 3) uint8.
        size: (height, width) wanted.

    Returns:
        (height width 3) uint8, a new array.
    """
    height, width = size
    left, top, cut_width, cut_height = middle_box(image.shape[:2], size)
    cut = np.ascontiguousarray(image[top : top + cut_height, left : left + cut_width])
    resized = cv2.resize(cut, (width, height), interpolation=cv2.INTER_LINEAR)
    return resized.copy() if resized is cut else resized


def write_image(
    path: str | Path,
    image: np.ndarray,
    *,
    overwrite: bool = True,
    ai_generated: bool = True,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write a picture as PNG.

    Args:
        path: ends with .png.
        image: (h w 3) uint8, RGB.
        overwrite: whether a file of that name may be replaced.
        ai_generated: mark the file as made by a model (text chunks and XMP); turn off for plain drawings.
        metadata: small facts for the comment, when marked.

    Returns:
        The path written.

    Raises:
        OutputError: not .png, or it cannot be written.
    """
    check_picture(image)
    path = Path(path).expanduser()
    if path.suffix.lower() != ".png":
        raise OutputError(
            path, f"pictures are written as .png, not {path.suffix or 'without a suffix'}", "Rename it"
        )
    info = PngInfo()
    if ai_generated:
        names = {"title": "Title", "description": "Description", "comment": "Comment"}
        for key, text in provenance.tags(metadata).items():
            info.add_text(names[key], text)
        info.add_text("Software", "xdyna")
        info.add_itxt("XML:com.adobe.xmp", provenance.xmp_packet())
    with whole_file(path, overwrite=overwrite) as temporary:
        Image.fromarray(image).save(temporary, format="PNG", pnginfo=info)
    return path


def check_picture(image: np.ndarray) -> None:
    """Raise ValueError unless `image` is (h w 3) uint8 with at least one pixel."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"a picture is (h w 3) uint8, got {image.shape} {image.dtype}")
