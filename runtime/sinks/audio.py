"""Sound of the source, copied packet by packet without decoding."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Stream

from runtime.sources.video import open_container


class AudioCopy:
    """Copies all sound streams of a media file into an output container that is being written.

    It opens the file a second time, so that sound never waits for frames in a queue. Streams that the container cannot
    hold are left out and named in `warnings`. Methods raise PyAV's own errors.
    """

    def __init__(self, path: Path, output: OutputContainer) -> None:
        self.warnings: list[str] = []
        self._output = output
        self._input = open_container(path)
        self._copies = {}
        for stream in self._input.streams.audio:
            if stream.codec_context.name in output.supported_codecs:
                self._copies[stream.index] = output.add_stream_from_template(stream)
            else:
                self.warnings.append(
                    f"sound left out: {output.format.name.split(',')[0]} files cannot hold {stream.codec_context.name}"
                )
        self._packets = self._read_packets()
        self._next = next(self._packets, None)

    def copy_until(self, seconds: float | None) -> None:
        """Write the packets that start before a time in seconds; None writes all that are left."""
        while self._next is not None and (seconds is None or _start_s(self._next) < seconds):
            packet, self._next = self._next, next(self._packets, None)
            packet.stream = self._copies[packet.stream.index]
            self._output.mux(packet)

    def close(self) -> None:
        """Close the media file."""
        self._input.close()

    def _read_packets(self) -> Iterator[Packet[Stream]]:
        if not self._copies:
            return
        packets = self._input.demux([self._input.streams[index] for index in self._copies])
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError:
                self.warnings.append("sound ends early: the rest of it is damaged")
                return
            if packet is None:
                return
            if packet.dts is not None:
                yield packet


def _start_s(packet: Packet[Stream]) -> float:
    assert packet.dts is not None
    assert packet.time_base is not None
    return float(packet.dts * packet.time_base)
