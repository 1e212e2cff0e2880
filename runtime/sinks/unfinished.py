"""Unfinished video files of earlier runs: what they hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError
from av.packet import Packet

JOB_KEY = "comment"
"""Key of the container's metadata that holds the job: the run that a file belongs to."""


@dataclass(frozen=True)
class Unfinished:
    """Contents of an unfinished file."""

    frames: int = 0
    """Number of whole frames."""
    job: str = ""
    """The job that wrote it."""


def inspect_unfinished(path: Path, *, max_frames: int | None = None) -> Unfinished:
    """Count the whole frames of a file, up to `max_frames`; a missing or unreadable file holds none."""
    try:
        with av.open(str(path)) as container:
            frames = sum(1 for _ in islice(read_whole_packets(container), max_frames))
            return Unfinished(frames, container.metadata.get(JOB_KEY, container.metadata.get(JOB_KEY.upper(), "")))
    except (FFmpegError, ValueError, OSError, IndexError):
        return Unfinished()


def read_whole_packets(container: av.container.InputContainer) -> Iterator[Packet[Any]]:
    """Yield the packets of the video stream in decoding order, up to the first one that is incomplete."""
    packets = container.demux(container.streams.video[0])
    while True:
        try:
            packet = next(packets)
        except (StopIteration, FFmpegError):
            return
        if packet.pts is None or packet.is_corrupt:  # the empty packet at the end, or one that is cut off
            return
        yield packet
