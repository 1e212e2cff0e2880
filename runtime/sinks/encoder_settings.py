"""What a user asks of the encoder of a video; the same for the command lines, the Python API and batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from runtime.errors import UsageError, require_in_range

Codec = Literal["h264", "hevc", "av1"]
CODECS: tuple[Codec, ...] = get_args(Codec)
CODEC_NAMES = {"h264": "H.264", "hevc": "HEVC", "av1": "AV1"}
"""Names of codecs for people."""
_MAX_CRF = 63
_MAX_BITRATE = 2_000_000_000


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """Codec, encoder and quality of a video; None leaves the choice to the toolkit.

    Raises UsageError for values that no encoder takes and for settings that exclude each other; whether an encoder
    takes them on this machine is found out by `runtime.sinks.encoder_trial`.
    """

    codec: Codec | None = None
    """Codec of the video; None for that of `encoder`, or H.264."""
    encoder: str | None = None
    """FFmpeg's name of an encoder, or `gstreamer:ELEMENT PROPERTY=VALUE ...`; None for the software encoder."""
    crf: float | None = None
    """Constant quality on the scale of the encoder, where smaller is better; None for a default, or for `bitrate`."""
    bitrate: int | None = None
    """Bits per second; None for constant quality."""
    preset: str | None = None
    """Balance of speed and size, by a name of x264 or of the encoder itself."""
    pixel_format: str | None = None
    """FFmpeg's name of the pixel format of the video; None for 8-bit 4:2:0 where the encoder takes it."""

    def __post_init__(self) -> None:
        if self.codec not in (None, *CODECS):
            raise UsageError(f"unknown codec {self.codec!r}", hint=f"use {', '.join(CODECS)}")
        require_in_range("crf", self.crf, 0, _MAX_CRF)
        require_in_range("bit rate", self.bitrate, 1000, _MAX_BITRATE)
        if self.crf is not None and self.bitrate is not None:
            raise UsageError("crf and bit rate exclude each other", hint="give one of them")


PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
"""x264's names from fast to slow; other encoders get their own for them."""


def like_x264(values: str) -> dict[str, str]:
    """Return an encoder's own presets, separated by spaces, for those of `PRESETS`."""
    return dict(zip(PRESETS, values.split(), strict=True))


DEFAULT_SETTINGS = EncoderSettings()
