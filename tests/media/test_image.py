from __future__ import annotations

import logging
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.media.moving import psnr
from xdyna.errors import InputError, OutputError
from xdyna.media import crop_to, read_image, write_image
from xdyna.media import image as image_module
from xdyna.media.provenance import DIGITAL_SOURCE_TYPE

SHARED = Path(os.environ.get("XDYNA_SHARED", Path(__file__).parents[3] / "shared"))


@pytest.fixture
def picture() -> np.ndarray:
    y, x = np.mgrid[:40, :60]
    return np.stack([4 * x, 6 * y, 3 * x + y], axis=-1).astype(np.uint8)


def png_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of the given chunks, for files that PIL would not write."""
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return data


def message(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_image(path)
    return str(caught.value)


class TestGoodPictures:
    def test_png_is_exact(self, tmp_path: Path, picture: np.ndarray) -> None:
        Image.fromarray(picture).save(tmp_path / "a.png")
        read = read_image(tmp_path / "a.png")
        assert read.dtype == np.uint8
        assert np.array_equal(read, picture)
        read[:] = 0  # the caller owns the array

    @pytest.mark.parametrize("suffix", ["jpg", "webp", "bmp", "tiff"])
    def test_other_kinds(self, tmp_path: Path, picture: np.ndarray, suffix: str) -> None:
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(picture).save(path)
        assert psnr(read_image(path), picture) > 25

    def test_gray_and_palette_become_rgb(self, tmp_path: Path, picture: np.ndarray) -> None:
        Image.fromarray(picture[..., 0]).save(tmp_path / "gray.png")
        gray = read_image(tmp_path / "gray.png")
        assert np.array_equal(gray, np.repeat(picture[..., :1], 3, axis=2))
        Image.fromarray(picture).quantize(256).save(tmp_path / "palette.png")
        assert psnr(read_image(tmp_path / "palette.png"), picture) > 25
        Image.fromarray(picture[..., 0] > 100).save(tmp_path / "bits.png")
        assert set(np.unique(read_image(tmp_path / "bits.png"))) == {0, 255}

    def test_alpha_lies_over_white(self, tmp_path: Path, picture: np.ndarray) -> None:
        alpha = np.full(picture.shape[:2], 255, np.uint8)
        alpha[:, :20], alpha[:, 20:40] = 0, 128
        Image.fromarray(np.dstack([picture, alpha])).save(tmp_path / "a.png")
        read = read_image(tmp_path / "a.png")
        assert (read[:, :20] == 255).all()
        assert np.array_equal(read[:, 40:], picture[:, 40:])
        half = picture[:, 20:40] * (128 / 255) + 255 * (127 / 255)
        assert np.abs(read[:, 20:40] - half).max() <= 0.5 + 1e-6

    def test_gray_with_alpha_and_transparent_palette(self, tmp_path: Path) -> None:
        gray = np.zeros((20, 20, 2), np.uint8)
        gray[:10, :, 1] = 255
        Image.fromarray(gray, "LA").save(tmp_path / "la.png")
        assert (read_image(tmp_path / "la.png")[:10] == 0).all()
        assert (read_image(tmp_path / "la.png")[10:] == 255).all()
        palette = Image.new("P", (20, 20), 1)
        palette.putpalette([0, 0, 0, 200, 10, 10])
        palette.paste(0, (0, 0, 20, 10))
        palette.save(tmp_path / "p.png", transparency=0)
        read = read_image(tmp_path / "p.png")
        assert (read[:10] == 255).all()
        assert (read[10:] == (200, 10, 10)).all()

    def test_exif_rotation_is_applied(self, tmp_path: Path, picture: np.ndarray) -> None:
        # Orientation 6: the camera was held so that the picture must turn clockwise to stand upright.
        turned = Image.fromarray(np.ascontiguousarray(np.rot90(picture)))
        exif = Image.Exif()
        exif[0x0112] = 6
        turned.save(tmp_path / "a.png", exif=exif)
        assert np.array_equal(read_image(tmp_path / "a.png"), picture)

    def test_16_bit_gray(self, tmp_path: Path) -> None:
        values = np.linspace(0, 65535, 40 * 40).reshape(40, 40).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / "a.png")
        read = read_image(tmp_path / "a.png")
        assert (read[..., 0].min(), read[..., 0].max()) == (0, 255)
        assert np.abs(read[..., 0] - values / 257.0).max() <= 1

    def test_16_bit_rgb(self, tmp_path: Path) -> None:
        values = np.random.default_rng(0).integers(0, 65536, (20, 24, 3), dtype=np.uint16)
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
        header = struct.pack(">IIBBBBB", 24, 20, 16, 2, 0, 0, 0)
        data = png_chunks((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
        (tmp_path / "a.png").write_bytes(data)
        assert np.abs(read_image(tmp_path / "a.png") - values / 257.0).max() <= 1

    def test_cmyk(self, tmp_path: Path) -> None:
        Image.new("RGB", (32, 32), (200, 40, 60)).convert("CMYK").save(tmp_path / "a.jpg")
        assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - (200, 40, 60)).max() <= 4

    @pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
    def test_animation_gives_its_first_frame_and_a_warning(
        self, tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / f"a.{suffix}"
        frames = [Image.new("RGB", (32, 32), colour) for colour in ((250, 0, 0), (0, 250, 0))]
        frames[0].save(path, save_all=True, append_images=frames[1:])
        with caplog.at_level(logging.WARNING):
            read = read_image(path)
        assert read[16, 16, 0] > 200
        assert "animated" in caplog.text


class TestBadPictures:
    def test_missing(self, tmp_path: Path) -> None:
        assert message(tmp_path / "no.png").endswith("no.png: no such file. Check the path.")

    def test_folder(self, tmp_path: Path) -> None:
        assert "is a folder, not a picture" in message(tmp_path)

    def test_empty(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").touch()
        assert "is empty (0 bytes)" in message(tmp_path / "a.png")

    def test_text(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_text("hello, I am a text")
        assert "is not a picture of a kind we can read" in message(tmp_path / "a.png")

    def test_postscript_starts_no_interpreter(self, tmp_path: Path) -> None:
        (tmp_path / "a.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n%%EndComments\n")
        assert "is not a picture of a kind we can read" in message(tmp_path / "a.eps")

    def test_video(self, tmp_path: Path) -> None:
        (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(100))
        assert "looks like a video, not a picture" in message(tmp_path / "a.mp4")

    @pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff", "bmp"])
    @pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
    def test_truncated(self, tmp_path: Path, suffix: str, part: float) -> None:
        path = tmp_path / f"a.{suffix}"
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * part)])
        # A file cut in its header may not be recognised at all.
        said = message(path)
        assert "is damaged or cut short" in said or "is not a picture of a kind" in said

    def test_damaged_header(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
        assert "a.png: is" in message(tmp_path / "a.png")

    def test_one_pixel(self, tmp_path: Path) -> None:
        Image.new("RGB", (1, 1)).save(tmp_path / "a.png")
        assert "is 1 x 1 pixels (width x height); each side must have 16 or more" in message(
            tmp_path / "a.png"
        )

    def test_thin(self, tmp_path: Path) -> None:
        Image.new("RGB", (500, 2)).save(tmp_path / "a.png")
        assert "is 500 x 2 pixels" in message(tmp_path / "a.png")

    @pytest.mark.parametrize("side", [9_500, 30_000])
    def test_decompression_bomb_is_refused_before_decoding(self, tmp_path: Path, side: int) -> None:
        # The header says huge, and there is no pixel data at all: reading it would be an error of another kind.
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        (tmp_path / "a.png").write_bytes(png_chunks((b"IHDR", header), (b"IDAT", b""), (b"IEND", b"")))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert "is too large" in message(tmp_path / "a.png")
        assert f"at most {image_module.MAX_PIXELS // 10**6} million" in message(tmp_path / "a.png")

    def test_floats(self, tmp_path: Path) -> None:
        Image.fromarray(np.ones((20, 20), np.float32)).save(tmp_path / "a.tiff")
        assert "has floating-point values" in message(tmp_path / "a.tiff")


class TestCrop:
    def test_official_fixture(self) -> None:
        path = SHARED / "reference" / "parity" / "xiv_reference_crop.safetensors"
        if not path.exists():
            pytest.skip(f"no parity fixtures at {path.parent}; set XDYNA_SHARED")
        from safetensors.numpy import load_file

        tensors = load_file(path)
        cases = sorted(name[3:] for name in tensors if name.startswith("in_"))
        assert len(cases) == 4
        for case in cases:
            wanted = tensors[f"out_{case}"]
            assert np.array_equal(crop_to(tensors[f"in_{case}"], wanted.shape[:2]), wanted)

    def test_middle_is_kept(self) -> None:
        image = np.zeros((40, 100, 3), np.uint8)
        image[:, 30:70] = 200
        assert (crop_to(image, (20, 20)) == 200).all()

    def test_same_size_is_a_copy(self, picture: np.ndarray) -> None:
        same = crop_to(picture, (40, 60))
        assert np.array_equal(same, picture)
        assert not np.shares_memory(same, picture)

    def test_extreme_aspects(self) -> None:
        assert crop_to(np.zeros((3, 900, 3), np.uint8), (640, 16)).shape == (640, 16, 3)
        assert crop_to(np.zeros((900, 3, 3), np.uint8), (16, 640)).shape == (16, 640, 3)


class TestWriting:
    def test_round_trip_and_marks(self, tmp_path: Path, picture: np.ndarray) -> None:
        path = write_image(tmp_path / "new" / "a.png", picture, metadata={"seed": 7})
        assert np.array_equal(read_image(path), picture)
        with Image.open(path) as written:
            text = written.text
        assert DIGITAL_SOURCE_TYPE in text["XML:com.adobe.xmp"]
        assert '"seed": 7' in text["Comment"]
        assert "AI-generated" in text["Title"]
        assert [entry.name for entry in path.parent.iterdir()] == ["a.png"]

    def test_marks_can_be_left_out(self, tmp_path: Path, picture: np.ndarray) -> None:
        path = write_image(tmp_path / "a.png", picture, ai_generated=False)
        assert b"xdyna" not in path.read_bytes()

    def test_other_suffix(self, tmp_path: Path, picture: np.ndarray) -> None:
        with pytest.raises(OutputError, match=r"written as \.png, not \.bmp"):
            write_image(tmp_path / "a.bmp", picture)

    def test_existing(self, tmp_path: Path, picture: np.ndarray) -> None:
        path = write_image(tmp_path / "a.png", picture)
        with pytest.raises(OutputError, match="exists already"):
            write_image(path, picture, overwrite=False)

    def test_not_a_picture(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="uint8"):
            write_image(tmp_path / "a.png", np.zeros((4, 4, 3), np.float32))
        assert not list(tmp_path.iterdir())
