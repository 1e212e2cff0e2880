"""Traits of image files that outputs may keep: sources that have each trait, and the measurements."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageCms

from tests.conftest import make_image
from tests.rig.traits import Result, Trait, kept

SUFFIXES = (".png", ".jpg", ".webp", ".tif", ".bmp")
_SIZE = (48, 32)
_MAKER, _ORIENTATION = 0x010F, 0x0112


def make_sources(folder: Path) -> dict[str, Path]:
    """Write a photograph with EXIF, a colour profile and an orientation, and images with alpha and with 16 bits."""
    made = {name: folder / name for name in ("photo.jpg", "alpha.png", "deep.png")}
    exif = Image.Exif()
    exif[_MAKER], exif[_ORIENTATION] = "Camera Works", 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    rgb = make_image(*_SIZE)[:, :, ::-1]
    Image.fromarray(rgb).save(made["photo.jpg"], exif=exif.tobytes(), icc_profile=profile)
    alpha = np.linspace(0, 255, _SIZE[0] * _SIZE[1]).astype(np.uint8).reshape(_SIZE[1], _SIZE[0])
    cv2.imwrite(str(made["alpha.png"]), np.dstack((make_image(*_SIZE), alpha)))
    deep = cv2.resize(make_image(8, 8).astype(np.uint16) * 257, _SIZE, interpolation=cv2.INTER_LINEAR)
    cv2.imwrite(str(made["deep.png"]), deep)
    return made


def _exif(result: Result) -> str:
    with Image.open(result.out) as image:
        return kept(image.getexif().get(_MAKER) == "Camera Works")


def _orientation(result: Result) -> str:
    with Image.open(result.out) as image:
        return "applied" if image.size == _SIZE[::-1] and image.getexif().get(_ORIENTATION, 1) == 1 else "lost"


def _profile(result: Result) -> str:
    with Image.open(result.source) as before, Image.open(result.out) as after:
        return kept(before.info["icc_profile"] == after.info.get("icc_profile"))


def _alpha(result: Result) -> str:
    before, after = (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (result.source, result.out))
    return kept(after.ndim == 3 and after.shape[2] == 4 and np.array_equal(before[:, :, 3], after[:, :, 3]))


def _depth(result: Result) -> str:
    pixels = cv2.imread(str(result.out), cv2.IMREAD_UNCHANGED)
    return kept(pixels.dtype == np.uint16 and bool((pixels % 257).any()), "8 bits")


TRAITS = [
    Trait("EXIF", "photo.jpg", _exif, "EXIF"),
    Trait("EXIF orientation", "photo.jpg", _orientation),
    Trait("colour profile (ICC)", "photo.jpg", _profile, "profile"),
    Trait("alpha", "alpha.png", _alpha, "alpha"),
    Trait("16 bits", "deep.png", _depth, "bit"),
]
