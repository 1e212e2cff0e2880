"""Options of a run, shared by the command line, the Python API, batches, Ray workers and the upload page."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from runtime.address import Address
from runtime.engines import BUNDLED, MODES, Mode, Provider, require_settings
from runtime.engines.tile_layout import OVERLAP_PX, require_tile
from runtime.engines.variants import PixelChoice
from runtime.errors import MAX_SECONDS, UsageError, require_in_range
from runtime.frame import Size
from runtime.sinks.encoder_settings import EncoderSettings
from runtime.sinks.encoders import choose_encoder
from runtime.sinks.pipe import PipeFormat
from runtime.sources import Deinterlace, LiveOptions, RawFrames


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of reading, restoring and writing frames; validated when they are made.

    Raises UsageError for a value that is out of range, and for options that exclude each other.
    """

    sources: tuple[str, ...] = ("0",)
    """Sources by name, as `open_source` takes them; camera 0 by default."""
    outputs: tuple[str, ...] = ()
    """Outputs by name, as `open_sink` takes them: one for each source, or several of one source."""

    engine: str | Path = BUNDLED
    """Engine as `open_engine` takes it."""
    provider: Provider = "auto"
    """Library that runs an `.onnx` engine."""
    threads: int = 0
    """Number of CPU threads of the engine; 0 for every core."""
    mode: Mode | None = None
    """`latency` or `throughput`; None for `latency` on live sources and `throughput` on files."""
    rebuild: bool = False
    """Build a plan again from its ONNX file if it does not fit this machine."""
    tile: Size | None = None
    """Width and height of tiles in pixels; None for tiles only where a frame needs them."""
    overlap_px: int = OVERLAP_PX
    """Overlap of neighbouring tiles in pixels."""
    pixels: PixelChoice = "auto"
    """Form of frames: `yuv420` keeps the planes of 4:2:0 video; `auto` does where source and engine can."""
    watch_engine: bool = False
    """Replace the engine between two frames when its file is replaced."""

    guard: bool = True
    """Write the blurred frame instead of an impossible result; see `OutputGuard`."""
    strict: bool = False
    """End with NumbersError at an impossible result instead."""
    skip_blur_score: float = 0.0
    """Frames with a lower `blur_score` are written as they are; 0 restores every frame."""
    max_latency_ms: float | None = None
    """Age in milliseconds above which a frame of a live source is dropped; None or 0 for no limit."""

    live: LiveOptions = field(default_factory=LiveOptions)
    """Options of cameras and network streams."""
    raw: RawFrames | None = None
    """Size and rate of raw frames on standard input; None where standard input is a video."""
    decoder: str = "auto"
    """Decoder of videos: `auto`, `software`, `cuda`, `vaapi` or `gstreamer:ELEMENT`."""
    deinterlace: Deinterlace = "auto"
    """`auto` makes frames of the fields of interlaced video; `off` keeps the fields."""
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    """Codec, encoder and quality of videos."""
    segment_s: float = 0.0
    """Length of the files of a recording in seconds; 0 for one file."""
    pipe: PipeFormat = "y4m"
    """Format of frames on standard output."""
    side_by_side: bool = False
    """Write the blurred frame to the left of the restored one."""
    resume: bool = False
    """Continue a video that an earlier run with the same options left unfinished."""
    overwrite: bool | None = None
    """Replace existing outputs; None asks on a terminal and refuses elsewhere."""

    show: bool = False
    """Show frames in a window; the default where there is neither an output nor a status page."""
    serve: Address | None = None
    """Address of the status page; None for no page."""
    serve_token: str | None = field(default=None, repr=False)
    """Token that the status page asks for: `@FILE`, `${NAME}` or the token itself; None makes one where other machines
    can reach the page, and asks for none on loopback."""
    serve_cert: Path | None = None
    """Certificate of the status page, a PEM file; None serves HTTP."""
    serve_key: Path | None = None
    """Key of the certificate, a PEM file; None if it is in the file of the certificate."""
    stats: Path | None = None
    """File for frame counts and latencies as JSON."""
    debug: bool = False
    """Print the traceback of an error."""

    def __post_init__(self) -> None:
        require_settings(self.provider, self.threads, self.mode or MODES[0])
        if self.pipe not in get_args(PipeFormat):
            raise UsageError(f"unknown pipe format {self.pipe!r}", hint="use y4m or raw")
        if self.deinterlace not in get_args(Deinterlace):
            raise UsageError(f"unknown deinterlacing {self.deinterlace!r}", hint="use auto or off")
        if self.pixels not in get_args(PixelChoice):
            raise UsageError(f"unknown form of frames {self.pixels!r}", hint=f"use {', '.join(get_args(PixelChoice))}")
        if self.strict and not self.guard:
            raise UsageError("strict is about what the guard finds, and it is off", hint="leave out one of them")
        choose_encoder(self.encoder)
        require_in_range("blur score below which a frame is sharp", self.skip_blur_score, 0, 1)
        require_in_range("seconds of a segment", self.segment_s, 0, MAX_SECONDS)
        require_in_range("milliseconds of latency", self.max_latency_ms, 0, 1000 * MAX_SECONDS)
        if self.serve is None and (self.serve_token or self.serve_cert or self.serve_key):
            raise UsageError("token, certificate or key of a page that is not served", hint="give its address (serve)")
        require_tile(self.tile, self.overlap_px)
        self._require_places()

    def _require_places(self) -> None:
        """Raise UsageError for sources and outputs that have no name, or do not fit an option about them."""
        if any(isinstance(names, str) for names in (self.sources, self.outputs)):
            raise UsageError("sources and outputs are tuples of names", hint="write ('clip.mp4',)")
        if not self.sources or "" in self.sources:
            raise UsageError("no source", hint="give the name of a source")
        if "" in self.outputs:
            raise UsageError("output has no name", hint="give the name of a file or a folder")
