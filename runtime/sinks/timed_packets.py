"""Packets that are copied from a media file, with the times of the output."""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator, Sequence
from fractions import Fraction
from typing import Any

from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.packet import Packet
from av.stream import Stream

from runtime.sources.packets import read_packets
from runtime.sources.timeline import Timeline, move

_REFUSALS = {errno.EINVAL, errno.EPERM}
"""Error numbers of a muxer that does not accept a packet; others are those of the file that is written."""


class TimedPackets:
    """The packets of some tracks of a file, each as soon as its time has come.

    Times are moved as those of the frames are, see `Timeline`, and by `delay` seconds. `indices`: positions of the
    tracks in the file. `read`: the streams that are read, all by default, which `timeline` needs if times may jump.
    """

    def __init__(
        self,
        container: InputContainer,
        timeline: Timeline,
        indices: Collection[int],
        *,
        delay: Fraction,
        read: Sequence[Stream] = (),
    ) -> None:
        self.is_damaged = False
        """Whether the rest of the file cannot be read."""
        self._packets = self._read(container, timeline, indices, delay, read) if indices else iter(())
        self._next = next(self._packets, None)

    def take_until(self, seconds: float | None) -> Iterator[Packet[Any]]:
        """Yield the packets that start before a time in seconds; None yields all that are left."""
        while self._next is not None and (seconds is None or start_of(self._next) < seconds):
            packet, self._next = self._next, next(self._packets, None)
            yield packet

    def _read(
        self,
        container: InputContainer,
        timeline: Timeline,
        indices: Collection[int],
        delay: Fraction,
        streams: Sequence[Stream],
    ) -> Iterator[Packet[Any]]:
        packets = read_packets(container, streams)
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError:
                self.is_damaged = True
                return
            if packet is None:
                return
            timeline.place(packet)
            if packet.stream.index in indices and packet.dts is not None and packet.time_base:
                move(packet, delay)
                yield packet


def start_of(packet: Packet[Any]) -> Fraction:
    """Return the decoding time of a packet in seconds."""
    assert packet.dts is not None
    assert packet.time_base is not None
    return packet.dts * packet.time_base


def is_refusal(error: FFmpegError) -> bool:
    """Whether an error of a muxer is that it does not accept a packet."""
    return error.errno in _REFUSALS or isinstance(error, InvalidDataError)
