"""Codecs and encoders of videos: what files hold, translated settings, refusals, and resuming."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from runtime.engines import BUNDLED
from runtime.errors import OutputError, UsageError
from runtime.frame import Frame
from runtime.gstreamer import GStreamerChild, GStreamerError
from runtime.options import RunOptions
from runtime.resume import Job, adopt_engine
from runtime.sinks import EncoderSettings, encoders, open_sink
from runtime.sinks.conversion import to_video_frame
from runtime.sinks.encoder_trial import find_encoders, require_encoder
from runtime.sinks.encoders import ENCODERS, choose_encoder, has_encoder
from runtime.sinks.gstreamer_elements import ELEMENTS
from runtime.sinks.unfinished import write_job
from runtime.sinks.video import VideoSink
from runtime.sources import open_source
from runtime.sources.base import SourceInfo
from runtime.video import main
from runtime.yuv420 import Yuv420
from tests.conftest import ROOT, make_image, without_gpu
from tests.rig import skip_without_gstreamer

RATE = Fraction(10)
CHUNK = 50
INFO = SourceInfo(name="test", time_base=Fraction(1, 1000), frame_rate=RATE, size=(64, 48))
ASKED = {
    "h264": EncoderSettings(codec="h264"),
    "hevc": EncoderSettings(codec="hevc"),
    "av1": EncoderSettings(codec="av1"),
    "x264enc": EncoderSettings(encoder="gstreamer:x264enc"),
}


def frame_at(index: int, size: tuple[int, int] = (64, 48)) -> Frame:
    pixels = np.ascontiguousarray(make_image(size[0] + 128, size[1])[:, index : index + size[0]])
    uneven_ms = 100 * index + (index % 3) * 7
    return Frame(pixels=pixels, pts=uneven_ms, time_base=INFO.time_base, captured_at=0.0)


def write(path: Path, settings: EncoderSettings, count: int, *, job: str = "job", complete: bool = True) -> VideoSink:
    sink = VideoSink(path, INFO, job=job, settings=settings)
    for index in range(count):
        sink.write(frame_at(index))
    sink.close(complete=complete)
    return sink


def read_frames(path: Path) -> list[tuple[Fraction, bytes]]:
    with av.open(str(path)) as container:
        return [(frame.pts * frame.time_base, frame.to_ndarray().tobytes()) for frame in container.decode(video=0)]


@pytest.mark.parametrize(
    ("asked", "suffix"),
    [(asked, suffix) for asked in ASKED for suffix in (".mp4", ".mov", ".mkv") if (asked, suffix) != ("av1", ".mov")],
)
def test_every_codec_keeps_times_pixels_and_colours(asked: str, suffix: str, tmp_path: Path) -> None:
    if asked == "x264enc":
        skip_without_gstreamer("x264enc")
    path = tmp_path / f"out{suffix}"
    sink = write(path, ASKED[asked], CHUNK + 5)
    assert sink.warnings == []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == {"hevc": "hevc", "av1": "libdav1d"}.get(asked, "h264")
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert (stream.codec_context.color_primaries, stream.codec_context.colorspace) == (1, 1)
        if suffix != ".mkv":
            assert stream.codec_context.codec_tag == {"hevc": "hvc1", "av1": "av01"}.get(asked, "avc1")
    source = open_source(str(path))
    frames = list(source)
    assert [frame.pts * frame.time_base for frame in frames] == [
        frame_at(index).pts * INFO.time_base for index in range(CHUNK + 5)
    ]
    for index in (0, CHUNK - 1, CHUNK, CHUNK + 4):
        difference = frames[index].bgr.astype(int) - frame_at(index).bgr
        assert np.abs(difference).mean() < 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change the scheduling policy")
def test_av1_gives_no_thread_real_time_priority(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mkv", INFO, settings=ASKED["av1"])
    for index in range(CHUNK + 5):  # the second chunk has an encoder of its own
        sink.write(frame_at(index))
        if index in (0, CHUNK):
            threads = [int(path.name) for path in Path("/proc/self/task").iterdir()]
            assert len(threads) > 10  # those of SVT-AV1 among them
            assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_OTHER}
    sink.close(complete=True)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("asked", ASKED)
def test_a_resumed_video_has_the_same_frames(asked: str, suffix: str, tmp_path: Path) -> None:
    if asked == "x264enc":
        skip_without_gstreamer("x264enc")
    count, settings = 2 * CHUNK + 20, ASKED[asked]
    write(tmp_path / f"whole{suffix}", settings, count)
    path = tmp_path / f"out{suffix}"
    write(path, settings, CHUNK + CHUNK // 2, complete=False)
    sink = VideoSink(path, INFO, job="job", settings=settings)
    done = sink.resume(Fraction(0))
    assert done == CHUNK
    for index in range(done, count):
        sink.write(frame_at(index))
    sink.close(complete=True)
    resumed, whole = read_frames(path), read_frames(tmp_path / f"whole{suffix}")
    if settings.encoder is None:
        assert resumed == whole
        assert sink.warnings == []
    else:
        assert [time for time, _ in resumed] == [time for time, _ in whole]
        assert "x264enc does not repeat its bits" in sink.warnings[0]


def test_av1_in_mov_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"MOV holds H\.264 and HEVC only"):
        open_sink(str(tmp_path / "out.mov"), INFO, encoder=ASKED["av1"])
    assert list(tmp_path.iterdir()) == []


def test_a_bit_rate_of_av1_is_not_repeated(tmp_path: Path) -> None:
    settings = EncoderSettings(codec="av1", bitrate=100_000)
    sink = VideoSink(tmp_path / "out.mp4", INFO, job="job", settings=settings)
    for index in range(CHUNK + 10):
        sink.write(frame_at(index, (160, 120)))  # it has no bit rate for smaller ones
    sink.close(complete=False)
    sink = VideoSink(tmp_path / "out.mp4", INFO, job="job", settings=settings)
    assert sink.resume(Fraction(0)) == CHUNK
    sink.close(complete=False)
    assert "libsvtav1 does not repeat its bits" in sink.warnings[0]


@pytest.mark.parametrize(("codec", "stored"), [("h264", "yuv444p"), ("hevc", "yuv444p"), ("av1", "yuv420p")])
def test_odd_sizes(codec: encoders.Codec, stored: str, tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    sink = VideoSink(path, INFO, settings=EncoderSettings(codec=codec))
    sink.write(frame_at(0, (33, 21)))
    sink.close(complete=True)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    assert (frame.width, frame.height, frame.format.name) == (33, 21, stored)
    assert bool(sink.warnings) == (stored == "yuv444p")


def test_a_pixel_format_of_the_encoder_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    planes = Yuv420.from_bgr(make_image(64, 48), INFO.format.colour)
    sink = VideoSink(path, INFO, settings=EncoderSettings(codec="hevc", pixel_format="yuv420p10le", crf=0))
    sink.write(dataclasses.replace(frame_at(0), pixels=planes))
    sink.close(complete=True)
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="yuv420p10le")
    assert np.abs(stored.view(np.uint16).astype(int) - 4 * planes.planes.astype(int)).max() <= 8


def test_planes_are_interleaved_without_a_change_for_nv12() -> None:
    planes = Yuv420.from_bgr(make_image(64, 48), INFO.format.colour)
    interleaved = to_video_frame(planes, planes.size, "nv12", INFO.format.colour).to_ndarray()
    assert np.array_equal(interleaved[:48], planes.luma)
    assert np.array_equal(interleaved[48:].reshape(24, 32, 2).transpose(2, 0, 1), planes.chroma)


@pytest.mark.parametrize(
    ("settings", "options", "bitrate"),
    [
        (EncoderSettings(), {"crf": "18", "preset": "superfast", "x264-params": "mbtree=0"}, None),
        (EncoderSettings(codec="av1", crf=40, preset="veryslow"), {"crf": "40", "preset": "4"}, None),
        (EncoderSettings(codec="av1", preset="7", bitrate=9000), {"preset": "7"}, 9000),
        (
            EncoderSettings(encoder="hevc_nvenc", crf=25, preset="slow"),
            {"rc": "vbr", "cq": "25", "preset": "p5", "forced-idr": "1"},
            None,
        ),
        (EncoderSettings(encoder="h264_vaapi", crf=25), {"rc_mode": "CQP", "qp": "25"}, None),
        (EncoderSettings(encoder="h264_v4l2m2m", bitrate=8_000_000), {}, 8_000_000),
        (EncoderSettings(encoder="h264_videotoolbox", crf=51), {"flags": "+qscale", "global_quality": "118"}, None),
    ],
)
def test_settings_are_translated(settings: EncoderSettings, options: dict[str, str], bitrate: int | None) -> None:
    choice = choose_encoder(settings)
    assert dict(choice.options) == options
    assert choice.bitrate == bitrate


@pytest.mark.parametrize("name", [name for name in ENCODERS if "videotoolbox" not in name and name != "av1_vaapi"])
def test_ffmpeg_knows_every_option_of_the_table(name: str) -> None:
    """Each option of each setting is one of the encoder in PyAV, or else in Debian's FFmpeg, which has VAAPI."""
    _, family = ENCODERS[name]
    asked = [EncoderSettings(encoder=name, bitrate=1_000_000)]
    asked += [EncoderSettings(encoder=name, crf=20)] if family.quality else []
    asked += [EncoderSettings(encoder=name, bitrate=1_000_000, preset=preset) for preset in family.presets]
    used = {option: value for settings in asked for option, value in choose_encoder(settings).options.items()}
    if has_encoder(name):
        supported = av.CodecContext.create(name, "w").supported_options
        known = {option.name for option in (*supported.generic, *supported.private)}
    else:
        command = ["ffmpeg", "-h", f"encoder={name}"]
        help_text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        known = {line.split()[0].lstrip("-") for line in help_text.splitlines() if line.startswith("  -")}
        known |= {"flags", "global_quality"}  # of every encoder
    assert used.keys() <= known


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"encoder": "foo"}, "encoder foo is not known; use one of libx264, "),
        ({"encoder": "libx264", "codec": "av1"}, r"libx264 makes H\.264, not AV1; .*libsvtav1"),
        ({"crf": 60}, "crf 60 for libx264; give a number from 0 to 51"),
        ({"crf": 20, "bitrate": 10_000}, "exclude each other"),
        ({"crf": 70}, "crf: 70"),
        ({"preset": "p4"}, "libx264 has no preset 'p4'; use one of ultrafast"),
        ({"encoder": "h264_v4l2m2m"}, "h264_v4l2m2m needs a bit rate; give a bit rate such as 8M"),
        ({"encoder": "h264_v4l2m2m", "crf": 20}, "h264_v4l2m2m has no constant quality"),
        ({"encoder": "h264_vaapi", "preset": "fast"}, "h264_vaapi has no presets"),
        ({"encoder": "gstreamer:x264enc ! filesink location=a"}, "not an element of GStreamer"),
        ({"encoder": "gstreamer:foo"}, "codec of foo is not known; give the codec"),
        ({"encoder": "x264enc", "codec": "hevc"}, r"x264enc makes H\.264, not HEVC"),
        ({"encoder": "gstreamer:other264", "crf": 20}, "other264 has no counterpart of crf here"),
        ({"encoder": "openh264enc", "preset": "fast"}, "openh264enc has no counterpart of preset"),
    ],
)
def test_settings_without_a_counterpart_are_refused(settings: dict[str, object], reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as refusal:
        RunOptions(encoder=EncoderSettings(**settings))
    assert "\n" not in str(refusal.value)


@without_gpu
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (
            ["--encoder", "h264_nvenc"],
            "h264_nvenc cannot encode 64x48 here (Cannot load libcuda.so.1); this machine has ",
        ),
        (["--encoder", "h264_v4l2m2m", "--bitrate", "1M"], "h264_v4l2m2m cannot encode 64x48 here ("),
        (["--pixel-format", "bgr24"], "libx264 takes no pixel format bgr24; use one of yuv420p, "),
        (["--encoder", "gstreamer:nosuch264"], 'no element "nosuch264"'),
        (
            ["--decoder", "cuda"],
            "decoder cuda does not work here (Cannot load libcuda.so.1); this machine has software",
        ),
        (["--decoder", "foo"], "decoder foo is not known; use auto, software, cuda, vaapi, or gstreamer:ELEMENT"),
        (["--decoder", "gstreamer:nosuch"], "GStreamer has no element 'nosuch'"),
    ],
)
def test_what_this_machine_lacks_is_refused_before_anything_is_written(
    arguments: list[str], reason: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "gstreamer" in " ".join(arguments):
        skip_without_gstreamer("gdppay")
    out = tmp_path / "out" / "a.mp4"
    assert main(["-i", str(clip), "-o", str(out), *arguments]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert reason in error
    assert not out.parent.exists()


def test_software_encoders_are_on_every_machine() -> None:
    assert list(find_encoders())[:3] == ["libx264", "libx265", "libsvtav1"]
    for codec in ("h264", "hevc", "av1"):
        require_encoder(EncoderSettings(codec=codec, crf=30), INFO, (64, 48))


def test_an_unfinished_output_of_another_encoder_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "a.mp4"
    (tmp_path / "a.partial.mp4").touch()
    write_job(tmp_path / "a.partial.mp4", str(Job("0", "cpu", str(choose_encoder(EncoderSettings(crf=20))), "e.onnx")))
    options = RunOptions(engine=BUNDLED, encoder=EncoderSettings(crf=21))
    with pytest.raises(UsageError, match=r"is of libx264,crf=20,.*, not of libx264,crf=21,"):
        adopt_engine(options, [str(out)])
    assert Job.read(str(out)) is not None


@pytest.fixture
def hardware(monkeypatch: pytest.MonkeyPatch) -> EncoderSettings:
    """libx264 in the way of a hardware encoder."""
    codec, family = ENCODERS["libx264"]
    stand_in = {"libx264": (codec, dataclasses.replace(family, is_software=False))}
    monkeypatch.setattr(encoders, "ENCODERS", {**ENCODERS, **stand_in})
    return EncoderSettings(encoder="libx264")


def test_a_hardware_encoder_runs_on_and_begins_each_chunk_with_a_key_frame(
    hardware: EncoderSettings, tmp_path: Path
) -> None:
    path = tmp_path / "out.mp4"
    write(path, hardware, 2 * CHUNK + 3)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert len(packets) == 2 * CHUNK + 3
    assert [packet.pts for packet in packets] == sorted(packet.pts for packet in packets)  # no B-frames
    assert all(packets[index].is_keyframe for index in (0, CHUNK, 2 * CHUNK))


def test_a_child_that_dies_is_one_line_and_keeps_what_was_written(tmp_path: Path) -> None:
    skip_without_gstreamer("x264enc")
    path = tmp_path / "out.mp4"
    sink = VideoSink(path, INFO, settings=ASKED["x264enc"])
    sink.write(frame_at(0))
    child = sink._encoder._encoder._child._child
    child.kill()
    child.wait()
    with pytest.raises(OutputError, match="x264enc does not encode frames of this kind"):
        for index in range(1, 100):
            sink.write(frame_at(index))
    sink.close(complete=False)
    assert not path.exists()


def test_a_child_that_fails_says_why(tmp_path: Path) -> None:
    skip_without_gstreamer("x264enc")
    child = GStreamerChild("x264enc", "video/x-raw,format=(string)RGB,width=(int)64,height=(int)48")
    with pytest.raises(GStreamerError, match="Internal data stream error"):
        for index in range(100):
            child.send(bytes(64 * 48 * 3), seconds=Fraction(index, 25))
        list(child.finish())
    child.close()
    assert child._child.returncode is not None


def test_a_child_that_is_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    skip_without_gstreamer("gdppay")
    monkeypatch.setattr("runtime.gstreamer._TIMEOUT_S", 0.1)
    monkeypatch.setattr("runtime.gstreamer._LOOK_S", 0.1)
    child = GStreamerChild(
        "identity sleep-time=60000000", "video/x-raw,format=(string)GRAY8,width=(int)8,height=(int)8"
    )
    with pytest.raises(GStreamerError, match="no answer"):
        child.send(bytes(64), seconds=Fraction(0))
        list(child.finish())
    child.close()


@pytest.mark.parametrize("name", ["x264enc", "x265enc", "openh264enc"])
def test_gstreamer_knows_every_property_of_the_table(name: str) -> None:
    """The other elements of the table need hardware."""
    skip_without_gstreamer(name)
    element = ELEMENTS[name]
    settings = EncoderSettings(encoder=name, crf=20 if element.crf else None, preset="fast" if element.preset else None)
    require_encoder(settings, INFO, (64, 48))
    if element.bitrate:
        require_encoder(EncoderSettings(encoder=name, bitrate=500_000), INFO, (64, 48))


@pytest.mark.parametrize("pixel_format", ["p010le", "yuv420p10le", "yuv444p10le"])
def test_gstreamer_never_reduces_10_bits(pixel_format: str, tmp_path: Path) -> None:
    """Without a format behind it, a converter takes the encoder's 8-bit 4:4:4 for `p010le`."""
    skip_without_gstreamer("x265enc")
    path, size = tmp_path / "out.mkv", (64, 48)
    settings = EncoderSettings(encoder="gstreamer:x265enc", pixel_format=pixel_format)
    sink = open_sink(str(path), dataclasses.replace(INFO, size=size), encoder=settings)
    sink.write(frame_at(0, size))
    sink.close(complete=True)
    with av.open(str(path)) as container:
        assert container.streams.video[0].pix_fmt == pixel_format.replace("p010le", "yuv420p10le")


@pytest.mark.parametrize("pixel_format", ["nv12", "yuv444p", "yuv420p10le"])
def test_gstreamer_gets_the_pixel_format_and_width_that_it_is_told(pixel_format: str, tmp_path: Path) -> None:
    """The width is no multiple of four: GStreamer pads rows."""
    skip_without_gstreamer("x264enc", "avdec_h264")
    path, size = tmp_path / "out.mkv", (66, 50)
    settings = EncoderSettings(encoder="gstreamer:x264enc", pixel_format=pixel_format)
    sink = open_sink(str(path), dataclasses.replace(INFO, size=size), encoder=settings)
    for index in range(3):
        sink.write(frame_at(index, size))
    sink.close(complete=True)
    ways = [list(open_source(str(path), decoder=way)) for way in ("software", "gstreamer:avdec_h264")]
    for index, (software, gstreamer) in enumerate(zip(*ways, strict=True)):
        assert np.array_equal(software.bgr, gstreamer.bgr)
        assert software.pts == gstreamer.pts
        assert np.abs(software.bgr.astype(int) - frame_at(index, size).bgr).mean() < 3


def test_the_page_names_every_encoder() -> None:
    page = (ROOT / "docs" / "codecs.md").read_text()
    assert [name for name in (*ENCODERS, *ELEMENTS) if f"`{name}`" not in page] == []
