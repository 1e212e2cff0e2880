"""Network streams through PyAV, with as little buffering as FFmpeg allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import av
from av.error import ExitError, FFmpegError
from av.packet import Packet

from runtime.errors import SourceLostError
from runtime.frame import Pixels
from runtime.sources.containers import find_rate, has_codec
from runtime.sources.decoders import open_device
from runtime.sources.deinterlace import Interlacing
from runtime.sources.live import no_frame_reason
from runtime.sources.planes import DecodedImage
from runtime.stream_format import StreamFormat

Transport = Literal["tcp", "udp"]
_LOW_LATENCY = {"fflags": "nobuffer", "flags": "low_delay", "probesize": "500000", "analyzeduration": "500000"}


class NetworkFeed:
    """One connection to a stream by its address: rtsp, rtmp, http, udp, and other schemes that FFmpeg reads.

    `transport` is that of RTSP. `timeout_s` limits connecting and each read inside FFmpeg, but it is not reliable:
    FFmpeg has been seen to take twice as long, or to block for ever. `LiveSource` keeps the time itself. Raises
    SourceLostError if the server cannot be reached or sends no video.

    `interlacing` says what becomes of interlaced frames; without it, they are deinterlaced, which delays each of them
    until the next one has arrived. `decoder` may be a device, such as `cuda`.
    """

    def __init__(
        self,
        url: str,
        *,
        transport: Transport = "tcp",
        timeout_s: float = 10.0,
        interlacing: Interlacing | None = None,
        decoder: str = "software",
    ) -> None:
        self._interlacing = interlacing or Interlacing()
        self._timeout_s = timeout_s
        options = dict(_LOW_LATENCY)
        if url.lower().startswith("rtsp"):
            options["rtsp_transport"] = transport
        if url.lower().startswith("udp"):
            options |= {"overrun_nonfatal": "1", "fifo_size": "50000"}
        try:
            hwaccel = open_device(decoder)
            self._container = av.open(url, options=options, timeout=timeout_s, hwaccel=hwaccel)
        except ExitError as error:  # FFmpeg's name of its timeout is "Immediate exit requested"
            raise SourceLostError(no_frame_reason(timeout_s), url, hint="check the address") from error
        except (FFmpegError, ValueError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise SourceLostError(str(reason), url, hint="check the address") from error
        stream = next(filter(has_codec, self._container.streams.video), None)
        if stream is None:
            what = "the codec of the video is not known" if self._container.streams.video else "no video in the stream"
            self._container.close()
            raise SourceLostError(what, url, hint="check the address and what the server sends")
        self._stream = stream
        self._stream.thread_type = "SLICE"  # threads over frames would each hold one frame back
        self.frame_rate = find_rate(self._stream)
        self.format = StreamFormat.read(self._stream)
        self.damaged_packets = 0

    def __iter__(self) -> Iterator[Callable[[], Pixels]]:
        """Yield a function for each decoded frame, which returns its pixels."""
        for frame in self._interlacing.apply(self._decode()):
            yield DecodedImage(frame)

    def close(self) -> None:
        """Close the connection."""
        self._container.close()

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Yield the frames of the stream; damaged packets are skipped and counted."""
        for packet in self._read_packets():
            try:
                frames = packet.decode()
            except FFmpegError:
                self.damaged_packets += 1
                continue
            for frame in frames:
                assert isinstance(frame, av.VideoFrame)
                yield frame

    def _read_packets(self) -> Iterator[Packet[Any]]:
        try:
            yield from self._container.demux(self._stream)
        except ExitError as error:
            raise TimeoutError(no_frame_reason(self._timeout_s)) from error
