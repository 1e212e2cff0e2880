"""Sentences about what the format of a video does not keep of its frames, and about players that refuse it."""

from __future__ import annotations

from runtime.frame import Size
from runtime.sinks.encoder_settings import CODEC_NAMES
from runtime.sinks.encoders import EncoderChoice
from runtime.sinks.hdr_options import hdr_warnings
from runtime.stream_format import StreamFormat


def format_warnings(source: StreamFormat, choice: EncoderChoice, pixel_format: str, size: Size) -> list[str]:
    """Return the sentences for frames of `size` in pixels that an encoder gets in a pixel format."""
    sentences = []
    width, height = size
    if (width % 2 or height % 2) and pixel_format == "yuv444p":
        stored = f"{CODEC_NAMES[choice.codec]} 4:4:4, which some hardware players refuse"
        sentences.append(f"{width}x{height} is odd: stored as {stored}")
    sentences += source.chroma_warnings(pixel_format) + source.depth_warnings(pixel_format)
    sentences += hdr_warnings(choice.name, source.hdr)
    if pixel_format == "yuv420p10le" and choice.codec == "h264":
        sentences.append("stored as 10-bit H.264, which many hardware players refuse; more of them play HEVC")
    return sentences
