"""The GStreamer Data Protocol: the format and the time of each buffer on a pipe.

A message is a header of 62 bytes and its content: a format ("caps"), a buffer, or an event. The elements `gdppay` and
`gdpdepay` of GStreamer's "bad" plug-ins write and read it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

_HEADER = struct.Struct(">BBBBHIQQQQHQ10x")
_VERSION = (1, 0)
_BUFFER, _CAPS = 1, 2
_DELTA_UNIT = 1 << 13
"""GStreamer's flag of a packet that needs others."""
_NONE = 2**64 - 1
_NS = 10**9


@dataclass(frozen=True)
class Buffer:
    """A frame or a packet from the child."""

    content: bytes
    caps: str
    """Format as GStreamer writes it, such as `video/x-raw, format=(string)I420, width=(int)64, ...`."""
    seconds: Fraction | None
    """Presentation time; None if the element states none."""
    is_key_frame: bool
    """Whether it needs no other; true for raw frames."""

    def field(self, name: str) -> str:
        """Return a field of the format; empty if it is not stated."""
        match = re.search(rf"\b{name}=(?:\([^)]*\))?([^,;\s]+)", self.caps)
        return match[1] if match else ""


class Reader:
    """Buffers from the bytes of a pipe, which may end anywhere in a message."""

    def __init__(self) -> None:
        self._caps = ""
        self._bytes = bytearray()

    @property
    def has_rest(self) -> bool:
        """Whether there is a part of a message."""
        return bool(self._bytes)

    def add(self, content: bytes) -> None:
        """Add bytes that were read."""
        self._bytes += content

    def take(self) -> Iterator[Buffer]:
        """Yield the whole buffers so far; raises ValueError for another version of the protocol."""
        while len(self._bytes) >= _HEADER.size:
            major, _, _, _, kind, size, pts, _, _, _, flags, _ = _HEADER.unpack_from(self._bytes)
            if major != _VERSION[0]:
                raise ValueError("unknown version of the GStreamer Data Protocol")
            if len(self._bytes) < _HEADER.size + size:
                return
            content = bytes(memoryview(self._bytes)[_HEADER.size : _HEADER.size + size])
            del self._bytes[: _HEADER.size + size]
            if kind == _CAPS:
                self._caps = content.rstrip(b"\0").decode(errors="replace")
            elif kind == _BUFFER:
                seconds = None if pts == _NONE else Fraction(pts, _NS)
                yield Buffer(content, self._caps, seconds, not flags & _DELTA_UNIT)


def pack_caps(caps: str) -> bytes:
    """Return the message that states the format of the buffers after it."""
    content = caps.encode() + b"\0"
    return _pack(_CAPS, len(content)) + content


def pack_header(content: bytes | memoryview, pts: Fraction, dts: Fraction | None = None) -> bytes:
    """Return what comes before the content of a buffer; times in seconds."""
    return _pack(_BUFFER, memoryview(content).nbytes, pts, dts)


def find_event(messages: bytes, name: str) -> bytes:
    """Return the message of an event by its name, such as `Segment`; empty if there is none."""
    start = 0
    while start + _HEADER.size <= len(messages):
        end = start + _HEADER.size + _HEADER.unpack_from(messages, start)[5]
        if messages[start + _HEADER.size : end].startswith(f"GstEvent{name},".encode()):
            return messages[start:end]
        start = end
    return b""


def _pack(kind: int, size: int, pts: Fraction | None = None, dts: Fraction | None = None) -> bytes:
    times = [_NONE if time is None else round(time * _NS) for time in (pts, dts)]
    return _HEADER.pack(*_VERSION, 0, 0, kind, size, times[0], _NONE, _NONE, _NONE, 0, times[1])
