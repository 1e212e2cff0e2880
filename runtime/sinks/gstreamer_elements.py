"""Encoders of GStreamer, and what each calls quality, bit rate, preset and distance of key frames."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from runtime.errors import UsageError
from runtime.gstreamer import PREFIX
from runtime.sinks.encoder_settings import CODEC_NAMES, Codec, EncoderSettings, like_x264

_CODECS: tuple[tuple[str, Codec], ...] = (("264", "h264"), ("265|hevc", "hevc"), ("av1", "av1"))
"""Codecs by what the name of an element holds."""
_DESCRIPTION = re.compile(r"([A-Za-z][\w-]*)((?: +[A-Za-z][\w-]*=[^\s!]+)*)")
"""An element and its properties; no second element."""
_DEEP = "video/x-raw,format=(string){I420_10LE,P010_10LE,I422_10LE,Y444_10LE}"
_TO_NVIDIA = "nvvidconv ! video/x-raw(memory:NVMM),format=(string)NV12"


@dataclass(frozen=True, kw_only=True)
class Element:
    """Properties of an encoder as text for `gst-launch-1.0`, with the value in braces; empty where it has none."""

    crf: str = ""
    """Constant quality, or constant quantiser where that is all there is."""
    default: str = ""
    """Properties if neither is asked for; empty for the element's own default."""
    bitrate: str = ""
    bitrate_unit: int = 1
    """Bits per second of the property's unit."""
    preset: str = ""
    presets: Mapping[str, str] = field(default_factory=dict)
    key_frames: str = ""
    """Largest number of frames from a key frame to the next."""
    always: str = ""
    """Properties without which it would make B-frames: a chunk must not refer to the next one."""
    convert: str = "videoconvert"
    """Elements before it, which bring frames into a form that it takes."""


_X264_PRESETS = like_x264("ultrafast superfast veryfast faster fast medium slow slower veryslow")
_NVIDIA = Element(
    crf="ratecontrol-enable=false quant-i-frames={0} quant-p-frames={0}",
    bitrate="bitrate={}",
    preset="preset-level={}",
    presets=like_x264("1 1 1 2 2 3 4 4 4"),
    key_frames="iframeinterval={0} idrinterval={0}",
    convert=_TO_NVIDIA,
)
_VA = Element(
    crf="rate-control=cqp qpi={0} qpp={0}",
    bitrate="rate-control=vbr bitrate={}",
    bitrate_unit=1000,
    key_frames="key-int-max={}",
)
ELEMENTS: Mapping[str, Element] = {
    "nvv4l2h264enc": _NVIDIA,
    "nvv4l2h265enc": _NVIDIA,
    "vah264enc": _VA,
    "vah265enc": _VA,
    "v4l2h264enc": Element(bitrate="extra-controls=controls,video_bitrate={}"),
    "x264enc": Element(
        crf="pass=qual quantizer={}",
        default="pass=qual quantizer=18 speed-preset=superfast",
        bitrate="bitrate={}",
        bitrate_unit=1000,
        preset="speed-preset={}",
        presets=_X264_PRESETS,
        key_frames="key-int-max={}",
        always="bframes=0",
    ),
    "x265enc": Element(
        crf="option-string=crf={}",
        default="option-string=crf=18 speed-preset=superfast",
        bitrate="bitrate={}",
        bitrate_unit=1000,
        preset="speed-preset={}",
        presets=_X264_PRESETS,
        key_frames="key-int-max={}",
        always="tune=zerolatency",
    ),
    "openh264enc": Element(bitrate="bitrate={}", key_frames="gop-size={}"),
}
"""Elements whose properties are known; others take their own properties alone."""


@dataclass(frozen=True, kw_only=True)
class ElementChoice:
    """An encoder of GStreamer with its properties."""

    name: str
    codec: Codec
    text: str
    """Element and properties for `gst-launch-1.0`."""
    element: Element

    def launch_text(self, gop_frames: int, *, is_deep: bool) -> str:
        """Return the elements from raw frames to the encoder; the user's own properties come last, and win.

        `is_deep` says that the frames have more than 8 bits.
        """
        name, _, properties = self.text.partition(" ")
        known = self.element.key_frames.format(gop_frames)
        convert = self.element.convert
        if is_deep:
            has_format = "NV12" in convert
            convert = convert.replace("NV12", "P010_10LE") if has_format else f"{convert} ! {_DEEP}"
        return " ".join(filter(None, [convert, "!", name, self.element.always, known, properties]))


def is_element(encoder: str) -> bool:
    """Return whether the name of an encoder asks for an element of GStreamer."""
    return encoder.startswith(PREFIX) or encoder.partition(" ")[0] in ELEMENTS


def choose_element(settings: EncoderSettings) -> ElementChoice:
    """Return the element that settings ask for, with their translation; opens nothing.

    Raises UsageError for a text that is not one element, and for a setting that the element has no property for.
    """
    text = (settings.encoder or "").removeprefix(PREFIX)
    match = _DESCRIPTION.fullmatch(text)
    if match is None:
        raise UsageError(f"not an element of GStreamer: {text!r}", hint="give ELEMENT PROPERTY=VALUE ..., without !")
    name, own = match[1], match[2].strip()
    element = ELEMENTS.get(name, Element())
    codec = settings.codec or next((codec for part, codec in _CODECS if re.search(part, name)), None)
    if codec is None:
        raise UsageError(f"the codec of {name} is not known", hint="give the codec too")
    made = next((made for part, made in _CODECS if re.search(part, name)), codec)
    if made != codec:
        raise UsageError(f"{name} makes {CODEC_NAMES[made]}, not {CODEC_NAMES[codec]}", hint="leave out the codec")
    properties = [*_translate(name, element, settings), own]
    return ElementChoice(name=name, codec=codec, text=" ".join(filter(None, [name, *properties])), element=element)


def _translate(name: str, element: Element, settings: EncoderSettings) -> list[str]:
    """Return the properties for crf, bit rate and preset."""
    own = f"give the property of the element itself: '{PREFIX}{name} PROPERTY=VALUE'"
    properties = [element.default] if settings.crf is None and settings.bitrate is None else []
    for option, value, template in (
        ("crf", settings.crf, element.crf),
        ("bit rate", settings.bitrate, element.bitrate),
        ("preset", settings.preset, element.preset),
    ):
        if value is not None and not template:
            raise UsageError(f"{name} has no counterpart of {option} here", hint=own)
    if settings.crf is not None:
        properties.append(element.crf.format(round(settings.crf)))
    if settings.bitrate is not None:
        properties.append(element.bitrate.format(max(1, settings.bitrate // element.bitrate_unit)))
    if settings.preset is not None:
        if settings.preset not in element.presets:
            raise UsageError(
                f"{name} has no preset {settings.preset!r}", hint=f"use one of {', '.join(element.presets)}"
            )
        properties.append(element.preset.format(element.presets[settings.preset]))
    return properties
