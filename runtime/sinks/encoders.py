"""The encoders of FFmpeg that the toolkit knows, and what each calls quality, bit rate and preset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import av
from av.codec.codec import UnknownCodecError

from runtime.errors import UsageError
from runtime.sinks.encoder_settings import CODEC_NAMES, CODECS, PRESETS, Codec, EncoderSettings, like_x264
from runtime.sinks.gstreamer_elements import ElementChoice, choose_element, is_element

Options = Mapping[str, str]
_QP2LAMBDA = 118
"""FFmpeg's unit of `global_quality` for encoders that take a quality in steps of a quantiser."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """Encoders that call their settings by the same names; options are FFmpeg's."""

    codecs: Mapping[Codec, str]
    """Name of the encoder of each codec."""
    quality: Callable[[float], Options] | None = None
    """Options for a constant quality, from `--crf`; None if the encoder has none."""
    max_crf: int = 51
    """Largest value of `--crf`."""
    default_crf: Mapping[Codec, float] = field(default_factory=dict)
    """Quality without `--crf` and `--bitrate`; encoders without one keep FFmpeg's default."""
    rate: Options = field(default_factory=dict)
    """Options beside the bit rate that keep it."""
    presets: Options = field(default_factory=dict)
    """Values of FFmpeg's option `preset` by the names that `--preset` takes; empty if there are none."""
    default_preset: str | None = None
    always: Options = field(default_factory=dict)
    """Options that are always set."""
    device: str | None = None
    """Device that FFmpeg has to open for the encoder, by its name in PyAV's `HWAccel`."""
    is_software: bool = False
    """Whether the encoder runs on the CPU, in this process."""


def _names(*presets: str) -> dict[str, str]:
    return {name: name for name in presets}


_X264_NAMES = _names(*PRESETS, "placebo")
_FAMILIES = (
    Family(
        codecs={"h264": "libx264"},
        quality=lambda crf: {"crf": f"{crf:g}"},
        default_crf={"h264": 18},
        presets=_X264_NAMES,
        default_preset="superfast",
        # mbtree is off because x264 does not always produce the same bits twice with it, as seen on small frames.
        always={"x264-params": "mbtree=0"},
        is_software=True,
    ),
    Family(
        codecs={"hevc": "libx265"},
        quality=lambda crf: {"crf": f"{crf:g}"},
        default_crf={"hevc": 18},
        presets=_X264_NAMES,
        default_preset="superfast",
        # Chunks do not depend on each other only with closed groups; x265 prints its settings otherwise.
        always={"x265-params": "open-gop=0:log-level=none"},
        is_software=True,
    ),
    Family(
        codecs={"av1": "libsvtav1"},
        quality=lambda crf: {"crf": f"{crf:g}"},
        max_crf=63,
        default_crf={"av1": 16},
        presets=_names(*map(str, range(14))) | like_x264("12 11 10 9 8 7 6 5 4"),
        default_preset="faster",
        is_software=True,
    ),
    Family(
        codecs={"h264": "h264_nvenc", "hevc": "hevc_nvenc", "av1": "av1_nvenc"},
        quality=lambda crf: {"rc": "vbr", "cq": f"{crf:g}"},
        default_crf={"h264": 19, "hevc": 19, "av1": 24},
        rate={"rc": "vbr"},
        presets=_names(*(f"p{number}" for number in range(1, 8))) | like_x264("p1 p1 p2 p2 p3 p4 p5 p6 p7"),
        default_preset="medium",
        always={"forced-idr": "1"},
    ),
    Family(
        codecs={"h264": "h264_vaapi", "hevc": "hevc_vaapi"},
        quality=lambda crf: {"rc_mode": "CQP", "qp": f"{crf:.0f}"},
        default_crf={"h264": 19, "hevc": 19},
        rate={"rc_mode": "VBR"},
        device="vaapi",
    ),
    Family(
        codecs={"av1": "av1_vaapi"},
        quality=lambda crf: {"rc_mode": "CQP", "global_quality": f"{4 * crf:.0f}"},  # up to 255
        max_crf=63,
        default_crf={"av1": 24},
        rate={"rc_mode": "VBR"},
        device="vaapi",
    ),
    Family(
        codecs={"h264": "h264_qsv", "hevc": "hevc_qsv", "av1": "av1_qsv"},
        quality=lambda crf: {"global_quality": f"{max(1, crf):.0f}"},
        default_crf={"h264": 19, "hevc": 19, "av1": 24},
        presets=_names(*PRESETS[2:]),
        default_preset="medium",
        always={"forced_idr": "1"},
    ),
    Family(codecs={"h264": "h264_v4l2m2m", "hevc": "hevc_v4l2m2m"}),
    Family(
        codecs={"h264": "h264_videotoolbox", "hevc": "hevc_videotoolbox"},
        # VideoToolbox's quality goes from 1 to 100, where larger is better.
        quality=lambda crf: {"flags": "+qscale", "global_quality": f"{_QP2LAMBDA * (100 - 99 * crf / 51):.0f}"},
        default_crf={"h264": 18, "hevc": 18},
    ),
)
ENCODERS: Mapping[str, tuple[Codec, Family]] = {
    name: (codec, family) for family in _FAMILIES for codec, name in family.codecs.items()
}
"""Codec and family of every encoder by its name, software first."""
SOFTWARE: Mapping[Codec, str] = {codec: name for name, (codec, family) in ENCODERS.items() if family.is_software}
"""Encoder that `--codec` alone asks for."""


@dataclass(frozen=True, kw_only=True)
class EncoderChoice:
    """An encoder of FFmpeg with its options, or one of GStreamer."""

    name: str
    codec: Codec
    pixel_format: str | None
    """Pixel format that the user asks for; None for any."""
    options: Options = field(default_factory=dict)
    """FFmpeg's options, without those of the codec context below."""
    bitrate: int | None = None
    """Bits per second; None for constant quality."""
    device: str | None = None
    """Device that FFmpeg has to open for the encoder."""
    is_software: bool = False
    """Whether the encoder runs on the CPU, in this process, and is started again after each chunk."""
    element: ElementChoice | None = None
    """Element of GStreamer; None for an encoder of FFmpeg."""

    @property
    def repeats_bits(self) -> bool:
        """Whether the encoder writes the same bits each time; with a bit rate, SVT-AV1 does not."""
        return self.is_software and not (self.codec == "av1" and self.bitrate)

    def __str__(self) -> str:
        """Return name and options in one word, the same for the same bits: `libx264,crf=18,preset=superfast`."""
        facts = {"launch": self.element.text.replace(" ", "+")} if self.element else dict(self.options)
        facts |= {"b": str(self.bitrate)} if self.bitrate else {}
        facts |= {"pix_fmt": self.pixel_format} if self.pixel_format else {}
        return ",".join([self.name, *(f"{name}={value}" for name, value in sorted(facts.items()))])


def choose_encoder(settings: EncoderSettings) -> EncoderChoice:
    """Return the encoder that settings ask for, with their translation; opens nothing.

    Raises UsageError if the encoder is not known, is of another codec, or has no counterpart of a setting.
    """
    if settings.encoder and is_element(settings.encoder):
        element = choose_element(settings)
        return EncoderChoice(
            name=element.name, codec=element.codec, pixel_format=settings.pixel_format, element=element
        )
    name = settings.encoder or SOFTWARE[settings.codec or "h264"]
    if name not in ENCODERS:
        raise UsageError(f"encoder {name} is not known", hint=f"use one of {', '.join(ENCODERS)}, or gstreamer:ELEMENT")
    codec, family = ENCODERS[name]
    if settings.codec not in (None, codec):
        asked = CODEC_NAMES[settings.codec]
        hint = f"leave out the codec, or use one of {', '.join(_encoders_of(settings.codec))}"
        raise UsageError(f"encoder {name} makes {CODEC_NAMES[codec]}, not {asked}", hint=hint)
    return EncoderChoice(
        name=name,
        codec=codec,
        options={
            **family.always,
            **_translate_quality(name, codec, family, settings),
            **_translate_preset(name, family, settings.preset),
        },
        bitrate=settings.bitrate,
        pixel_format=settings.pixel_format,
        device=family.device,
        is_software=family.is_software,
    )


def has_encoder(name: str) -> bool:
    """Return whether PyAV's FFmpeg was built with an encoder, whatever the machine has."""
    try:
        av.Codec(name, "w")
    except UnknownCodecError:
        return False
    return True


def pixel_formats(name: str) -> list[str]:
    """Return the pixel formats in memory that an encoder takes; empty if FFmpeg leaves that to the driver."""
    formats = [form.name for form in av.Codec(name, "w").video_formats or ()]
    # Those of a device have no components; yuvj420p is an old name of yuv420p with another range.
    return [form for form in formats if av.VideoFormat(form).components and not form.startswith("yuvj")]


def _encoders_of(codec: Codec) -> list[str]:
    return [name for name, (made, _) in ENCODERS.items() if made == codec]


def _translate_quality(name: str, codec: Codec, family: Family, settings: EncoderSettings) -> Options:
    if settings.bitrate is not None:
        return family.rate
    if family.quality is None:
        what = "has no constant quality" if settings.crf is not None else "needs a bit rate"
        raise UsageError(f"{name} {what}", hint="give a bit rate such as 8M, and no crf")
    if settings.crf is not None and settings.crf > family.max_crf:
        raise UsageError(f"crf {settings.crf:g} for {name}", hint=f"give a number from 0 to {family.max_crf}")
    crf = family.default_crf.get(codec) if settings.crf is None else settings.crf
    return {} if crf is None else family.quality(crf)


def _translate_preset(name: str, family: Family, preset: str | None) -> Options:
    if preset is not None and not family.presets:
        raise UsageError(f"{name} has no presets", hint="leave out the preset")
    preset = preset or family.default_preset
    if preset is None:
        return {}
    if preset not in family.presets:
        raise UsageError(f"{name} has no preset {preset!r}", hint=f"use one of {', '.join(family.presets)}")
    return {"preset": family.presets[preset]}


assert set(SOFTWARE) == set(CODECS)
