"""Trial of a sound stream: whether a muxer accepts it, found out by writing a few packets in memory."""

from __future__ import annotations

import io
from itertools import islice
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet

from runtime.errors import is_out_of_memory
from runtime.sources.containers import open_container
from runtime.sources.packets import read_packets

_TRIED_PACKETS = 8
"""Number of packets that are written: the first of a stream may be damaged, or lack what later ones have."""
_READ_PACKETS = 500
"""Number of packets of all streams that are read to find them; a stream that begins later is tried without packets."""


class Bitstream:
    """Form of a sound stream's packets that muxers take.

    AAC without codec data is in ADTS form, as transport streams hold it: each packet begins with a header, and MP4
    wants the header's contents once.
    """

    def __init__(self, stream: AudioStream) -> None:
        is_adts = stream.codec_context.name == "aac" and not stream.codec_context.extradata_size
        self._filter = BitStreamFilterContext("aac_adtstoasc", stream) if is_adts else None

    def convert(self, packet: Packet[Any]) -> list[Packet[Any]] | None:
        """Return the packets to write instead of one; None if it is damaged."""
        if self._filter is None:
            return [packet]
        try:
            return self._filter.filter(packet)
        except FFmpegError as error:
            if is_out_of_memory(error):
                raise
            return None


def read_first_packets(path: Path) -> dict[int, list[Packet[Any]]]:
    """Return the first packets of each sound stream by its index; raises PyAV's own errors for an unreadable file."""
    first: dict[int, list[Packet[Any]]] = {}
    with open_container(path) as container:
        try:
            for packet in islice(read_packets(container), _READ_PACKETS):
                kept = first.setdefault(packet.stream.index, [])
                if packet.stream.type == "audio" and packet.dts is not None and len(kept) < _TRIED_PACKETS:
                    kept.append(packet)
                if all(len(first.get(stream.index, [])) == _TRIED_PACKETS for stream in container.streams.audio):
                    break
        except FFmpegError as error:
            if is_out_of_memory(error):
                raise
    return first


def find_refusal(stream: AudioStream, packets: list[Packet[Any]], output: OutputContainer) -> str | None:
    """Return in a few words why a sound stream cannot be copied into a container; None if it can.

    `supported_codecs` of a container does not tell: muxers refuse some of these codecs when they write.
    """
    try:
        with av.open(io.BytesIO(), "w", format=output.format.name, options=output.options) as trial:
            copy = trial.add_stream_from_template(stream)
            bitstream = Bitstream(stream)
            trial.start_encoding()
            for packet in packets:
                for part in bitstream.convert(packet) or []:
                    part.stream = copy
                    trial.mux(part)
    except (FFmpegError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        return f"{stream.codec_context.name} cannot be copied into {Path(output.name).suffix}"
    return None
