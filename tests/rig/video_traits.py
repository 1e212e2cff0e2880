"""Traits of video files that outputs may keep: sources that have each trait, and the measurements."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

from runtime.colour import ColourTags
from tests.conftest import write_clip
from tests.rig.media import CHAPTERS, TAGS, ffmpeg, make_clip, make_rich
from tests.rig.traits import Result, Trait, kept

SUFFIXES = (".mp4", ".mov", ".mkv")
_PQ = ("-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc", "-color_range", "tv")
_FULL = ("-color_primaries", "bt709", "-color_trc", "bt709", "-colorspace", "bt709", "-color_range", "pc")
_OTHER_TAGS = {"make": "Camera Works", "com.android.version": "11"}
_CLUSTER, _DISPLAY_WIDTH = b"\x1f\x43\xb6\x75", b"\x54\xb0"
"""Matroska's identifiers of the first frames, which follow the header, and of the width on the screen."""
_SOUNDS = {"aac": "AAC", "libopus": "Opus", "flac": "FLAC", "pcm_s16le": "PCM"}


def make_sources(folder: Path) -> dict[str, Path]:
    """Write a file for each name that a trait has as its source."""
    files = make_rich(folder)
    made = {"mkv": files[".mkv"], "mp4": files[".mp4"]}
    made["mpeg4"] = make_clip(folder / "mpeg4.avi", codec="mpeg4")
    made["pq"] = make_clip(folder / "pq.mp4", *_PQ, "-pix_fmt", "yuv420p10le")
    made["444"] = make_clip(folder / "444.mp4", *_FULL, "-pix_fmt", "yuv444p", filters="setsar=64/45")
    made["alpha"] = make_clip(folder / "alpha.mov", "-pix_fmt", "argb", codec="qtrle")
    fields = "scroll=h=0.1,tinterlace=interleave_top,fieldorder=tff,format=yuv420p"
    made["fields"] = make_clip(folder / "fields.ts", "-flags", "+ilme+ildct", filters=fields, codec="mpeg2video")
    made["rotated"] = folder / "rotated.mp4"
    ffmpeg("-i", make_clip(folder / "upright.mp4"), "-c", "copy", "-metadata:s:v", "rotate=90", made["rotated"])
    made["uneven"] = folder / "uneven.mp4"
    write_clip(made["uneven"], pts=np.cumsum([0, 512, 700, 333, 512, 900, 411]).tolist())
    made["timecode"], made["tagged"] = folder / "timecode.mov", folder / "tagged.mp4"
    ffmpeg("-i", folder / "upright.mp4", "-c", "copy", "-timecode", "01:02:03:04", made["timecode"])
    words = [word for key, value in _OTHER_TAGS.items() for word in ("-metadata", f"{key}={value}")]
    ffmpeg("-i", folder / "upright.mp4", "-c", "copy", "-movflags", "use_metadata_tags", *words, made["tagged"])
    for codec in _SOUNDS:
        made[codec] = folder / f"{codec}.mkv"
        sound = ("-f", "lavfi", "-i", "sine=r=48000:d=1", "-c:a", codec, "-strict", -2)
        ffmpeg("-i", folder / "upright.mp4", *sound, "-map", 0, "-map", 1, "-c:v", "copy", made[codec])
    return made


def _frames(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def _packets(path: Path, kind: str) -> list[bytes]:
    """Return the packets of the first track of a kind; MP4 has empty ones between subtitles."""
    with av.open(str(path)) as container:
        streams = [stream for stream in container.streams if stream.type == kind]
        return [bytes(packet) for packet in container.demux(streams[:1]) if packet.size > 2] if streams else []


def _tags(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return {key.lower(): value for key, value in container.metadata.items()}


def _has_tags(*keys: str) -> Any:
    expected = {key: value for key, value in (TAGS | _OTHER_TAGS).items() if key in keys}
    return lambda result: kept(expected.items() <= _tags(result.out).items())


def _codec(result: Result) -> str:
    with av.open(str(result.out)) as container:
        return {"h264": "H.264"}[container.streams.video[0].codec_context.name]


def _bits(result: Result) -> str:
    return f"{_frames(result.out)[0].format.components[0].bits} bits"


def _chroma(result: Result) -> str:
    return {"yuv420p": "4:2:0", "yuvj420p": "4:2:0"}[_frames(result.out)[0].format.name]


def _colour(result: Result) -> str:
    before, after = (ColourTags.read(_frames(path)[0]) for path in (result.source, result.out))
    return kept(before == after)


def _pixel_shape(result: Result) -> str:
    with av.open(str(result.out)) as container:
        is_kept = container.streams.video[0].sample_aspect_ratio == Fraction(64, 45)
    header = result.out.read_bytes().partition(_CLUSTER)[0]
    is_in_container = (_DISPLAY_WIDTH if result.out.suffix == ".mkv" else b"pasp") in header
    return kept(is_kept) + ("" if is_in_container else ", in the H.264 stream alone")


def _rotation(result: Result) -> str:
    frame = _frames(result.out)[0]
    return "applied" if (frame.width, frame.height, frame.rotation) == (64, 96, 0) else "lost"


def _fields(result: Result) -> str:
    frames = _frames(result.out)
    lines = frames[len(frames) // 2].to_ndarray(format="gray").astype(float)
    is_combed = np.abs(lines[1:] - lines[:-1]).mean() > np.abs(lines[2:] - lines[:-2]).mean()
    says_so = any("is interlaced and is deinterlaced" in line for line in result.lines)
    return ("kept" if is_combed else "deinterlaced") + ("; a line says so" if says_so else "")


def _alpha(result: Result) -> str:
    return kept(any(component.is_alpha for component in _frames(result.out)[0].format.components))


def _times(result: Result) -> str:
    before, after = ([frame.pts * frame.time_base for frame in _frames(path)] for path in (result.source, result.out))
    if before == after:
        return "kept exactly"
    steps = [[times[index + 1] - times[index] for index in range(len(times) - 1)] for times in (before, after)]
    return "kept to 1 ms" if max(abs(a - b) for a, b in zip(*steps, strict=True)) <= Fraction(1, 1000) else "changed"


def _sound(result: Result) -> str:
    return "copied" if _packets(result.source, "audio") == _packets(result.out, "audio") else "left out"


def _further_sound(result: Result) -> str:
    with av.open(str(result.out)) as container:
        track = container.streams.audio[1]
        lost = {
            "language": track.language != "fra",
            "title": "Commentary" not in (track.metadata.get("title"), track.metadata.get("name")),
            "purpose": not track.disposition & Disposition.comment,
        }
    names = [name for name, is_lost in lost.items() if is_lost]
    return "kept" + (f" without {' and '.join(names)}" if names else "")


def _texts(path: Path) -> list[str]:
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(container.streams.subtitles) if packet.size]
        shown = [packet.stream.codec_context.decode2(packet) for packet in packets]
        return [text.dialogue.decode() for texts in shown if texts for text in texts]


def _subtitles(result: Result) -> str:
    if _packets(result.source, "subtitle") == _packets(result.out, "subtitle"):
        return "kept"
    with av.open(str(result.out)) as container:
        names = [stream.codec_context.codec.canonical_name for stream in container.streams.subtitles]
    return f"converted to {names[0]}" if names and _texts(result.source) == _texts(result.out) else "left out"


def _chapters(result: Result) -> str:
    with av.open(str(result.out)) as container:
        found = [(item["start"] * (item["time_base"] or 0), item["metadata"]["title"]) for item in container.chapters()]
    return kept(found == [(Fraction(start), title) for start, _, title in CHAPTERS])


def _attachment(result: Result) -> str:
    with av.open(str(result.out)) as container:
        names = [stream.metadata.get("filename") for stream in container.streams if stream.type == "attachment"]
    return kept("font.ttf" in names, "left out")


def _cover(result: Result) -> str:
    with av.open(str(result.out)) as container:
        covers = [stream for stream in container.streams.video if stream.disposition & Disposition.attached_pic]
    return kept(len(covers) == 1, "left out")


def _timecode(result: Result) -> str:
    codes = []
    for path in (result.source, result.out):
        with av.open(str(path)) as container:
            codes.append({key.lower(): code for key, code in container.streams.video[0].metadata.items()}["timecode"])
    return kept(codes[0] == codes[1])


TRAITS = [
    Trait("codec (MPEG-4 and others)", "mpeg4", _codec),
    Trait("10 bits", "pq", _bits, "8 bits"),
    Trait("chroma 4:4:4", "444", _chroma, "chroma"),
    Trait("alpha", "alpha", _alpha, "alpha"),
    Trait("colour tags: PQ, BT.2020", "pq", _colour),
    Trait("colour tags: full range", "444", _colour),
    Trait("shape of pixels (SAR 64:45)", "444", _pixel_shape),
    Trait("rotation", "rotated", _rotation),
    Trait("interlacing", "fields", _fields),
    Trait("frame times at an uneven rate", "uneven", _times),
    *(Trait(f"sound: {name}", codec, _sound, "sound") for codec, name in _SOUNDS.items()),
    Trait("second sound track: language, title, purpose", "mkv", _further_sound),
    Trait("subtitles: SubRip", "mkv", _subtitles, "subtitles"),
    Trait("subtitles: MP4 text", "mp4", _subtitles, "subtitles"),
    Trait("chapters", "mkv", _chapters),
    Trait("attachments, such as fonts", "mkv", _attachment, "attachment"),
    Trait("cover", "mp4", _cover, "cover"),
    Trait("timecode", "timecode", _timecode),
    Trait("title, artist, comment", "mkv", _has_tags("title", "artist", "comment")),
    Trait("date of creation", "mkv", _has_tags("creation_time")),
    Trait("place (GPS)", "mkv", _has_tags("location")),
    Trait("other tags", "tagged", _has_tags(*_OTHER_TAGS)),
]
