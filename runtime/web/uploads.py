"""Checks of an upload: its type by its first bytes, and its size by its header, before anything is decoded."""

from __future__ import annotations

import io
from pathlib import Path

import av
from PIL import Image

from runtime.errors import InputError
from runtime.sources.containers import find_video_stream, open_container
from runtime.web.settings import Limits

IMAGE_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif"}
"""Image formats that Pillow may try, and the suffix by which the runtime knows each."""
_MATROSKA_MAGIC = b"\x1a\x45\xdf\xa3"
OFFERED_SUFFIXES = ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "mp4", "m4v", "mov", "mkv", "webm"]
"""Suffixes that the browser's file dialog offers; the content of a file decides what it is."""
_HEIF_BRANDS = {b"heic", b"heix", b"mif1", b"msf1", b"avif"}


def detect_suffix(content: bytes, limits: Limits) -> str:
    """Return the suffix under which the runtime opens an image or video; raises InputError for anything else.

    The name of an uploaded file is ignored. For an image the header is read and its size is checked. For a video only
    the kind of container is checked: it must hold its frames itself, so that no playlist can open other files.
    """
    if len(content) > limits.upload_mb * 1_000_000:
        raise InputError(f"larger than {limits.upload_mb} MB", hint="upload a smaller file")
    if content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS:
        raise InputError("HEIF and AVIF images are not supported", hint="upload the image as JPEG or PNG")
    if content[4:8] in {b"ftyp", b"moov", b"mdat", b"wide"}:
        return ".mp4"
    if content.startswith(_MATROSKA_MAGIC):
        return ".mkv"
    return _detect_image_suffix(content, limits)


def _detect_image_suffix(content: bytes, limits: Limits) -> str:
    try:
        with Image.open(io.BytesIO(content), formats=list(IMAGE_SUFFIXES)) as image:
            image_format, (width, height) = image.format or "", image.size
    except Image.DecompressionBombError as error:
        raise _too_large_error("images", limits.image_px) from error
    except Exception as error:  # Pillow's parsers raise many types for a damaged header
        raise InputError(
            "neither an image nor a video of a supported type",
            hint="upload JPEG, PNG, WebP, BMP, TIFF, MP4, MOV, MKV or WebM",
        ) from error
    if width * height > limits.image_px:
        raise _too_large_error("images", limits.image_px)
    return IMAGE_SUFFIXES[image_format]


def check_video(path: Path, limits: Limits) -> None:
    """Check the frame size and the length of a video by its header; raises InputError.

    Call it only in a process that can be killed, because a damaged header may keep FFmpeg busy.
    """
    try:
        with open_container(path) as container:
            stream = find_video_stream(container, Path("upload"))  # the place is not shown
            pixels = stream.width * stream.height
            seconds = (container.duration or 0) / av.time_base
            frames = stream.frames
    except (av.FFmpegError, ValueError) as error:
        raise InputError("not a video that can be decoded", hint="check that the file is whole") from error
    if pixels > limits.video_px:
        raise _too_large_error("videos", limits.video_px)
    if seconds > limits.video_s or frames > limits.video_frames:
        raise too_long_error(limits)


def too_long_error(limits: Limits) -> InputError:
    """Return the error for a video that is too long."""
    return InputError(
        f"longer than {limits.video_s:g} seconds or {limits.video_frames} frames",
        hint="upload a shorter clip, or use python -m runtime.video",
    )


def _too_large_error(kind: str, pixels: int) -> InputError:
    return InputError(
        f"{kind} may have at most {pixels / 1e6:.1f} million pixels",
        hint="upload a smaller one, or use python -m runtime.video",
    )
