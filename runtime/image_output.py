"""Restored images as files: the format of the name, with what the source holds besides 8-bit colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.colour import BT709, ColourTags
from runtime.errors import InputError, OutputError, is_out_of_memory
from runtime.files import has_utf8_name
from runtime.frame import Pixels, require_memory
from runtime.image_files import read_image
from runtime.image_header import JPEG, jpeg_channels
from runtime.image_metadata import HAS_METADATA, Metadata

StoredPixels: TypeAlias = NDArray[Any]
"""Pixels as a file stores them: [H, W], [H, W, 3] BGR or [H, W, 4] BGRA, of 8 or 16 bits."""

# 4:4:4: the restored edges keep their full colour resolution.
_JPEG_OPTIONS = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
_JPEG, _TIFF, _WEBP = (".jpg", ".jpeg"), (".tif", ".tiff"), ".webp"
_DEEP = (".png", *_TIFF)
_ENCODER_FRAMES = 20
"""Approximate memory that an encoder of WebP needs, in frames; encoders do not report that memory does not suffice."""
_DEEP_STEP = 257
"""Number of 16-bit codes in one step of 8-bit codes."""
_BAND_ROWS = 256
"""Number of rows that are computed at once; all rows would need much memory."""
_TURNS = {3: cv2.ROTATE_180, 6: cv2.ROTATE_90_CLOCKWISE, 8: cv2.ROTATE_90_COUNTERCLOCKWISE}
_MIRRORS = {2: 1, 4: 0}


@dataclass(frozen=True)
class StoredImage:
    """Contents of an image file besides 8-bit colour."""

    is_gray: bool
    deep: StoredPixels | None
    """Upright 16-bit pixels without alpha, [H, W] or [H, W, 3]; None for 8 bits."""
    alpha: StoredPixels | None
    """Upright alpha [H, W] of 8 or 16 bits; None without alpha, or if every pixel is opaque."""
    metadata: Metadata
    count: int
    """Number of images in the file; the first of them is restored."""

    @classmethod
    def read(cls, path: Path) -> StoredImage:
        """Read an image that `read_image` has decoded before; raises OSError, ValueError or cv2.error."""
        content = path.read_bytes()
        # A JPEG has neither alpha nor 16 bits, so that its small form suffices.
        flags = cv2.IMREAD_REDUCED_COLOR_8 if content.startswith(JPEG) else cv2.IMREAD_UNCHANGED
        encoded = np.frombuffer(content, np.uint8)
        pixels: StoredPixels | None
        kinds: Sequence[int] = ()
        values: Sequence[Any] = ()
        if HAS_METADATA:
            pixels, kinds, values = cv2.imdecodeWithMetadata(encoded, flags=flags)
        else:
            pixels = cv2.imdecode(encoded, flags)
        if pixels is None:
            raise ValueError("not an image")
        metadata = Metadata.read(content, kinds, values)
        is_gray = jpeg_channels(content) == 1 if content.startswith(JPEG) else _is_gray(pixels)
        deep = alpha = None
        if pixels.shape[2:] == (4,):
            alpha = _turn_upright(pixels[..., 3], metadata.orientation)
            alpha = alpha if alpha.min() < np.iinfo(alpha.dtype).max else None
            pixels = pixels[..., 0] if is_gray else pixels[..., :3]
        if pixels.dtype == np.uint16:
            deep = _turn_upright(pixels, metadata.orientation)
        images = cv2.imcount(str(path)) if has_utf8_name(path) else 1  # OpenCV crashes on other names
        return cls(is_gray, deep, alpha, metadata, images)


def encode_image(
    path: Path, restored: Pixels, source: Path | None = None, *, colour: ColourTags = BT709
) -> tuple[bytes, list[str]]:
    """Return a restored image uint8[H, W, 3] BGR in the format of `path`, and words for what of `source` is lost.

    `source` is the image file that was restored. Its EXIF, XMP and colour profile are kept, its alpha is kept
    unchanged, gray stays gray, and 16-bit pixels get the change of the 8-bit ones, where the format can hold them.
    `colour` is that of a video, which PNG states. `restored` may be the blurred and the restored image side by side.
    JPEG is written with quality 95 and 4:4:4, the other formats losslessly. Raises OutputError if the format cannot
    hold the image.
    """
    suffix = path.suffix.lower()
    pixels: StoredPixels = restored
    metadata = Metadata(cicp=colour.cicp if suffix == ".png" else b"")
    lost: list[str] = []
    if source:
        try:
            stored = StoredImage.read(source)
            pixels, lost = _combine(restored, stored, source, suffix)
        except (OSError, ValueError, cv2.error, InputError) as error:
            if is_out_of_memory(error):
                raise
            lost = ["source is gone or has changed, so that only 8-bit colour was kept"]
        else:
            size, is_gray = (restored.shape[1], restored.shape[0]), pixels.ndim == 2 and suffix != _WEBP
            metadata, lost_metadata = stored.metadata.fit(suffix=suffix, size=size, is_gray=is_gray)
            if not HAS_METADATA and source.suffix.lower() in (".png", _WEBP):
                lost.append("EXIF, XMP and colour profile not read (OpenCV 4.13 or newer reads them)")
            lost += lost_metadata + (["only the first image of the file was restored"] if stored.count > 1 else [])
    return _encode(path, pixels, metadata), lost


def _encode(path: Path, pixels: StoredPixels, metadata: Metadata) -> bytes:
    """Return the content of an image file; raises OutputError, or MemoryError if memory does not suffice."""
    suffix = path.suffix.lower()
    cause: cv2.error | None = None
    try:
        encoded = metadata.encode(suffix, pixels, _JPEG_OPTIONS if suffix in _JPEG else [])
        if encoded is not None:
            return encoded
    except cv2.error as error:
        cause = error
    height, width = pixels.shape[:2]
    require_memory(_ENCODER_FRAMES, width=width, height=height)
    what = f"{width}x{height} pixels cannot be written as {path.suffix}"
    raise OutputError(what, path, hint="give a .png file, or smaller images") from cause


def _combine(restored: Pixels, stored: StoredImage, source: Path, suffix: str) -> tuple[StoredPixels, list[str]]:
    """Return restored pixels with the depth and the alpha of the stored ones, and words for what is lost.

    Raises ValueError if the stored ones have another size, and what reading them raises.
    """
    lost = []
    pixels = _like_stored(restored, stored)
    if stored.deep is not None and suffix in _DEEP:
        blurred = _like_stored(read_image(source), stored)
        pixels = _add_change(_repeat(stored.deep, pixels), _repeat(blurred, pixels), pixels)
    elif stored.deep is not None:
        lost.append("16 bits became 8 (write .png or .tif to keep them)")
    if stored.alpha is not None and suffix in _JPEG:
        lost.append("alpha not kept (write .png, .webp or .tif to keep it)")
    elif stored.alpha is not None:
        alpha = _repeat(stored.alpha, pixels)
        alpha = alpha if alpha.dtype == pixels.dtype else (alpha >> 8).astype(np.uint8)
        pixels = np.dstack([pixels, alpha] if pixels.ndim == 3 else [pixels, pixels, pixels, alpha])
    return pixels, lost


def _repeat(stored: StoredPixels, restored: StoredPixels) -> StoredPixels:
    """Return stored pixels as often beside each other as `restored` shows the image: twice for side by side.

    Raises ValueError if the sizes do not fit.
    """
    count = restored.shape[1] // stored.shape[1]
    if (stored.shape[0], count * stored.shape[1]) != restored.shape[:2]:
        raise ValueError("another size")
    return np.concatenate([stored] * count, axis=1) if count > 1 else stored


def _is_gray(pixels: StoredPixels) -> bool:
    """Return whether pixels are gray; with alpha, OpenCV gives gray ones three equal colours."""
    return pixels.ndim == 2 or (pixels.shape[2] == 4 and bool((pixels[..., :1] == pixels[..., 1:3]).all()))


def _like_stored(pixels: Pixels, stored: StoredImage) -> StoredPixels:
    """Return pixels as gray if the stored ones are gray, else as they are."""
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)) if stored.is_gray else pixels


def _add_change(deep: StoredPixels, blurred: StoredPixels, restored: StoredPixels) -> StoredPixels:
    """Return 16-bit pixels, changed as the 8-bit ones were by the network."""
    result = np.empty_like(deep)
    for top in range(0, len(deep), _BAND_ROWS):
        rows = slice(top, top + _BAND_ROWS)
        change = restored[rows].astype(np.int32) - blurred[rows]
        result[rows] = np.clip(deep[rows] + _DEEP_STEP * change, 0, 65_535)
    return result


def _turn_upright(pixels: StoredPixels, orientation: int) -> StoredPixels:
    """Return pixels that are stored with an orientation of EXIF, 1 to 8, as they should be seen."""
    if orientation in (5, 7):
        pixels = cv2.transpose(pixels)
        return cv2.rotate(pixels, cv2.ROTATE_180) if orientation == 7 else pixels
    if orientation in _MIRRORS:
        return cv2.flip(pixels, _MIRRORS[orientation])
    return cv2.rotate(pixels, _TURNS[orientation]) if orientation in _TURNS else pixels
