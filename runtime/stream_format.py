"""The form in which a source stores its frames, as far as an output keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av

_LARGEST_TERM = 4096
"""Largest denominator of a sample aspect ratio: the limit of FFmpeg's H.264 encoder."""


@dataclass(frozen=True, kw_only=True)
class StreamFormat:
    """Facts about the frames of a source that their pixels do not show."""

    sample_aspect_ratio: Fraction = Fraction(1)
    """Width of a pixel on the screen divided by its height."""

    @classmethod
    def read(cls, stream: av.VideoStream, *, rotation: int = 0) -> StreamFormat:
        """Return the format of a stream whose frames are shown rotated by `rotation` degrees."""
        ratio = Fraction(stream.sample_aspect_ratio or 1)
        if rotation % 180:
            ratio = 1 / ratio
        return cls(sample_aspect_ratio=ratio.limit_denominator(_LARGEST_TERM) or Fraction(1))


PLAIN = StreamFormat()
"""Format of frames that nothing is known about: square pixels."""
