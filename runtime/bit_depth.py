"""10 bits and high dynamic range in a run: where they are kept, and what is said where they are not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from runtime.options import RunOptions
from runtime.sinks import STDOUT
from runtime.sinks.pipe import PipeFormat
from runtime.sinks.video import SUFFIXES
from runtime.sources import Source
from runtime.sources.base import PlanesSource
from runtime.spec import PixelFormat
from runtime.urls import is_url


def keep_10_bits(source: Source, outputs: Sequence[str], pipe: PipeFormat = "y4m") -> None:
    """Let a source of more than 8 bits deliver planes of 10 bits if an output can store them.

    They also go around an engine for BGR: see `Pipeline`. Call it before the first frame is read. `pipe` is the format
    of standard output.
    """
    has_10_bits = source.info.has_planes and source.info.format.stored_bits > 8
    if has_10_bits and any(_stores_10_bits(output, pipe) for output in outputs) and isinstance(source, PlanesSource):
        source.deliver_planes()


def _stores_10_bits(output: str, pipe: PipeFormat) -> bool:
    if output == STDOUT:
        return pipe == "y4m"
    return Path(output).suffix.lower() in SUFFIXES and not is_url(output)


def describe_pixels(pixels: PixelFormat, reason: str, sources: Sequence[Source]) -> str:
    """Return the form of the frames of a run in words; `reason` says why the engine gets no planes."""
    formats = [source.info.format for source in sources]
    has_10_bits = any(form.bits == 10 for form in formats)
    if pixels == "yuv420":
        words = ["4:2:0, 10 bits" if has_10_bits else "4:2:0, as decoded"]
    else:
        words = [f"BGR ({reason})", *(["its change is added to 4:2:0 of 10 bits"] if has_10_bits else [])]
    ranges = dict.fromkeys(form.range_name for form in formats if form.range_name)
    return "; ".join([*words, *(f"{name}, which the network sees as it is coded" for name in ranges)])


def find_pale_viewers(options: RunOptions, outputs: Sequence[str], sources: Sequence[Source]) -> Iterator[str]:
    """Yield sentences about a window and a status page that show high dynamic range as if it were none."""
    has_window = options.show or not (outputs or options.serve)
    places = (["frames in the window"] if has_window else []) + (["frames on the page"] if options.serve else [])
    for place in places:
        yield from dict.fromkeys(line for source in sources for line in source.info.format.tag_warnings(place))
