"""Contents of a media file besides frames and sound: further tracks, chapters and tags."""

from __future__ import annotations

import io
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import AttachmentStream, Discard, Disposition, Stream
from av.video.stream import VideoStream

from runtime.sinks.mp4_cover import add_covers, is_mp4_cover
from runtime.sinks.subtitles import ConvertedSubtitles, convert_subtitles, has_styles
from runtime.sinks.timed_packets import TimedPackets, is_refusal
from runtime.sources.containers import open_container
from runtime.sources.timeline import Timeline
from runtime.tags import copy_track_tags, kept_tags, tag_flags, track_tags

_MIME_TYPES = {"mjpeg": "image/jpeg", "png": "image/png", "bmp": "image/bmp", "gif": "image/gif"}
"""Types of covers by their codecs: those that MP4 may hold."""
_WITH_COVERS = frozenset({"mp4", "ipod"})
"""FFmpeg's names of the containers `.mp4` and `.m4v`."""
_ANY_TYPE = "application/octet-stream"


class Extras:
    """Copies subtitles, data tracks, attachments, cover, chapters and tags of a media file into another container.

    It opens the file once more, so that they never wait for frames in a queue. Text subtitles of a codec that the
    container does not hold are converted. What else it cannot hold is left out and named in `warnings`. Times are moved
    as those of the frames are, see `Timeline`, and by `delay` seconds. Methods raise PyAV's own errors if the output
    cannot be written.
    """

    def __init__(self, path: Path, *, delay: Fraction = Fraction(0)) -> None:
        self._path, self._delay = path, delay
        self._input = open_container(path)
        self._timeline = Timeline(self._input)
        self._tags = kept_tags(self._input.metadata)
        self._left_out: list[str] = []
        self._copies: dict[int, Stream] = {}
        self._converted: dict[int, ConvertedSubtitles] = {}
        self._unstyled: list[str] = []
        """Names of subtitles that lost their styles."""
        self._covers: dict[str, tuple[str, bytes]] = {}
        """Codec and content of covers that are added at the end, by their names."""
        self._refused = 0
        """Number of packets that the container did not accept."""

    @property
    def warnings(self) -> list[str]:
        """Sentences about what was left out, and about damage."""
        counts = Counter(self._left_out).items()
        names = ", ".join(name if count == 1 else f"{name} ({count} of them)" for name, count in counts)
        left_out = [f"left out, because the output cannot hold them: {names}"]
        unstyled = [f"fonts, places and effects of subtitles left out: {', '.join(self._unstyled)}"]
        refused = [f"{self._refused} packets of subtitles or data did not follow or were damaged, and were left out"]
        damaged = ["subtitles and data end early: the rest of them is damaged"]
        return (
            (left_out if self._left_out else [])
            + (unstyled if self._unstyled else [])
            + (refused if self._refused else [])
            + (damaged if self._packets.is_damaged else [])
        )

    def movflags(self, suffix: str) -> str:
        """Return what the option of that name needs besides, for an output that holds all tags."""
        return tag_flags(suffix, self._tags)

    def describe(self, output: OutputContainer, video: VideoStream) -> None:
        """Add tags, chapters and tracks to an output that has its other streams, before its header is written."""
        self._output = output
        output.metadata.update(self._tags)
        source = next(stream for stream in self._input.streams.video if not _is_cover(stream))
        video.metadata.update(track_tags(source))
        for stream in self._input.streams:
            if stream.type == "audio" or stream is source or stream.discard == Discard.all:  # titles of chapters
                continue
            if "timecode" in stream.metadata and stream.type == "data":
                video.metadata.setdefault("timecode", stream.metadata["timecode"])  # muxers make the track of it
            elif not self._add(stream, output):
                self._left_out.append(_name(stream))
        self._add_chapters(output, video)
        indices = sorted({*self._copies, *self._converted})
        read = [] if self._timeline.may_jump else [self._input.streams[index] for index in indices]
        self._packets = TimedPackets(self._input, self._timeline, indices, delay=self._delay, read=read)

    def copy_until(self, seconds: float | None) -> None:
        """Write the packets that start before a time in seconds; None writes all that are left."""
        for packet in self._packets.take_until(seconds):
            try:
                self._write(packet)
            except FFmpegError as error:
                if not is_refusal(error):
                    raise
                self._refused += 1

    def _write(self, packet: Packet[Any]) -> None:
        index = packet.stream.index
        if index in self._converted:
            self._output.mux(self._converted[index].convert(packet))
        else:
            packet.stream = self._copies[index]
            self._output.mux(packet)

    def close(self) -> None:
        """Close the media file."""
        self._input.close()

    def _add_chapters(self, output: OutputContainer, video: VideoStream) -> None:
        chapters = self._input.chapters()
        output.set_chapters(chapters)
        is_matroska = "matroska" in output.format.name
        if chapters and not is_matroska and "timecode" in video.metadata:
            del video.metadata["timecode"]  # FFmpeg would make subtitles of the titles of the chapters
            self._left_out.append("timecode")

    def _add(self, stream: Stream, output: OutputContainer) -> bool:
        """Add a copy of a track and return True; return False if the container cannot hold it."""
        if _is_cover(stream):
            return self._add_cover(stream, output)
        is_unknown = stream.type == "data" and not _codec(stream)  # what explains its bytes would not be copied
        if stream.type == "video" or is_unknown:
            return False
        if not _can_hold(output, stream):
            return self._add_converted(stream, output)
        if isinstance(stream, AttachmentStream):
            output.add_attachment(stream.name or "attachment", stream.mimetype or _ANY_TYPE, stream.data)
            return True
        copy = output.add_stream_from_template(stream)
        copy_track_tags(stream, copy)
        self._copies[stream.index] = copy
        return True

    def _add_converted(self, stream: Stream, output: OutputContainer) -> bool:
        converted = convert_subtitles(stream, output)
        if converted is None:
            return False
        copy_track_tags(stream, converted.stream)
        self._converted[stream.index] = converted
        if has_styles(stream):
            self._unstyled.append(_name(stream))
        return True

    def _add_cover(self, stream: Stream, output: OutputContainer) -> bool:
        """Add a cover as Matroska has it, or keep it for `finish`, which adds it to MP4; MOV holds none."""
        is_matroska, codec = "matroska" in output.format.name, str(_codec(stream))
        if not (is_matroska or (output.format.name in _WITH_COVERS and is_mp4_cover(codec))):
            return False
        with open_container(self._path) as container:
            cover = bytes(next(container.demux(container.streams[stream.index])))
        if not is_matroska:
            self._covers[_name(stream)] = (codec, cover)
            return True
        tags, mime_type = stream.metadata, _MIME_TYPES.get(codec, _ANY_TYPE)
        output.add_attachment(tags.get("filename", "cover"), tags.get("mimetype", mime_type), cover)
        return True

    def finish(self, path: Path) -> None:
        """Add what only a complete file can hold to an output that is closed."""
        if self._covers and not add_covers(path, list(self._covers.values())):
            self._left_out += self._covers


def _can_hold(output: OutputContainer, stream: Stream) -> bool:
    """Return whether a container can hold a copy of a track: found out by writing a header in memory."""
    try:
        with av.open(io.BytesIO(), "w", format=output.format.name, options=output.options) as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
    except (FFmpegError, ValueError):
        return False
    return True


def _is_cover(stream: Stream) -> bool:
    return bool(stream.disposition & Disposition.attached_pic)


def _name(stream: Stream) -> str:
    """Return what a track is, for a message: `subtitles (subrip, deu)`."""
    kind = "cover" if _is_cover(stream) else {"subtitle": "subtitles"}.get(stream.type, f"{stream.type} track")
    if isinstance(stream, AttachmentStream):
        return f"attachment {stream.name}"
    facts = [fact for fact in (_codec(stream), stream.language) if fact and fact != "und"]
    return f"{kind} ({', '.join(facts)})" if facts else kind


def _codec(stream: Stream) -> str | None:
    context = stream.codec_context
    return context.codec.canonical_name if context else getattr(stream, "name", None)
