"""Sizes of images by their headers, and files that claim more than they hold or memory can take."""

from __future__ import annotations

import contextlib
import io
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from runtime.errors import InputError
from runtime.image_files import read_image
from runtime.image_header import MAX_IMAGE_PX, image_size
from tests.conftest import ROOT

SIZE = (57, 31)


def png(width: int, height: int, *, more: bytes = b"", depth: int = 8) -> bytes:
    """Return a PNG with a few rows of the size in its header; `more` are chunks in front of them."""
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), more, chunk(b"IDAT", zlib.compress(bytes(600_000))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def animation(width: int, height: int) -> bytes:
    """Return chunks that make a PNG an animation, for which OpenCV takes memory several times."""
    frame = struct.pack(">IIIIIHHBB", 0, width, height, 0, 0, 1, 1, 0, 0)
    return chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", frame)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0MM\0*"}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"big_tiff": True}),
    ],
)
def test_the_size_in_the_header(kind: str, options: dict[str, object], mode: str) -> None:
    if (kind, mode) == ("JPEG", "RGBA"):
        pytest.skip("JPEG has no alpha")
    content = io.BytesIO()
    Image.new(mode, SIZE).save(content, kind, **options)
    assert image_size(content.getvalue()) == SIZE
    for length in (0, 3, 12, 20, 27):  # a damaged header is left to the decoder, or is an error that its caller knows
        with contextlib.suppress(ValueError, IndexError):
            image_size(content.getvalue()[:length])


def test_a_bmp_whose_rows_run_downwards() -> None:
    content = bytearray(cv2.imencode(".bmp", np.zeros((31, 57, 3), np.uint8))[1].tobytes())
    content[22:26] = struct.pack("<i", -31)
    assert image_size(bytes(content)) == SIZE


@pytest.mark.parametrize("kind", [b"MM\0*", b"II*\0"])
def test_a_tiff_of_either_byte_order(kind: bytes) -> None:
    order = ">" if kind[:1] == b"M" else "<"
    entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, side) for tag, side in zip((256, 257), SIZE, strict=True))
    assert image_size(kind + struct.pack(order + "IH", 8, 2) + entries + bytes(4)) == SIZE


def test_an_unknown_format_has_no_size() -> None:
    assert image_size(b"GIF89a" + bytes(100)) is None


@pytest.mark.fault("Files", "an image larger than memory", done="a PNG of 700 bytes, as image and as animation")
@pytest.mark.parametrize("is_animation", [False, True])
def test_a_huge_size_is_refused_before_memory_is_taken(is_animation: bool, tmp_path: Path, survived: object) -> None:
    side = 30_000
    (tmp_path / "bomb.png").write_bytes(png(side, side, more=animation(side, side) if is_animation else b""))
    program = f"""
from pathlib import Path
from runtime.image_files import read_image
try:
    read_image(Path({str(tmp_path / "bomb.png")!r}))
except Exception as error:
    print(type(error).__name__, error)
print(*[line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")])  # of this program alone
"""

    def limit_memory() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))

    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=limit_memory,
    )
    error, peak_kib = done.stdout.splitlines()
    assert error.startswith("InputError image of 30000x30000 has more than 268 million pixels: ")
    assert int(peak_kib) < 300_000
    survived("refused by its header", code=3)


def test_a_png_that_holds_less_than_its_header_says_is_cut_off(tmp_path: Path) -> None:
    """OpenCV would invent the missing rows of an animation."""
    side = 4000
    (tmp_path / "a.png").write_bytes(png(side, side, more=animation(side, side)))
    with pytest.raises(InputError, match=r"cut off \(its header says 4000x4000\)"):
        read_image(tmp_path / "a.png")


def test_a_well_compressed_image_is_read(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((3000, 3000, 3), np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert read_image(tmp_path / "black.png").shape == (3000, 3000, 3)


def test_the_limit_holds_the_largest_webp() -> None:
    assert MAX_IMAGE_PX >= 16_383**2
