"""Restored image files: what the source holds besides 8-bit colour is kept, or named; checked with Pillow."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps

from runtime.errors import OutputError
from runtime.image_files import read_image
from runtime.image_output import encode_image
from tests.conftest import make_image

SIZE = (64, 48)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"/>'
EXIF, GPS, MAKER, DATE, NOTE, WIDTH, HEIGHT = 0x8769, 0x8825, 0x010F, 0x9003, 0x927C, 0xA002, 0xA003
FORMATS = ("jpg", "png", "webp", "tif")
LOSSLESS = ("png", "webp", "tif")


def make_exif(orientation: int = 6, *, big_endian: bool = True) -> bytes:
    exif = Image.Exif()
    exif.endian = ">" if big_endian else "<"
    exif[0x0112], exif[MAKER] = orientation, "Maker"
    exif.get_ifd(EXIF).update({DATE: "2020:01:01 00:00:00", WIDTH: SIZE[0], HEIGHT: SIZE[1], NOTE: b"note" * 9})
    exif.get_ifd(GPS).update({1: "N", 2: (51.0, 30.5, 0.25)})
    return exif.tobytes()


def write_source(path: Path, mode: str = "RGB", **metadata: bytes) -> Path:
    image = Image.fromarray(make_image(*SIZE)[..., ::-1]).convert(mode)
    if "A" in mode:
        image.putalpha(Image.fromarray(make_image(*SIZE, seed=1)[..., 0]))
    image.save(path, **metadata)
    return path


def write_restored(out: Path, restored: np.ndarray, source: Path) -> list[str]:
    content, lost = encode_image(out, restored, source)
    out.write_bytes(content)
    return lost


def facts(path: Path) -> dict[str, object]:
    with Image.open(path) as image:
        image.load()
        exif = image.getexif()
        return {
            "size": image.size,
            "orientation": exif.get(0x0112, 1),
            "maker": exif.get(MAKER),
            "exif": {tag: value for tag, value in exif.get_ifd(EXIF).items() if tag in (DATE, WIDTH, HEIGHT, NOTE)},
            "gps": dict(exif.get_ifd(GPS)),
            "profile": image.info.get("icc_profile"),
        }


@pytest.mark.parametrize("big_endian", [True, False])
@pytest.mark.parametrize("source", ["jpg", "png", "webp"])
@pytest.mark.parametrize("target", FORMATS)
def test_exif_and_profile_are_kept_for_upright_pixels(
    source: str, target: str, big_endian: bool, tmp_path: Path
) -> None:
    path = write_source(tmp_path / f"in.{source}", exif=make_exif(big_endian=big_endian), icc_profile=PROFILE)
    restored = 255 - read_image(path)
    assert write_restored(tmp_path / f"out.{target}", restored, path) == []
    assert facts(tmp_path / f"out.{target}") == {
        "size": SIZE[::-1],
        "orientation": 1,
        "maker": "Maker",
        "exif": {DATE: "2020:01:01 00:00:00", WIDTH: SIZE[1], HEIGHT: SIZE[0], NOTE: b"note" * 9},
        "gps": {1: "N", 2: (51.0, 30.5, 0.25)},
        "profile": PROFILE,
    }
    written = read_image(tmp_path / f"out.{target}")
    assert np.abs(written.astype(int) - restored).max() <= (0 if target in LOSSLESS else 10)


@pytest.mark.parametrize("target", FORMATS)
def test_metadata_of_tiff_are_kept(target: str, tmp_path: Path) -> None:
    first = write_source(tmp_path / "a.jpg", exif=make_exif(), icc_profile=PROFILE)
    write_restored(tmp_path / "b.tif", read_image(first), first)
    assert write_restored(tmp_path / f"c.{target}", read_image(first), tmp_path / "b.tif") == []
    assert facts(tmp_path / f"c.{target}") == facts(tmp_path / "b.tif")


@pytest.mark.parametrize("source", FORMATS)
@pytest.mark.parametrize("target", FORMATS)
def test_xmp_is_kept_for_upright_pixels(source: str, target: str, tmp_path: Path) -> None:
    jpeg = write_source(tmp_path / "first.jpg", xmp=XMP)
    path = tmp_path / f"in.{source}"
    write_restored(path, make_image(*SIZE), jpeg)
    assert write_restored(tmp_path / f"out.{target}", make_image(*SIZE), path) == []
    with Image.open(tmp_path / f"out.{target}") as image:
        image.load()
        xmp = image.info.get("xmp") or image.info["XML:com.adobe.xmp"].encode()
    assert xmp == XMP.replace(b'"6"', b'"1"')


def test_a_long_profile_is_kept_in_jpeg(tmp_path: Path) -> None:
    profile = PROFILE + np.random.default_rng(0).integers(0, 256, 200_000, dtype=np.uint8).tobytes()
    path = write_source(tmp_path / "in.jpg", icc_profile=profile)
    assert write_restored(tmp_path / "out.jpg", make_image(*SIZE), path) == []
    assert facts(tmp_path / "out.jpg")["profile"] == profile


def test_other_segments_do_not_become_part_of_the_profile(tmp_path: Path) -> None:
    """OpenCV adds the index of a multi-picture file, which is an APP2 segment too."""
    path = write_source(tmp_path / "in.jpg", icc_profile=PROFILE)
    content = path.read_bytes()
    path.write_bytes(content[:2] + b"\xff\xe2\0\x0aMPF\0MM\0*" + content[2:])
    assert write_restored(tmp_path / "out.jpg", make_image(*SIZE), path) == []
    assert facts(tmp_path / "out.jpg")["profile"] == PROFILE


def test_the_thumbnail_of_the_blurred_image_is_left_out(tmp_path: Path) -> None:
    exif = bytearray(make_exif())
    end = 6 + 8 + 2 + 12 * int.from_bytes(exif[14:16], "big")  # the identifier, the header, and the first directory
    exif[end : end + 4] = (len(exif) - 6).to_bytes(4, "big")
    exif += b"\0\1" + b"\1\0\0\4\0\0\0\1" + (7).to_bytes(4, "big") + bytes(4)
    path = write_source(tmp_path / "in.jpg", exif=bytes(exif))
    with Image.open(path) as image:
        assert image.getexif().get_ifd(ExifTags.IFD.IFD1) == {256: 7}
    write_restored(tmp_path / "out.jpg", read_image(path), path)
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.getexif().get_ifd(ExifTags.IFD.IFD1) == {}
        assert image.getexif()[MAKER] == "Maker"


def test_damaged_exif_is_left_out_or_kept_but_never_fatal(tmp_path: Path) -> None:
    whole = make_exif()
    lost = 0
    for length in range(6, len(whole), 5):
        path = write_source(tmp_path / "in.png", exif=whole[:length] if length % 2 else whole[:length] + b"\xff" * 40)
        for target in ("png", "tif"):
            lost += bool(write_restored(tmp_path / f"out.{target}", read_image(path), path))
            with Image.open(tmp_path / f"out.{target}") as image:
                image.load()
    assert lost


def test_a_profile_that_does_not_fit_the_pixels_is_left_out(tmp_path: Path) -> None:
    path = write_source(tmp_path / "in.jpg", "CMYK", icc_profile=PROFILE.replace(b"RGB ", b"CMYK"))
    assert write_restored(tmp_path / "out.jpg", read_image(path), path) == ["colour profile not kept"]
    assert facts(tmp_path / "out.jpg")["profile"] is None


def test_what_bmp_cannot_hold_is_named(tmp_path: Path) -> None:
    path = write_source(tmp_path / "in.jpg", exif=make_exif(), icc_profile=PROFILE)
    assert write_restored(tmp_path / "out.bmp", read_image(path), path) == ["EXIF not kept", "colour profile not kept"]


@pytest.mark.parametrize("target", ["png", "webp", "tif", "bmp"])
def test_alpha_is_kept_unchanged(target: str, tmp_path: Path) -> None:
    path = write_source(tmp_path / "in.png", "RGBA")
    before = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    restored = 255 - read_image(path)
    assert write_restored(tmp_path / f"out.{target}", restored, path) == []
    written = cv2.imread(str(tmp_path / f"out.{target}"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(written[..., 3], before[..., 3])
    visible = before[..., 3] > 0  # WebP drops the colour of invisible pixels
    assert np.array_equal(written[..., :3][visible], restored[visible])


def test_alpha_is_named_where_it_is_lost(tmp_path: Path) -> None:
    path = write_source(tmp_path / "in.png", "RGBA")
    assert write_restored(tmp_path / "out.jpg", read_image(path), path) == [
        "alpha not kept (write .png, .webp or .tif to keep it)"
    ]
    opaque = tmp_path / "opaque.png"
    Image.new("RGBA", SIZE, (1, 2, 3, 255)).save(opaque)
    assert write_restored(tmp_path / "out.jpg", read_image(opaque), opaque) == []


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_alpha_turns_with_the_pixels(orientation: int, depth: type, tmp_path: Path) -> None:
    pixels = np.dstack([make_image(*SIZE), make_image(*SIZE, seed=1)[..., 0]]).astype(depth)
    pixels = pixels * 257 if depth is np.uint16 else pixels
    content = cv2.imencodeWithMetadata(
        ".png", pixels, [cv2.IMAGE_METADATA_EXIF], [np.frombuffer(make_exif(orientation)[6:], np.uint8)[None]]
    )[1]
    path, out = tmp_path / "in.png", tmp_path / "out.png"
    path.write_bytes(content.tobytes())
    assert write_restored(out, read_image(path), path) == []
    written = cv2.imread(str(out), cv2.IMREAD_UNCHANGED)
    eight_bit = pixels if depth is np.uint8 else pixels // 257
    turn = Image.Exif()
    turn[0x0112] = orientation
    expected = Image.fromarray(eight_bit.astype(np.uint8))
    expected.info["exif"] = turn.tobytes()
    expected = np.asarray(ImageOps.exif_transpose(expected))
    assert np.array_equal(written if depth is np.uint8 else written // 257, expected)


@pytest.mark.parametrize("target", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_pixels_get_the_change_of_the_8_bit_ones(target: str, channels: int, tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 65_536, (300, 40, channels), dtype=np.uint16)
    path, out = tmp_path / "in.png", tmp_path / f"out.{target}"
    cv2.imwrite(str(path), deep)
    blurred = read_image(path)
    assert write_restored(out, blurred, path) == []
    assert np.array_equal(cv2.imread(str(out), cv2.IMREAD_UNCHANGED).reshape(deep.shape), deep)
    restored = np.where(blurred < 250, blurred + 3, blurred).astype(np.uint8)
    write_restored(out, restored, path)
    change = 257 * (restored.astype(int) - blurred)
    expected = deep.astype(int)
    expected[..., :3] = np.clip(expected[..., :3] + change[..., : min(channels, 3)], 0, 65_535)
    assert np.array_equal(cv2.imread(str(out), cv2.IMREAD_UNCHANGED).reshape(deep.shape), expected)


def test_16_bits_are_named_where_they_are_lost(tmp_path: Path) -> None:
    path = tmp_path / "in.png"
    cv2.imwrite(str(path), make_image(*SIZE).astype(np.uint16) * 257)
    assert write_restored(tmp_path / "out.webp", read_image(path), path) == [
        "16 bits became 8 (write .png or .tif to keep them)"
    ]


@pytest.mark.parametrize("target", ["jpg", "png", "tif", "bmp"])
@pytest.mark.parametrize("mode", ["L", "LA"])
def test_gray_stays_gray(target: str, mode: str, tmp_path: Path) -> None:
    path = write_source(tmp_path / ("in.jpg" if mode == "L" else "in.png"), mode)
    restored = read_image(path).copy()
    restored[::2, ::2, 0] += 1  # a network may add a tint
    write_restored(tmp_path / f"out.{target}", restored, path)
    written = cv2.imread(str(tmp_path / f"out.{target}"), cv2.IMREAD_UNCHANGED)
    if mode == "L" or target == "jpg":
        assert written.ndim == 2
    else:
        assert (written[..., :1] == written[..., 1:3]).all()
        assert written.shape[2] == 4


def test_side_by_side_keeps_alpha_and_16_bits(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 65_536, (48, 64, 4), dtype=np.uint16)
    path, out = tmp_path / "in.png", tmp_path / "out.png"
    cv2.imwrite(str(path), deep)
    blurred = read_image(path)
    assert write_restored(out, np.hstack((blurred, 255 - blurred)), path) == []
    written = cv2.imread(str(out), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(written[:, :64], deep)
    assert np.array_equal(written[:, 64:, 3], deep[..., 3])


def test_jpeg_keeps_the_resolution_of_colour(tmp_path: Path) -> None:
    path = write_source(tmp_path / "in.jpg")
    write_restored(tmp_path / "out.jpeg", make_image(*SIZE), path)
    with Image.open(tmp_path / "out.jpeg") as image:
        assert [component[1:3] for component in image.layer] == [(1, 1)] * 3
    assert np.abs(read_image(tmp_path / "out.jpeg").astype(int) - make_image(*SIZE)).max() <= 12


@pytest.mark.parametrize("suffix", ["webp", "png", "tif"])
def test_further_images_of_a_file_are_named(suffix: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(make_image(*SIZE, seed=seed)) for seed in range(3)]
    path = tmp_path / f"in.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert write_restored(tmp_path / f"out.{suffix}", read_image(path), path) == [
        "only the first image of the file was restored"
    ]


@pytest.mark.parametrize("name", ["gone.jpg", "junk.png", "larger.png", "deeper.png"])
def test_a_source_that_is_gone_or_has_changed_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "junk.png").write_bytes(b"junk")
    cv2.imwrite(str(tmp_path / "larger.png"), np.zeros((90, 90, 4), np.uint8))
    cv2.imwrite(str(tmp_path / "deeper.png"), np.zeros((48, 96), np.uint16))
    assert write_restored(tmp_path / "out.png", make_image(*SIZE), tmp_path / name) == [
        "source is gone or has changed, so that only 8-bit colour was kept"
    ]
    assert np.array_equal(read_image(tmp_path / "out.png"), make_image(*SIZE))


def test_an_image_that_a_format_cannot_hold_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"20000x1 pixels cannot be written as \.webp"):
        encode_image(tmp_path / "out.webp", np.zeros((1, 20_000, 3), np.uint8))


def test_a_gain_map_is_not_promised(tmp_path: Path) -> None:
    content = io.BytesIO()
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/"/>'
    Image.fromarray(make_image(*SIZE)).save(content, "JPEG", xmp=xmp)
    path = tmp_path / "in.jpg"
    path.write_bytes(content.getvalue())
    assert write_restored(tmp_path / "out.jpg", make_image(*SIZE), path) == ["XMP not kept"]


@pytest.mark.parametrize("target", FORMATS)
def test_an_old_opencv_keeps_all_but_metadata_of_png_and_webp(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JetPack 6 has OpenCV 4.8, without functions for metadata."""
    for module in ("image_output", "image_metadata"):
        monkeypatch.setattr(f"runtime.{module}.HAS_METADATA", False)
    for name in [name for name in dir(cv2) if "Metadata" in name or "METADATA" in name]:
        monkeypatch.delattr(cv2, name)
    out = tmp_path / f"out.{target}"
    jpeg = write_source(tmp_path / "in.jpg", exif=make_exif(), icc_profile=PROFILE)
    lost = write_restored(out, read_image(jpeg), jpeg)
    assert lost == (["EXIF not kept", "colour profile not kept"] if target == "webp" else [])
    assert facts(out)["profile"] == (None if target == "webp" else PROFILE)
    png = write_source(tmp_path / "in.png", "RGBA")
    lost = write_restored(out, read_image(png), png)
    assert "OpenCV 4.13" in lost[-1]
    if target != "jpg":
        alpha = cv2.imread(str(png), cv2.IMREAD_UNCHANGED)[..., 3]
        assert np.array_equal(cv2.imread(str(out), cv2.IMREAD_UNCHANGED)[..., 3], alpha)
