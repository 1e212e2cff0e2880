"""Clips of high dynamic range, with metadata in the stream or in the header of an MP4."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av

from runtime.hdr_metadata import HdrMetadata, MasteringDisplay
from runtime.sinks.encoder_context import ordinary_scheduling
from runtime.sinks.hdr_options import add_hdr_options
from tests.conftest import make_image

DISPLAY = MasteringDisplay(
    green=(Fraction(13250, 50_000), Fraction(34500, 50_000)),
    blue=(Fraction(7500, 50_000), Fraction(3000, 50_000)),
    red=(Fraction(34000, 50_000), Fraction(16000, 50_000)),
    white=(Fraction(15635, 50_000), Fraction(16450, 50_000)),
    max_luminance=Fraction(1000),
    min_luminance=Fraction(1, 200),
)
"""A display with the colours of DCI-P3."""
DISPLAY_STEPS = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
METADATA = HdrMetadata(display=DISPLAY, light=(1000, 400))
_QUIET = {"libx265": {"x265-params": "log-level=none:keyint=1"}, "libsvtav1": {"preset": "10"}}
_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
_SAMPLE_ENTRIES = (b"hev1", b"hvc1", b"avc1", b"av01", b"vp09")


def write_hdr(
    path: Path, encoder: str, metadata: HdrMetadata = METADATA, *, transfer: int = 16, frames: int = 3
) -> None:
    """Write frames of 10 bits in BT.2020 with an encoder; transfer 16 is PQ, 18 is HLG."""
    with av.open(str(path), "w") as container:
        options = add_hdr_options(encoder, _QUIET.get(encoder, {}), metadata)
        stream = container.add_stream(encoder, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = 9, transfer, 9, 1
        with ordinary_scheduling():
            container.start_encoding()
        for index in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(make_image(128, 96, index), format="bgr24")))
        container.mux(stream.encode(None))


def add_boxes(path: Path) -> None:
    """Add the metadata of `METADATA` to the header of an MP4, which is behind its frames (`mdcv` and `clli`)."""
    content = path.read_bytes()
    pairs = (13250, 34500, 7500, 3000, 34000, 16000, 15635, 16450)
    boxes = struct.pack(">I4s8H2I", 32, b"mdcv", *pairs, 10_000_000, 50) + struct.pack(">I4s2H", 12, b"clli", 1000, 400)
    *parents, entry = _find_boxes(content)
    for start in (*parents, entry):
        size = int.from_bytes(content[start : start + 4], "big") + len(boxes)
        content = content[:start] + size.to_bytes(4, "big") + content[start + 4 :]
    end = entry + size
    path.write_bytes(content[: end - len(boxes)] + boxes + content[end - len(boxes) :])


def _find_boxes(content: bytes) -> Iterator[int]:
    """Yield the positions of the boxes around the description of the first track, and of that description."""
    start = 0
    for name in (*_PARENTS, None):
        while (kind := content[start + 4 : start + 8]) != name and not (name is None and kind in _SAMPLE_ENTRIES):
            start += int.from_bytes(content[start : start + 4], "big")
        yield start
        start += 16 if name == b"stsd" else 8  # it has version and number of entries besides
