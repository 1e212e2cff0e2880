"""What an upload is, by its first bytes, before anything of it is decoded."""

from __future__ import annotations

import io
from pathlib import Path

import av
from PIL import Image

from runtime.errors import InputError
from runtime.sources.video import open_container
from runtime.web.settings import Limits

PICTURES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif"}
"""Kinds that Pillow may look for, and the suffix by which the runtime knows them."""
_MATROSKA = b"\x1a\x45\xdf\xa3"
UPLOADS = ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "mp4", "m4v", "mov", "mkv", "webm"]
"""Suffixes that a browser offers; what is in a file decides."""
_STILL_BRANDS = {b"heic", b"heix", b"mif1", b"msf1", b"avif"}


def suffix_of(content: bytes, limits: Limits) -> str:
    """The suffix under which the runtime opens these bytes: a picture or a video; raises InputError for all else.

    The name that a visitor gives plays no part. Of a picture the header is read, and its size held to the limit; of a
    video only that it is a container which holds its frames itself, so that no playlist opens other files.
    """
    if len(content) > limits.upload_mb * 1_000_000:
        raise InputError(f"larger than {limits.upload_mb} MB", hint="upload a smaller file")
    if content[4:8] == b"ftyp" and content[8:12] in _STILL_BRANDS:
        raise InputError("a picture in HEIF or AVIF, which is not read here", hint="upload it as JPEG or PNG")
    if content[4:8] in {b"ftyp", b"moov", b"mdat", b"wide"}:
        return ".mp4"
    if content.startswith(_MATROSKA):
        return ".mkv"
    return _picture_suffix(content, limits)


def _picture_suffix(content: bytes, limits: Limits) -> str:
    try:
        with Image.open(io.BytesIO(content), formats=list(PICTURES)) as picture:
            kind, (width, height) = picture.format or "", picture.size
    except Image.DecompressionBombError as error:
        raise _too_large("pictures", limits.picture_px) from error
    except Exception as error:  # whatever a damaged header makes Pillow's parsers raise
        raise InputError(
            "neither a picture nor a video that is read here",
            hint="upload JPEG, PNG, WebP, BMP, TIFF, MP4, MOV, MKV or WebM",
        ) from error
    if width * height > limits.picture_px:
        raise _too_large("pictures", limits.picture_px)
    return PICTURES[kind]


def check_video(path: Path, limits: Limits) -> None:
    """Hold a video to its limits by what its header says; raises InputError. To be called where it may be killed."""
    try:
        with open_container(path) as container:
            stream = next(iter(container.streams.video), None)
            if stream is None:
                raise InputError("no picture in this video", hint="upload another file")
            pixels = stream.width * stream.height
            seconds = (container.duration or 0) / av.time_base
            frames = stream.frames
    except (av.FFmpegError, ValueError) as error:
        raise InputError("not a video that can be decoded", hint="check that the file is whole") from error
    if pixels > limits.video_px:
        raise _too_large("videos", limits.video_px)
    if seconds > limits.video_s or frames > limits.video_frames:
        raise too_long(limits)


def too_long(limits: Limits) -> InputError:
    return InputError(
        f"longer than {limits.video_s:g} seconds or {limits.video_frames} frames",
        hint="upload a shorter piece, or use python -m runtime.video",
    )


def _too_large(what: str, pixels: int) -> InputError:
    return InputError(
        f"{what} may have {pixels / 1e6:.1f} million pixels",
        hint="upload a smaller one, or use python -m runtime.video",
    )
