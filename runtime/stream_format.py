"""The form in which a source stores its frames, as far as an output keeps it or warns that it does not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import av

from runtime.colour import BT709, HDR_TRANSFERS, ColourTags
from runtime.hdr_metadata import NO_METADATA, HdrMetadata

_SUBSAMPLINGS = {(64, 64): "4:4:4", (32, 64): "4:2:2", (32, 32): "4:2:0", (64, 32): "4:4:0", (16, 64): "4:1:1"}
"""Names of chroma subsamplings by the size of the chroma of 64x64 pixels."""
_LARGEST_TERM = 4096
"""Largest denominator of a sample aspect ratio: the limit of FFmpeg's H.264 encoder."""


@dataclass(frozen=True, kw_only=True)
class StreamFormat:
    """Facts about the frames of a source that their pixels do not show."""

    sample_aspect_ratio: Fraction = Fraction(1)
    """Width of a pixel on the screen divided by its height."""
    colour: ColourTags = BT709
    """Meaning of the colours; outputs have the same tags."""
    pixel_format: str | None = None
    """FFmpeg's name of the pixel format that is stored; None for pixels that were never YUV."""
    bits: int = 8
    """Bits of a sample of the frames that the source delivers."""
    hdr: HdrMetadata = NO_METADATA
    """Metadata of high dynamic range."""

    @classmethod
    def read(cls, stream: av.VideoStream, first: av.VideoFrame | None = None) -> StreamFormat:
        """Return the format of a stream; its first frame says more than the stream, and how it is rotated."""
        ratio = Fraction(stream.sample_aspect_ratio or 1)
        if first and first.rotation % 180:
            ratio = 1 / ratio
        stated = first or stream.codec_context
        return cls(
            sample_aspect_ratio=ratio.limit_denominator(_LARGEST_TERM) or Fraction(1),
            colour=ColourTags.read(stated),
            pixel_format=stated.format.name if stated.format else None,
        ).with_metadata(first)

    def with_metadata(self, first: av.VideoFrame | None) -> StreamFormat:
        """Return the format with the metadata of the first frame, if it was decoded by FFmpeg."""
        return replace(self, hdr=HdrMetadata.read(first)) if first else self

    @property
    def stored_bits(self) -> int:
        """Bits of a stored sample."""
        return _count_bits(self.pixel_format) if self.pixel_format else 8

    @property
    def range_name(self) -> str:
        """`HDR (PQ)` or `HDR (HLG)`; empty for standard dynamic range."""
        name = HDR_TRANSFERS.get(self.colour.transfer)
        return f"HDR ({name})" if name else ""

    @property
    def warnings(self) -> list[str]:
        """Sentences about bits of samples and an alpha channel that frames do not have."""
        sentences = self._reduction(self.stored_bits, self.bits)
        components = av.VideoFormat(self.pixel_format).components if self.pixel_format else ()
        if any(component.is_alpha for component in components):
            sentences.append("the alpha channel was dropped")
        return sentences

    def depth_warnings(self, stored: str = "yuv420p") -> list[str]:
        """Sentence about bits that frames lose in a pixel format; 8 bits without one."""
        return self._reduction(self.bits, _count_bits(stored))

    def tag_warnings(self, place: str) -> list[str]:
        """Sentence about a place, such as `images`, that gets values of high dynamic range and cannot say so."""
        if not self.range_name:
            return []
        return [f"{place} have the values of {self.range_name} without its tags: they look pale as they are"]

    def _reduction(self, before: int, after: int) -> list[str]:
        words = [f"{before}-bit", *([self.range_name] if self.range_name else [])]
        return [f"{' '.join(words)} frames were reduced to {after} bits"] if before > after else []

    def chroma_warnings(self, stored: str) -> list[str]:
        """Sentence about chroma that frames lose in a pixel format such as `yuv420p`."""
        if self.pixel_format is None or len(av.VideoFormat(self.pixel_format).components) < 3:  # gray, or a palette
            return []
        source, target = _chroma_size(self.pixel_format), _chroma_size(stored)
        if source[0] <= target[0] and source[1] <= target[1]:
            return []
        kind = "RGB" if av.VideoFormat(self.pixel_format).is_rgb else _SUBSAMPLINGS.get(source, self.pixel_format)
        return [f"chroma was reduced from {kind} to {_SUBSAMPLINGS[target]}"]


def _count_bits(pixel_format: str) -> int:
    return max((component.bits for component in av.VideoFormat(pixel_format).components), default=8)


def _chroma_size(pixel_format: str) -> tuple[int, int]:
    """Return width and height of the chroma planes of 64x64 pixels."""
    form = av.VideoFormat(pixel_format)
    return form.chroma_width(64), form.chroma_height(64)


PLAIN = StreamFormat()
"""Format of frames that nothing is known about: square pixels."""
