"""A job that was killed and resumed has the same frames, times and sound as one that was not killed."""

from __future__ import annotations

import hashlib
import random
import subprocess
import time
from fractions import Fraction
from pathlib import Path

import av
import pytest

from runtime.sinks.unfinished import count_whole_frames
from runtime.sinks.video import VideoSink
from runtime.sources import open_source
from runtime.video import main
from tests.conftest import Survived, write_clip
from tests.rig.held import Held

COUNT = 260
HELD_AT = 240
"""Largest number of frames that a run writes before it is killed."""
Contents = tuple[list[tuple[Fraction, str]], list[bytes]]


def make_source(
    path: Path, *, sound: str | None, size: str = "320x192", is_even: bool = False, is_4_2_0: bool = True
) -> Path:
    """Write 26 seconds with B-frames at 10 frames per second, at an uneven rate unless `is_even`, with sound.

    Frames in 4:2:0 go through a run as planes, others as BGR.
    """
    uneven = "" if is_even else ",setpts=PTS+0.06*random(1)/TB"
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-f",
        "lavfi",
        "-i",
        f"testsrc2=s={size}:r=10:d={COUNT / 10},settb=1/1000{uneven}",
    ]
    command += ["-f", "lavfi", "-i", f"anoisesrc=d={COUNT / 10}:r=48000:a=0.1"] if sound else []
    command += ["-fps_mode", "passthrough", "-c:v", "libx264", "-bf", "3", "-b_strategy", "0"]
    command += ["-pix_fmt", "yuv420p" if is_4_2_0 else "yuv444p"]
    subprocess.run([*command, *(["-c:a", sound] if sound else []), str(path)], check=True)
    return path


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """260 frames at an uneven rate of about 10, so that a run has several chunks, with sound to the end."""
    return make_source(tmp_path_factory.mktemp("long") / "long.mkv", sound="aac")


def contents(path: Path) -> Contents:
    """Return every frame with its time, and the stored sound packets."""
    frames = [
        (frame.pts * frame.time_base, hashlib.sha256(frame.pixels.tobytes()).hexdigest())
        for frame in open_source(str(path))
    ]
    with av.open(str(path)) as container:
        packets = container.demux(container.streams.audio) if container.streams.audio else []
        sound = [bytes(packet) for packet in packets if packet.dts is not None]
    return frames, sound


def command(source: Path, out: Path, pixels: str = "auto") -> list[str]:
    return ["--source", str(source), "--out", str(out), "--provider", "cpu", "--threads", "1", "--pixels", pixels]


@pytest.fixture(scope="module", params=[(".mp4", "yuv420"), (".mkv", "bgr")], ids="-".join)
def whole(long_clip: Path, request: pytest.FixtureRequest) -> tuple[str, str, Contents]:
    """Return suffix, form of frames, and content of an output of a run that was not killed."""
    suffix, pixels = request.param
    out = long_clip.with_name(f"whole{suffix}")
    assert main(command(long_clip, out, pixels)) == 0
    made = contents(out)
    assert len(made[0]) == COUNT
    return suffix, pixels, made


def run_and_kill(arguments: list[str], out: Path, frame: int, seconds: float) -> None:
    """Kill a run some seconds after it has written a frame: at any step of a later one, never at its end."""
    run = Held("runtime.video", [*arguments, "--resume"], at=HELD_AT)
    run.wait_for_frame(frame)
    time.sleep(seconds)
    run.kill()
    assert out.with_name(f"{out.stem}.partial{out.suffix}").exists()
    assert not out.exists()


def kill_twice_and_finish(
    source: Path, out: Path, chance: random.Random, capsys: pytest.CaptureFixture[str], pixels: str = "auto"
) -> int:
    """Kill a job at two random points, finish it, and return the number of frames that the last run did not repeat."""
    arguments = command(source, out, pixels)
    for frame in sorted(chance.randint(COUNT // 10, HELD_AT) for _ in range(2)):
        run_and_kill(arguments, out, frame, chance.uniform(0, 0.03))
    assert main([*arguments, "--resume"]) == 0
    assert sorted(path.name for path in out.parent.glob(f"{out.stem}.*")) == [out.name]
    return int(capsys.readouterr().err.split("resume  after ")[1].split()[0])


@pytest.mark.fault("Files", "kill -9, then --resume", done="twice at random points of a job, then finished")
@pytest.mark.timeout(600)
def test_a_job_killed_at_random_points_ends_with_the_same_output(
    long_clip: Path,
    whole: tuple[str, str, Contents],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    survived: Survived,
) -> None:
    suffix, pixels, expected = whole
    chance = random.Random(suffix)  # noqa: S311
    resumed_after = []
    for index in range(3):
        out = tmp_path / f"{index}{suffix}"
        resumed_after.append(kill_twice_and_finish(long_clip, out, chance, capsys, pixels))
        assert contents(out) == expected
    assert max(resumed_after) > 0, "every run was killed before a chunk was whole"
    survived("3 jobs: frames, times and sound as if never stopped", code=0, lost=0)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("sound", [None, "aac", "libmp3lame", "libopus", "flac"])
@pytest.mark.parametrize("kind", ["even", "uneven", "odd size"])
def test_sixty_jobs_killed_at_random_points(
    kind: str, sound: str | None, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kill two jobs of each kind twice: B-frames, even and uneven times, odd sizes, four sound codecs and none."""
    size = "161x97" if kind == "odd size" else "160x96"
    source = make_source(
        tmp_path / "source.mkv", sound=sound, size=size, is_even=kind == "even", is_4_2_0=kind != "odd size"
    )
    whole = tmp_path / f"whole{suffix}"
    assert main(command(source, whole)) == 0
    expected = contents(whole)
    assert len(expected[0]) == COUNT
    assert bool(expected[1]) == bool(sound)
    chance = random.Random(f"{kind} {sound} {suffix}")  # noqa: S311
    for index in range(2):
        out = tmp_path / f"{index}{suffix}"
        kill_twice_and_finish(source, out, chance, capsys)
        assert contents(out) == expected


def unfinished(source: Path, out: Path, frames: int) -> None:
    """Kill a run after a number of frames and return what it leaves."""
    opened = open_source(str(source))
    sink = VideoSink(out, opened.info, job="deblur test")
    for _, frame in zip(range(frames), opened, strict=False):
        sink.write(frame)
    assert sink._container is not None
    sink.close(complete=False)
    opened.close()


def test_only_complete_chunks_are_kept(long_clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.mp4"
    unfinished(long_clip, out, 130)
    source = open_source(str(long_clip))
    sink = VideoSink(out, source.info, job="deblur test")
    done = sink.resume(source.start)
    assert done % sink._encoder.chunk_frames == 0
    assert 0 < done <= 130
    source.skip(done)
    first = next(iter(source))
    assert first.pts == [frame.pts for frame in open_source(str(long_clip))][done]
    sink.close(complete=False)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_sound_that_ends_early_does_not_hold_frames_back(suffix: str, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    write_clip(clip, pts=[512 * index for index in range(400)], audio="aac")  # one second of sound
    source = open_source(str(clip))
    sink = VideoSink(tmp_path / f"a{suffix}", source.info)
    for frame in source:
        sink.write(frame)
    frames_of_encoder_and_two_fragments = 64 + 2 * 25
    assert count_whole_frames(tmp_path / f"a.partial{suffix}") >= 400 - frames_of_encoder_and_two_fragments
    sink.close(complete=False)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_only_an_unfinished_output_names_its_job(suffix: str, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / f"a{suffix}"
    unfinished(clip, out, 3)
    assert sorted(path.name for path in tmp_path.glob("a.*")) == [f"a.partial{suffix}", f"a.partial{suffix}.json"]
    assert main([*command(clip, out), "-y"]) == 0
    assert sorted(path.name for path in tmp_path.glob("a.*")) == [out.name]
    with av.open(str(out)) as container:
        assert not {key.lower() for key in container.metadata} & {"comment", "job"}
    assert b"deblur " not in out.read_bytes()


def test_no_file_of_the_user_beside_the_output_is_touched(long_clip: Path, tmp_path: Path) -> None:
    beside = tmp_path / "a.before.mp4"
    beside.write_bytes(b"mine")
    assert main([*command(long_clip, tmp_path / "a.mp4"), "-y"]) == 0
    assert beside.read_bytes() == b"mine"


def test_a_new_run_forgets_the_frames_that_another_job_set_aside(long_clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.mp4"
    unfinished(long_clip, out, 130)
    (tmp_path / "a.partial.mp4").rename(tmp_path / "a.partial.before.mp4")
    source = open_source(str(long_clip))
    sink = VideoSink(out, source.info, job="deblur other")
    sink.write(next(iter(source)))
    sink.close(complete=False)
    source.close()
    assert not (tmp_path / "a.partial.before.mp4").exists()


def test_an_unfinished_output_of_another_job_is_left_alone(
    long_clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.mp4"
    unfinished(long_clip, out, 130)
    before = out.with_name("a.partial.mp4").read_bytes()
    assert main([*command(long_clip, out), "--resume"]) == 2
    assert "the unfinished output is of another job" in capsys.readouterr().err
    assert out.with_name("a.partial.mp4").read_bytes() == before


def test_sources_that_cannot_be_resumed_are_refused(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--source", str(clip), "--out", f"{tmp_path}/frames/", "--resume"]) == 2
    assert "only a video into a video can be resumed" in capsys.readouterr().err


def test_a_finished_output_is_left_as_it_is(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.mp4"
    for _ in range(2):
        assert main([*command(clip, out), "--resume"]) == 0
        before = out.stat().st_mtime_ns
        time.sleep(0.01)
    assert out.stat().st_mtime_ns == before
    assert "is finished" in capsys.readouterr().err
