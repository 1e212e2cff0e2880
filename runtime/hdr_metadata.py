"""Metadata of high dynamic range: the display on which a video was graded, and how bright its content is."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import av
from av.sidedata.sidedata import SideData, SideDataContainer

_MASTERING = struct.Struct("=20i2i")
"""FFmpeg's AVMasteringDisplayMetadata: ten fractions of two integers, and whether colours and luminance are known."""
_LIGHT = struct.Struct("=2I")
"""FFmpeg's AVContentLightMetadata."""
_MAX_LUMINANCE = 100_000
"""Largest credible luminance of a display in candela per square metre."""
_MAX_LIGHT = 65_535
"""Largest MaxCLL and MaxFALL that H.264, HEVC and AV1 hold."""
_OF_EACH_FRAME = {
    "DYNAMIC_HDR_PLUS": "HDR10+",
    "DOVI_RPU_BUFFER": "Dolby Vision",
    "DOVI_METADATA": "Dolby Vision",
    "DYNAMIC_HDR_VIVID": "HDR Vivid",
    "AMBIENT_VIEWING_ENVIRONMENT": "ambient light",
}
"""Names of metadata that encoders do not take from here, by PyAV's names of side data."""


@dataclass(frozen=True, kw_only=True)
class MasteringDisplay:
    """Colours and luminance of the display on which a video was graded (SMPTE ST 2086)."""

    green: tuple[Fraction, Fraction]
    """Chromaticity x and y (CIE 1931), as of `blue`, `red` and `white`."""
    blue: tuple[Fraction, Fraction]
    red: tuple[Fraction, Fraction]
    white: tuple[Fraction, Fraction]
    max_luminance: Fraction
    """Candela per square metre, as `min_luminance`."""
    min_luminance: Fraction

    @classmethod
    def parse(cls, content: bytes) -> MasteringDisplay | None:
        """Return what FFmpeg's structure holds; None if values are missing, or are none that encoders take."""
        *values, has_primaries, has_luminance = _MASTERING.unpack_from(content)
        if not (has_primaries and has_luminance and all(values[1::2])):
            return None
        numbers = [Fraction(*pair) for pair in zip(values[::2], values[1::2], strict=True)]
        red, green, blue, white = ((numbers[index], numbers[index + 1]) for index in range(0, 8, 2))
        low, high = numbers[8:]
        if not (all(0 <= number <= 1 for number in numbers[:8]) and 0 <= low < high <= _MAX_LUMINANCE):
            return None
        return cls(red=red, green=green, blue=blue, white=white, min_luminance=low, max_luminance=high)


@dataclass(frozen=True, kw_only=True)
class HdrMetadata:
    """Metadata that a whole video has, and the names of what each of its frames has besides."""

    display: MasteringDisplay | None = None
    light: tuple[int, int] | None = None
    """MaxCLL and MaxFALL (CTA-861.3): the brightest pixel and the brightest frame average in candela per square metre;
    0 where it is not known."""
    of_each_frame: tuple[str, ...] = ()
    """Names of metadata that outputs do not keep, such as `Dolby Vision`."""

    @classmethod
    def read(cls, frame: av.VideoFrame) -> HdrMetadata:
        """Return the metadata of a decoded frame."""
        data = read_side_data(frame)
        display = light = None
        if (content := data.get("MASTERING_DISPLAY_METADATA")) and content.buffer_size >= _MASTERING.size:
            display = MasteringDisplay.parse(bytes(content))
        if (content := data.get("CONTENT_LIGHT_LEVEL")) and content.buffer_size >= _LIGHT.size:
            first, second = _LIGHT.unpack_from(bytes(content))
            light = (first, second) if 0 < max(first, second) <= _MAX_LIGHT else None
        others = dict.fromkeys(name for kind, name in _OF_EACH_FRAME.items() if kind in data)
        return cls(display=display, light=light, of_each_frame=tuple(others))


NO_METADATA = HdrMetadata()


def read_side_data(frame: av.VideoFrame) -> dict[str, SideData]:
    """Return side data by PyAV's names; PyAV fails where FFmpeg has kinds that it does not know."""
    try:
        found = cast("SideDataContainer", frame.side_data)  # PyAV's stub says something else
        return {data.type.name: data for data in (found[index] for index in range(len(found)))}
    except ValueError:
        return {}
