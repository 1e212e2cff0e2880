"""EXIF, XMP and colour profile of an image: read from one file, corrected for new pixels, written into another."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime import tiff
from runtime.frame import Size
from runtime.image_header import JPEG, iterate_jpeg_segments

# Fields that describe a photograph; the others of a TIFF file describe how its pixels are stored.
_DESCRIPTIVE = frozenset({270, 271, 272, 282, 283, 296, 305, 306, 315, 33432, 33723, tiff.EXIF, tiff.GPS})
_PIXEL_X_DIMENSION, _PIXEL_Y_DIMENSION = 40962, 40963
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>)\s*)[1-8]")
# Formats inside XMP that describe further images in the same file, which are not written: gain maps, motion photos.
_XMP_OF_PARTS = (b"ns.google.com/photos/1.0/container", b"ns.adobe.com/hdr-gain-map")
_JPEG_START_BYTES = 20
"""Bytes that OpenCV writes before anything else in a JPEG: its start marker, and a JFIF segment."""
_JPEG_EXIF, _JPEG_XMP, _JPEG_PROFILE = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
_EXIF_MARKER, _PROFILE_MARKER, _START_OF_SCAN = 0xE1, 0xE2, 0xDA
_JPEG_PART_BYTES = 65_500
"""Largest part of a JPEG segment behind its length and identifier, rounded down."""
_PNG_HEADER_BYTES = 33
HAS_METADATA = tuple(map(int, cv2.__version__.split(".")[:2])) >= (4, 13)
"""Whether OpenCV reads the metadata of PNG and WebP and writes those of WebP; that of JetPack 6 is older."""
_PNG_XMP = b"XML:com.adobe.xmp\0"


@dataclass(frozen=True)
class Metadata:
    """Contents of an image file besides its pixels, each empty where the file has none."""

    exif: bytes = b""
    """A TIFF structure, without the identifier that JPEG puts in front of it."""
    xmp: bytes = b""
    profile: bytes = b""
    """ICC profile."""
    cicp: bytes = b""
    """Primaries, transfer function, matrix and range as PNG has them; other formats do not hold them."""

    @classmethod
    def read(cls, encoded: bytes, kinds: Sequence[int], values: Sequence[Any]) -> Metadata:
        """Return the metadata of a file; `kinds` and `values` are what `cv2.imdecodeWithMetadata` has read.

        OpenCV reads none of TIFF, and adds other segments of a JPEG to its profile. Raises ValueError for a damaged
        TIFF file.
        """
        if encoded[:4] in (b"II*\0", b"MM\0*"):
            return cls._read_tiff(encoded)
        if encoded.startswith(JPEG):
            return cls._read_jpeg(encoded)
        if len(kinds) == 0:  # it may be an array
            return cls()
        parts = {int(kind): np.asarray(value, np.uint8).tobytes() for kind, value in zip(kinds, values, strict=True)}
        return cls(
            exif=parts.get(cv2.IMAGE_METADATA_EXIF, b""),
            xmp=parts.get(cv2.IMAGE_METADATA_XMP, b"").rstrip(b"\0"),
            profile=parts.get(cv2.IMAGE_METADATA_ICCP, b""),
        )

    @classmethod
    def _read_jpeg(cls, encoded: bytes) -> Metadata:
        parts: dict[bytes, list[bytes]] = {_JPEG_EXIF: [], _JPEG_XMP: [], _JPEG_PROFILE: []}
        for marker, at in iterate_jpeg_segments(encoded):
            if marker == _START_OF_SCAN:
                break
            segment = encoded[at + 2 : at + int.from_bytes(encoded[at : at + 2], "big")]
            for identifier, found in parts.items():
                if marker in (_EXIF_MARKER, _PROFILE_MARKER) and segment.startswith(identifier):
                    found.append(segment[len(identifier) :])
        exif, xmp = (next(iter(parts[identifier]), b"") for identifier in (_JPEG_EXIF, _JPEG_XMP))
        # Each part of a profile begins with its number and the number of parts.
        return cls(exif, xmp.rstrip(b"\0"), b"".join(part[2:] for part in sorted(parts[_JPEG_PROFILE])))

    @classmethod
    def _read_tiff(cls, encoded: bytes) -> Metadata:
        fields = tiff.read_directory(encoded, tiff.first_directory(encoded))
        blobs = [fields[tag].value if tag in fields else b"" for tag in (tiff.XMP, tiff.ICC_PROFILE)]
        xmp, profile = (blob if isinstance(blob, bytes) else b"" for blob in blobs)
        kept = {tag: field for tag, field in fields.items() if tag in _DESCRIPTIVE}
        return cls(tiff.HEADER + tiff.write_directory(kept, len(tiff.HEADER)) if kept else b"", xmp, profile)

    @property
    def orientation(self) -> int:
        """Orientation of the stored pixels, 1 to 8 as EXIF has it; 1 if there is none."""
        try:
            for entry in tiff.iterate_entries(self.exif, tiff.first_directory(self.exif)):
                if entry.tag == tiff.ORIENTATION:
                    value = tiff.read_value(self.exif, entry)
                    return value if 1 <= value <= 8 else 1
        except ValueError:
            pass
        return 1

    def fit(self, *, suffix: str, size: Size, is_gray: bool) -> tuple[Metadata, list[str]]:
        """Return the metadata for upright pixels in a file with this suffix, and words for what is lost.

        EXIF gets orientation 1 and the size (width, height), and no thumbnail: that shows the blurred image.
        """
        exif = _correct_exif(self.exif, size)
        xmp = b"" if any(part in self.xmp for part in _XMP_OF_PARTS) else _XMP_ORIENTATION.sub(rb"\g<1>1", self.xmp)
        profile = self.profile if _fits_pixels(self.profile, suffix=suffix, is_gray=is_gray) else b""
        if suffix == ".bmp" or (suffix == ".webp" and not HAS_METADATA):
            exif = xmp = profile = b""
        if suffix in (".jpg", ".jpeg"):
            exif, xmp = (part if len(part) <= _JPEG_PART_BYTES else b"" for part in (exif, xmp))
        kept = Metadata(exif, xmp, profile)
        words = {"EXIF": (self.exif, exif), "XMP": (self.xmp, xmp), "colour profile": (self.profile, profile)}
        return kept, [f"{word} not kept" for word, (before, after) in words.items() if before and not after]

    def encode(self, suffix: str, pixels: NDArray[Any], options: list[int]) -> bytes | None:
        """Encode pixels with these metadata; None, or cv2.error, if the format cannot hold the pixels.

        OpenCV writes the metadata of WebP only: it has none of TIFF, only short ones of JPEG, and puts XMP into PNG
        where nobody looks for it.
        """
        if suffix == ".webp" and self != Metadata():
            kinds = (cv2.IMAGE_METADATA_EXIF, cv2.IMAGE_METADATA_XMP, cv2.IMAGE_METADATA_ICCP)
            parts = dict(zip(kinds, (self.exif, self.xmp, self.profile), strict=True))
            present = {kind: np.frombuffer(part, np.uint8)[np.newaxis] for kind, part in parts.items() if part}
            is_encoded, content = cv2.imencodeWithMetadata(
                suffix, pixels, list(present), list(present.values()), options
            )
        else:
            is_encoded, content = cv2.imencode(suffix, pixels, options)
        if not is_encoded:
            return None
        writers = {".jpg": self._add_to_jpeg, ".jpeg": self._add_to_jpeg, ".png": self._add_to_png}
        writers |= {".tif": self._add_to_tiff, ".tiff": self._add_to_tiff}
        encoded = content.tobytes()
        return writers[suffix](encoded) if suffix in writers and self != Metadata() else encoded

    def _add_to_png(self, encoded: bytes) -> bytes:
        chunks = {
            b"cICP": self.cicp,
            b"iCCP": self.profile and b"ICC profile\0\0" + zlib.compress(self.profile),
            b"eXIf": self.exif,
            b"iTXt": self.xmp and _PNG_XMP + b"\0" * 4 + self.xmp,
        }
        packed = b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks.items()
            if data
        )
        return encoded[:_PNG_HEADER_BYTES] + packed + encoded[_PNG_HEADER_BYTES:]

    def _add_to_jpeg(self, encoded: bytes) -> bytes:
        segments = [
            (_EXIF_MARKER, identifier + part)
            for identifier, part in ((_JPEG_EXIF, self.exif), (_JPEG_XMP, self.xmp))
            if part
        ]
        chunks = [self.profile[at : at + _JPEG_PART_BYTES] for at in range(0, len(self.profile), _JPEG_PART_BYTES)]
        segments += [
            (_PROFILE_MARKER, _JPEG_PROFILE + bytes((number, len(chunks))) + chunk)
            for number, chunk in enumerate(chunks, 1)
        ]
        packed = b"".join(struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data for marker, data in segments)
        return encoded[:_JPEG_START_BYTES] + packed + encoded[_JPEG_START_BYTES:]

    def _add_to_tiff(self, encoded: bytes) -> bytes:
        """Return a little-endian TIFF file with another directory, which holds these metadata too, at its end."""
        fields = tiff.read_directory(encoded, tiff.first_directory(encoded))
        if self.exif:
            described = tiff.read_directory(self.exif, tiff.first_directory(self.exif))
            fields |= {tag: field for tag, field in described.items() if tag in _DESCRIPTIVE}
        if self.xmp:
            fields[tiff.XMP] = tiff.Field(1, len(self.xmp), self.xmp)
        if self.profile:
            fields[tiff.ICC_PROFILE] = tiff.Field(7, len(self.profile), self.profile)
        padded = encoded + bytes(len(encoded) % 2)
        return padded[:4] + struct.pack("<I", len(padded)) + padded[8:] + tiff.write_directory(fields, len(padded))


def _correct_exif(exif: bytes, size: Size) -> bytes:
    """Return EXIF of upright pixels without a thumbnail; empty if it is damaged.

    The bytes keep their places, because the notes of camera makers refer to them.
    """
    numbers = {tiff.ORIENTATION: 1, _PIXEL_X_DIMENSION: size[0], _PIXEL_Y_DIMENSION: size[1]}
    content = bytearray(exif)
    try:
        order, start = tiff.byte_order(exif), tiff.first_directory(exif)
        entries = list(tiff.iterate_entries(exif, start))
        positions = [tiff.read_value(exif, entry) for entry in entries if entry.tag == tiff.EXIF]
        for entry in chain(entries, *(tiff.iterate_entries(exif, position) for position in positions)):
            if entry.tag in numbers and entry.kind in (tiff.SHORT, tiff.LONG):
                kind = "H" if entry.kind == tiff.SHORT else "I"
                struct.pack_into(order + kind, content, entry.slot, numbers[entry.tag])
        struct.pack_into("<I", content, tiff.end_of_directory(exif, start), 0)
    except (ValueError, struct.error):
        return b""
    return bytes(content)


def _fits_pixels(profile: bytes, *, suffix: str, is_gray: bool) -> bool:
    """Return whether a profile is for pixels of this kind; PNG allows no RGB profile for gray pixels."""
    space = profile[16:20]
    if space == b"GRAY":
        return is_gray
    return space == b"RGB " and not (is_gray and suffix == ".png")
