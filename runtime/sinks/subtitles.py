"""Text subtitles, converted to the codec that another container holds."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Literal

import av
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Stream
from av.subtitles.codeccontext import SubtitleCodecContext
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import SubtitleSet

_STYLED = frozenset({"ass", "ssa"})
"""Codecs whose fonts, places and effects are lost in a conversion."""
_MOV_TEXT_TICK_S = Fraction(1, 1_000_000)
_EMPTY_MOV_TEXT = bytes(2)
"""Length of a text without characters (3GPP TS 26.245, 5.17)."""


class ConvertedSubtitles:
    """A new track of text subtitles in an output; bold, italics and times of the source are kept.

    MP4 and MOV hold `mov_text`, Matroska gets `subrip`. Raises FFmpegError or ValueError if the track cannot be
    decoded, or if the output holds no subtitles; the output has no new track then.
    """

    def __init__(self, source: SubtitleStream, output: OutputContainer) -> None:
        self.codec: Literal["subrip", "mov_text"] = "subrip" if "matroska" in output.format.name else "mov_text"
        """FFmpeg's name of the codec of the new track."""
        self._decoder = source.codec_context
        self._decoder.open(strict=False)
        header = self._decoder.subtitle_header
        trial = av.CodecContext.create(self.codec, "w")
        assert isinstance(trial, SubtitleCodecContext)
        trial.subtitle_header = header
        trial.open()
        self.stream: SubtitleStream = output.add_stream(self.codec)
        self.stream.codec_context.subtitle_header = header
        assert source.time_base
        # FFmpeg compares ticks of a subtitle with ticks of the video, ends a cue too early, and aborts at the next one;
        # with ticks as short as these it does not.
        self.stream.time_base = _MOV_TEXT_TICK_S if self.codec == "mov_text" else source.time_base
        self._shown_until: int | None = None
        """End of the last cue, in ticks of the source; None before the first, and if it states none."""

    def convert(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """Return the packets to write instead of one: none for a gap; raises FFmpegError for a damaged one."""
        subtitles: SubtitleSet | None = self._decoder.decode2(packet)
        if not subtitles:
            return []
        converted = self.stream.codec_context.encode_subtitle(subtitles)
        assert packet.time_base
        converted.pts, converted.dts, converted.duration = packet.pts, packet.dts, packet.duration
        converted.time_base, converted.stream = packet.time_base, self.stream
        return [*self._fill_gap(packet), converted] if self.codec == "mov_text" else [converted]

    def _fill_gap(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """Return an empty sample between the last cue and this one: `mov_text` is shown until the next sample."""
        end, start = self._shown_until, packet.pts
        self._shown_until = start + packet.duration if start is not None and packet.duration else None
        if start is None or end is None or end >= start:
            return []
        gap: Packet[Any] = Packet(_EMPTY_MOV_TEXT)
        gap.pts, gap.dts, gap.duration = end, end, start - end
        gap.time_base, gap.stream = packet.time_base, self.stream
        return [gap]


def convert_subtitles(stream: Stream, output: OutputContainer) -> ConvertedSubtitles | None:
    """Add a track of converted subtitles to an output; return None if they are no text, or cannot be converted."""
    if not isinstance(stream, SubtitleStream) or not stream.codec_context.codec.text_sub:
        return None
    try:
        return ConvertedSubtitles(stream, output)
    except (FFmpegError, ValueError):
        return None


def has_styles(stream: Stream) -> bool:
    """Return whether subtitles have fonts, places or effects, which a conversion loses."""
    return isinstance(stream, SubtitleStream) and stream.codec_context.codec.canonical_name in _STYLED
