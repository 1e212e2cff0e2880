"""Trial of an encoder on one frame, before anything else is opened, and the encoders that this machine has."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from fractions import Fraction

from av.error import FFmpegError

from runtime.errors import OutputError, UsageError, is_out_of_memory
from runtime.ffmpeg_log import FFmpegMessages, explain_failure
from runtime.frame import Size
from runtime.gstreamer import LAUNCH, PREFIX, has_element
from runtime.sinks.encoder import ChunkEncoder
from runtime.sinks.encoder_settings import DEFAULT_SETTINGS, EncoderSettings
from runtime.sinks.encoders import ENCODERS, has_encoder
from runtime.sinks.gstreamer_elements import ELEMENTS
from runtime.sinks.gstreamer_encoder import grey_frame
from runtime.sources.base import SourceInfo

TRIAL_SIZE: Size = (640, 360)
"""Size of a trial before the size of the frames is known; hardware has a smallest size."""
_TRIAL_BITRATE = 1_000_000
TRIAL_SOURCE = SourceInfo(name="trial", time_base=Fraction(1, 25), frame_rate=Fraction(25))


def require_encoder(settings: EncoderSettings, source: SourceInfo, size: Size) -> None:
    """Encode one grey frame of `size` pixels as the settings say; raises UsageError if that does not work here.

    The default settings are not tried: every PyAV has x264.
    """
    if settings == DEFAULT_SETTINGS:
        return
    encoder = ChunkEncoder(source, settings)
    if not (encoder.choice.element or has_encoder(encoder.choice.name)):
        what = f"the FFmpeg of PyAV was built without {encoder.choice.name}"
        raise UsageError(what, hint=f"this machine has {', '.join(find_encoders())}")
    with FFmpegMessages() as messages:
        try:
            _try(encoder, size)
        except OutputError as error:  # an odd size
            raise UsageError(error.what, hint=error.hint) from error
        except (FFmpegError, OSError, ValueError, TypeError, NotImplementedError) as error:
            if is_out_of_memory(error):
                raise
            what = f"{encoder.choice.name} cannot encode {size[0]}x{size[1]} here ({explain_failure(error, messages)})"
            raise UsageError(what, hint=f"this machine has {', '.join(find_encoders())}") from error


def find_encoders() -> Iterator[str]:
    """Yield the encoders that work on this machine, each after a trial; elements of GStreamer only if installed."""
    for name, (_, family) in ENCODERS.items():
        settings = EncoderSettings(encoder=name, bitrate=None if family.quality else _TRIAL_BITRATE)
        if has_encoder(name) and (family.is_software or _works(settings)):
            yield name
    if shutil.which(LAUNCH):
        yield from (f"{PREFIX}{name}" for name in ELEMENTS if has_element(name))


def _works(settings: EncoderSettings) -> bool:
    try:
        _try(ChunkEncoder(TRIAL_SOURCE, settings), TRIAL_SIZE)
    except (FFmpegError, OSError, ValueError, TypeError, NotImplementedError):
        return False
    return True


def _try(encoder: ChunkEncoder, size: Size) -> None:
    """Encode a frame of one colour."""
    encoder.prepare(*size)
    frame = grey_frame(size, encoder.pixel_format)
    try:
        if not [*encoder.encode(frame), *encoder.end_chunk()]:
            raise ValueError("it makes nothing of a frame")
    finally:
        encoder.close()
