"""The form in which a source stores its frames, as far as an output keeps it or warns that it does not."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av

from runtime.colour import BT709, HDR_TRANSFERS, ColourTags

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
    """FFmpeg's name of the pixel format; None for pixels that were never YUV."""

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
        )

    @property
    def warnings(self) -> list[str]:
        """Sentences about samples of more than 8 bits and an alpha channel, which frames do not have."""
        components = av.VideoFormat(self.pixel_format).components if self.pixel_format else ()
        bits = max((component.bits for component in components), default=8)
        sentences = []
        if bits > 8:
            hdr = HDR_TRANSFERS.get(self.colour.transfer)
            sentences.append(f"{bits}-bit {f'HDR ({hdr}) ' if hdr else ''}frames were reduced to 8 bits")
        if any(component.is_alpha for component in components):
            sentences.append("the alpha channel was dropped")
        return sentences

    def chroma_warnings(self, stored: str) -> list[str]:
        """Sentence about chroma that frames lose in a pixel format such as `yuv420p`."""
        if self.pixel_format is None or len(av.VideoFormat(self.pixel_format).components) < 3:  # gray, or a palette
            return []
        source, target = _chroma_size(self.pixel_format), _chroma_size(stored)
        if source[0] <= target[0] and source[1] <= target[1]:
            return []
        kind = "RGB" if av.VideoFormat(self.pixel_format).is_rgb else _SUBSAMPLINGS.get(source, self.pixel_format)
        return [f"chroma was reduced from {kind} to {_SUBSAMPLINGS[target]}"]


def _chroma_size(pixel_format: str) -> tuple[int, int]:
    """Return width and height of the chroma planes of 64x64 pixels."""
    form = av.VideoFormat(pixel_format)
    return form.chroma_width(64), form.chroma_height(64)


PLAIN = StreamFormat()
"""Format of frames that nothing is known about: square pixels."""
