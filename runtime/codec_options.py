"""Command-line options of the encoder and decoder of videos, which several commands share."""

from __future__ import annotations

import argparse
import re

from runtime.arguments import number_in
from runtime.sinks.encoder_settings import CODECS, EncoderSettings
from runtime.sinks.encoders import ENCODERS

_UNITS = {"": 1, "k": 10**3, "m": 10**6}


def add_encoder_options(parser: argparse.ArgumentParser) -> None:
    """Add the group of options that `parse_encoder` reads."""
    add = parser.add_argument_group("encoder of videos").add_argument
    add("--codec", choices=CODECS, help="codec of the video (default: that of --encoder, or h264)")
    add(
        "--encoder",
        metavar="NAME",
        help=f"encoder: {', '.join(ENCODERS)}, or 'gstreamer:ELEMENT PROPERTY=VALUE ...' "
        "(default: libx264, libx265 or libsvtav1, by the codec)",
    )
    add(
        "--crf",
        type=number_in(0, 63),
        metavar="N",
        help="constant quality on the scale of the encoder, 0 is best (default: 18 for libx264, see docs/codecs.md)",
    )
    add(
        "--bitrate",
        type=_parse_bitrate,
        metavar="RATE",
        help="bits per second, with k or M behind the number, such as 8M (default: constant quality)",
    )
    add(
        "--preset",
        metavar="P",
        help="balance of speed and size: ultrafast, superfast, ... veryslow, or the encoder's own such as p4 or 8 "
        "(default: superfast; libsvtav1: faster; hardware: medium)",
    )
    add(
        "--pixel-format",
        metavar="F",
        help="pixel format of the video by FFmpeg's name (default: yuv420p or nv12; yuv444p for frames of odd size)",
    )


def parse_encoder(values: argparse.Namespace) -> EncoderSettings:
    """Return the settings that the options of a command line ask for; raises UsageError if they do not fit."""
    return EncoderSettings(
        codec=values.codec,
        encoder=values.encoder,
        crf=values.crf,
        bitrate=values.bitrate,
        preset=values.preset,
        pixel_format=values.pixel_format,
    )


def add_decoder_option(group: argparse._ArgumentGroup) -> None:
    """Add the option of the decoder of videos."""
    group.add_argument(
        "--decoder",
        default="auto",
        metavar="D",
        help="decoder of videos: software, cuda, vaapi, or gstreamer:ELEMENT such as gstreamer:nvv4l2decoder "
        "(default: auto, which is software)",
    )


def _parse_bitrate(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"expected bits per second such as 8M or 800k, got {text[:40]!r}")
    return round(float(match[1]) * _UNITS[match[2].lower()])
