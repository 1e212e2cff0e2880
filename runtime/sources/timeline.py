"""Times of a container's packets, made continuous where its clock begins below zero, jumps or wraps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer
from av.format import Flags
from av.packet import Packet

# The first two are FFmpeg's own limits: its demuxers of broadcast formats promise no continuous clock.
_LONGEST_GAP_S = 10
"""Seconds that the clock of a broadcast format may stand still between two packets of a stream."""
_LONGEST_STEP_BACK_S = Fraction(1, 10)
"""Seconds that it may run backwards: more is a jump."""
_LONGEST_REORDERING_S = 5
"""Seconds that the times of other formats may run backwards; FFmpeg guesses their decoding times, at times wrongly."""
_LONGEST_OVERLAP_S = 1
"""Seconds that a stream may begin too early after a jump, if the streams stay in step that way."""

_LONGEST_PACKET_S = 60
"""Longest credible duration of a packet in seconds: FFmpeg states 25 hours for the last one of some Ogg files."""


def duration_of(packet: Packet[Any]) -> Fraction:
    """Return the duration of a packet in seconds; 0 if it is not stated or not credible."""
    duration = (packet.duration or 0) * (packet.time_base or Fraction(0))
    return duration if 0 <= duration <= _LONGEST_PACKET_S else Fraction(0)


@dataclass
class _Track:
    """State of one stream."""

    shift: Fraction
    """Seconds that are added to its times."""
    candidate: Fraction | None = None
    """Another shift, which its last packet needed; a second packet that needs it confirms the jump."""
    last: Fraction | None = None
    """Decoding time of its last packet in seconds, shifted."""


class Timeline:
    """Moves the times of packets so that none is negative, and packets after a jump follow those before.

    All streams are moved by the same time, so that sound stays in step. A packet whose time does not fit is placed
    after its predecessor; only a second one shows that the clock has jumped. A transport stream begins below zero if
    its clock wraps soon after its start (at 2^33 / 90000 s); it jumps where two recordings were joined.

    Two timelines of the same file move its packets by the same times, if both get all of them in the order of the file.
    """

    def __init__(self, container: InputContainer) -> None:
        start = Fraction(container.start_time or 0, av.time_base)
        self._shift = max(Fraction(0), -start)
        """Shift after the last jump that was confirmed."""
        self._newest = self._shift
        self._end = Fraction(0)
        """Latest end of a packet so far in seconds, shifted."""
        self._tracks: dict[int, _Track] = {}
        self.may_jump = Flags.ts_discont in Flags(container.format.flags)
        """Whether the format is one of broadcasts, whose clock may jump."""
        self._longest_gap = _LONGEST_GAP_S if self.may_jump else math.inf
        self._longest_step_back = _LONGEST_STEP_BACK_S if self.may_jump else Fraction(_LONGEST_REORDERING_S)
        self.jumps = 0
        """Number of jumps so far."""

    def place(self, packet: Packet[Any]) -> None:
        """Move the times of a packet; those of subtitles and data are moved as the last packet before."""
        if not packet.time_base:
            return
        if packet.stream.type not in ("video", "audio"):
            move(packet, self._shift)
            return
        track = self._tracks.setdefault(packet.stream.index, _Track(self._shift))
        move(packet, track.shift if packet.dts is None else self._find_shift(track, packet))
        if packet.pts is not None:
            self._end = max(self._end, packet.pts * packet.time_base + duration_of(packet))
        if packet.dts is not None:
            track.last = packet.dts * packet.time_base

    def _find_shift(self, track: _Track, packet: Packet[Any]) -> Fraction:
        """Return the shift of a packet that has a decoding time."""
        assert packet.dts is not None
        assert packet.time_base
        time = packet.dts * packet.time_base
        if self._fits(track, time + track.shift, self._longest_step_back):
            track.candidate = None
            return track.shift
        if track.candidate is not None and self._fits(track, time + track.candidate, self._longest_step_back):
            if track.candidate != self._shift:
                self.jumps += 1
            self._shift = track.shift = track.candidate
            return track.shift
        if not self._fits(track, time + self._newest, Fraction(_LONGEST_OVERLAP_S)):
            self._newest = self._end - (packet.dts if packet.pts is None else packet.pts) * packet.time_base
        track.candidate = self._newest
        return self._newest

    def _fits(self, track: _Track, time: Fraction, longest_step_back: Fraction) -> bool:
        return track.last is None or -longest_step_back <= time - track.last <= self._longest_gap


def move(packet: Packet[Any], seconds: Fraction) -> None:
    """Add seconds to the times of a packet."""
    assert packet.time_base
    ticks = round(seconds / packet.time_base)
    if packet.pts is not None:
        packet.pts += ticks
    if packet.dts is not None:
        packet.dts += ticks
