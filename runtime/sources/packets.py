"""Packets of a media file, read across some kinds of damage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream

MAX_DAMAGED_PACKETS = 1000
"""Number of packets in a row that may fail to be read or decoded before the file is given up."""


def read_packets(container: InputContainer, streams: Sequence[Stream] = ()) -> Iterator[Packet[Any]]:
    """Yield the packets of streams, all by default, in the order of the file, and an empty one for each at the end.

    Raises PyAV's own errors. FFmpeg asks to be called again (EAGAIN) where some kinds of damage are; PyAV takes that
    for an error, and fails with IndexError at the end if a stream has appeared after the beginning.
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
        except IndexError:
            return
        else:
            return
