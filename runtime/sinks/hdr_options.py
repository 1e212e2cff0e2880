"""Metadata of high dynamic range as parameters of encoders, which write it into the stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction

from runtime.hdr_metadata import HdrMetadata, MasteringDisplay

_COORDINATE = Fraction(1, 50_000)
"""Step of a chromaticity coordinate in H.264 and HEVC."""
_LUMINANCE = Fraction(1, 10_000)
"""Step of a luminance in H.264 and HEVC, in candela per square metre."""


def _format_steps(number: Fraction, step: Fraction) -> str:
    return str(round(number / step))


def _format_decimal(number: Fraction, step: Fraction) -> str:
    return f"{float(number):.{len(str(step.denominator))}f}"


_PARAMETERS: Mapping[str, tuple[str, str, str, Callable[[Fraction, Fraction], str]]] = {
    "libx264": ("x264-params", "mastering-display", "cll", _format_steps),
    "libx265": ("x265-params", "master-display", "max-cll", _format_steps),
    "libsvtav1": ("svtav1-params", "mastering-display", "content-light", _format_decimal),
}
"""FFmpeg's option, names of the two parameters in it, and form of a number, by the encoder."""


def add_hdr_options(encoder: str, options: Mapping[str, str], metadata: HdrMetadata) -> dict[str, str]:
    """Return FFmpeg's options of an encoder with those for the metadata; without a change if it takes none."""
    if encoder not in _PARAMETERS:
        return dict(options)
    name, display, light, format_number = _PARAMETERS[encoder]
    parameters = [options[name]] if name in options else []
    if metadata.display:
        parameters.append(f"{display}={_format_display(metadata.display, format_number)}")
    if metadata.light:
        parameters.append("{}={},{}".format(light, *metadata.light))
    return {**options, name: ":".join(parameters)} if parameters else dict(options)


def hdr_warnings(encoder: str, metadata: HdrMetadata) -> list[str]:
    """Return sentences about metadata that the encoder does not write."""
    lost = [*metadata.of_each_frame]
    if encoder not in _PARAMETERS:
        lost += ["mastering display"] if metadata.display else []
        lost += ["light level"] if metadata.light else []
    return [f"HDR metadata left out: {', '.join(lost)}"] if lost else []


def _format_display(display: MasteringDisplay, format_number: Callable[[Fraction, Fraction], str]) -> str:
    """Return a display in the order that all encoders take: green, blue, red, white, luminance."""
    colours = {"G": display.green, "B": display.blue, "R": display.red, "WP": display.white}
    words = [
        f"{name}({format_number(x, _COORDINATE)},{format_number(y, _COORDINATE)})" for name, (x, y) in colours.items()
    ]
    low, high = (format_number(value, _LUMINANCE) for value in (display.min_luminance, display.max_luminance))
    return f"{''.join(words)}L({high},{low})"
