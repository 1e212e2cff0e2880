"""H.264 in MP4, MOV or Matroska through PyAV, with the source's time stamps and sound."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
from av.error import FFmpegError

from runtime.colour import tag_bt709, video_frame_from_bgr
from runtime.files import PendingFile, unwritable
from runtime.frame import Frame
from runtime.sinks.audio import AudioCopy
from runtime.sources.base import SourceInfo

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv"})

_ENCODER = {"crf": "18", "preset": "veryfast"}
_FRAGMENT_SECONDS = 1
"""A killed run loses what it wrote since the last fragment."""
_LONGEST_GOP = 250
"""Frames in a fragment at most: some containers state rates that no camera has."""


class VideoSink:
    """Writes frames to a video file; the first one decides its size.

    Until `close` the file is fragmented, so that it plays whatever happens to the process;
    then it becomes an ordinary one with its index. Frames of odd width or height are stored
    as 4:4:4, the only H.264 that keeps them; frames of another size than the first are scaled.
    """

    def __init__(self, path: Path, source: SourceInfo) -> None:
        self._path = path
        self._source = source
        self._warnings: list[str] = []
        self._scaled = 0
        self._container: av.container.OutputContainer | None = None
        self._audio: AudioCopy | None = None
        self._file = PendingFile(path)
        self._closed = False

    @property
    def warnings(self) -> list[str]:
        scaled = [f"{self._scaled} frames changed size and were scaled to the first"] if self._scaled else []
        return self._warnings + (self._audio.warnings if self._audio else []) + scaled

    def write(self, frame: Frame) -> None:
        try:
            if self._container is None:
                self._open(frame)
            self._encode(frame)
        except (FFmpegError, OSError) as error:
            raise unwritable(self._path, error) from error

    def close(self, *, complete: bool) -> str | None:
        if self._closed:
            return None
        self._closed = True
        try:
            self._finish(with_rest_of_sound=complete)
        except (FFmpegError, OSError) as error:
            kept = self._file.close(complete=False)
            if complete:
                raise unwritable(self._path, error) from error
        else:
            kept = self._file.close(complete=complete)
        return str(kept) if kept else None

    def _open(self, first: Frame) -> None:
        width, height = first.size
        even = width % 2 == 0 and height % 2 == 0
        if not even:
            self._warnings.append(f"{width}x{height} is odd: stored as H.264 4:4:4, which some hardware players refuse")
        container = av.open(str(self._file.partial), "w", options=_container_options(self._path, self._source))
        self._container = container
        self._stream = container.add_stream("libx264", rate=self._source.frame_rate, options=dict(_ENCODER))
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p" if even else "yuv444p"
        self._stream.time_base = self._source.time_base
        encoder = self._stream.codec_context
        encoder.time_base = self._source.time_base
        encoder.gop_size = max(1, min(_LONGEST_GOP, round(_FRAGMENT_SECONDS * self._source.frame_rate)))
        tag_bt709(encoder)
        if self._source.audio:
            self._audio = AudioCopy(self._source.audio, container)

    def _encode(self, frame: Frame) -> None:
        assert self._container is not None
        pixels = frame.pixels
        size = (self._stream.width, self._stream.height)
        if frame.size != size:
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
            self._scaled += 1
        picture = video_frame_from_bgr(pixels, pixel_format=str(self._stream.pix_fmt))
        picture.pts, picture.time_base = frame.pts, frame.time_base
        if self._audio:
            self._audio.copy_until(frame.pts_seconds)
        self._container.mux(self._stream.encode(picture))

    def _finish(self, *, with_rest_of_sound: bool) -> None:
        if self._container is None:
            return
        try:
            self._container.mux(self._stream.encode(None))
            if self._audio and with_rest_of_sound:
                self._audio.copy_until(None)
        finally:
            if self._audio:
                self._audio.close()
            self._container.close()


def _container_options(path: Path, source: SourceInfo) -> dict[str, str]:
    if path.suffix.lower() == ".mkv":
        return {}  # plays up to its last cluster as it is
    return {
        # Fragments until the end; the index of each waits for its first frames, so that it can
        # say at which time stamp they start, in ticks of the source.
        "movflags": "hybrid_fragmented+delay_moov",
        "movie_timescale": str(min(source.time_base.denominator, 2**31 - 1)),
    }
