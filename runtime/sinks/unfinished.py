"""Unfinished video files of earlier runs: the whole frames that they hold, and the job that they belong to."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError
from av.packet import Packet

from runtime.files import write_json
from runtime.json_text import read_json


def count_whole_frames(path: Path, *, limit: int | None = None) -> int:
    """Return the number of whole frames of a file, at most `limit`; a missing or unreadable file holds none."""
    try:
        with av.open(str(path.absolute())) as container:
            return sum(1 for _ in islice(read_whole_packets(container), limit))
    except (FFmpegError, ValueError, OSError, IndexError):
        return 0


def job_file(partial: Path) -> Path:
    """Return the file that names the job of an unfinished file: `clip.partial.mp4.json`."""
    return partial.with_name(f"{partial.name}.json")


def write_job(partial: Path, job: str) -> None:
    """Write which job an unfinished file belongs to; raises OutputError."""
    write_json(job_file(partial), {"job": job})


def read_job(partial: Path) -> str:
    """Return the job that an unfinished file belongs to; empty if that is not known."""
    try:
        return str(read_json(job_file(partial))["job"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""


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
