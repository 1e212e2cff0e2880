"""Sound of the source, copied packet by packet without decoding."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.error import FFmpegError
from av.format import Flags
from av.packet import Packet

from runtime.sinks.audio_trial import Bitstream, find_refusal, read_first_packets
from runtime.sinks.timed_packets import TimedPackets, is_refusal, start_of
from runtime.sources.containers import has_codec, open_container
from runtime.sources.timeline import Timeline, duration_of
from runtime.tags import copy_track_tags


@dataclass
class _Track:
    """A stream of sound that is copied."""

    output: AudioStream
    bitstream: Bitstream
    last_start: Fraction | None = None
    """Decoding time of the last packet in seconds."""
    next_dts: int | None = None
    """Smallest decoding time that the next packet may have, in ticks of the output."""
    hidden: Packet[Any] | None = None
    """Last packet that players of the source do not play, for example before the place where a clip was cut."""


class AudioCopy:
    """Copies all sound streams of a media file into an output container that is being written.

    It opens the file a second time, so that sound never waits for frames in a queue. Streams that the container cannot
    hold are left out, as are packets that do not follow the one before or are damaged; `warnings` names both. Times are
    moved as those of the frames are, see `Timeline`, and by `delay` seconds. Methods raise PyAV's own errors if the
    output cannot be written.
    """

    def __init__(self, path: Path, output: OutputContainer, *, delay: Fraction = Fraction(0)) -> None:
        self._output = output
        self._warnings: list[str] = []
        self._skipped = 0
        """Number of packets that were left out."""
        self._min_step_ticks = 0 if Flags.ts_nonstrict in Flags(output.format.flags) else 1
        self._can_hide = "matroska" not in output.format.name
        """Whether the container can say that packets are not to be played."""
        self._tracks: dict[int, _Track] = {}
        first_packets = read_first_packets(path)
        self._input = open_container(path)
        timeline = Timeline(self._input)
        for stream in self._input.streams.audio:
            self._add_track(stream, first_packets.get(stream.index, []))
        self._packets = TimedPackets(self._input, timeline, [*self._tracks], delay=delay)

    @property
    def warnings(self) -> list[str]:
        """Sentences about sound that was left out so far."""
        skipped = [f"{self._skipped} packets of sound did not follow or were damaged, and were left out"]
        damaged = ["sound ends early: the rest of it is damaged"]
        return self._warnings + (damaged if self._packets.is_damaged else []) + (skipped if self._skipped else [])

    def copy_until(self, seconds: float | None) -> None:
        """Write the packets that start before a time in seconds; None writes all that are left."""
        for packet in self._packets.take_until(seconds):
            index = packet.stream.index
            if index not in self._tracks:
                continue
            try:
                self._write_shown(packet, self._tracks[index])
            except FFmpegError as error:
                if not is_refusal(error):
                    raise
                del self._tracks[index]
                self._warnings.append(f"sound ends early: the container does not accept it ({error.strerror})")

    def close(self) -> None:
        """Close the media file."""
        self._input.close()

    def _add_track(self, stream: AudioStream, packets: list[Packet[Any]]) -> None:
        refusal = find_refusal(stream, packets, self._output) if has_codec(stream) else "its codec is not known"
        if refusal:
            self._warnings.append(f"sound left out: {refusal}")
        else:
            copy = self._output.add_stream_from_template(stream)
            copy_track_tags(stream, copy)
            self._tracks[stream.index] = _Track(copy, Bitstream(stream))

    def _write_shown(self, packet: Packet[Any], track: _Track) -> None:
        """Write a packet; without a way to hide packets, only the last hidden one, from which the decoder starts."""
        if packet.is_discard and not self._can_hide:
            track.hidden = packet
            return
        if track.hidden:
            self._write(track.hidden, track)
            track.hidden = None
        self._write(packet, track)

    def _write(self, packet: Packet[Any], track: _Track) -> None:
        """Write a packet, unless it does not follow the one before or is damaged."""
        start = start_of(packet)
        is_late = track.last_start is not None and start < track.last_start
        converted = None if is_late else track.bitstream.convert(packet)
        if converted is None:
            self._skipped += 1
            return
        track.last_start = start
        for part in converted:
            self._space(part, track)
            part.stream = track.output
            self._output.mux(part)

    def _space(self, packet: Packet[Any], track: _Track) -> None:
        """Move a packet to a tick of its own if the container wants that: times in milliseconds may be equal."""
        assert track.output.time_base
        tick = track.output.time_base
        dts = round(start_of(packet) / tick)
        duration = duration_of(packet)
        if not duration:
            packet.duration = 0
        if track.next_dts is not None and dts < track.next_dts:
            packet.duration = round(duration / tick)
            packet.pts = packet.dts = dts = track.next_dts
            packet.time_base = tick
        track.next_dts = dts + self._min_step_ticks
