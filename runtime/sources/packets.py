"""Packets of a media file, read across some kinds of damage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from av.container import InputContainer
from av.error import InvalidDataError
from av.packet import Packet
from av.stream import Stream

MAX_DAMAGED_PACKETS = 1000
"""Number of packets in a row that may fail to be read or decoded before the file is given up."""
_INVALID_DATA = 1_094_995_529
"""FFmpeg's AVERROR_INVALIDDATA, without its sign."""


def read_packets(container: InputContainer, streams: Sequence[Stream] = ()) -> Iterator[Packet[Any]]:
    """Yield the packets of streams, all by default, in the order of the file, and an empty one for each at the end.

    Raises PyAV's own errors. FFmpeg asks to be called again (EAGAIN) where some kinds of damage are; PyAV takes that
    for an error, and fails with IndexError at the end if a stream has appeared after the beginning. A packet that does
    not fit into memory is InvalidDataError: damage has given it a size that no file has. A caller who keeps frames
    asks whether there is memory for those.
    """
    asked_again = 0
    while True:
        try:
            for packet in container.demux(*streams):
                asked_again = 0
                yield packet
        except BlockingIOError:
            asked_again += 1
            if asked_again == MAX_DAMAGED_PACKETS:
                raise
        except MemoryError:
            raise InvalidDataError(_INVALID_DATA, "a packet does not fit into memory", str(container.name)) from None
        except IndexError:
            return
        else:
            return
