"""A job that was killed and resumed has the same frames, times and sound as one that was not killed."""

from __future__ import annotations

import hashlib
import random
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from runtime.sinks.video import VideoSink
from runtime.sources import open_source
from runtime.video import main
from tests.conftest import Survived, write_clip
from tests.rig.held import Held

COUNT = 260
HELD_AT = 240
"""Largest number of frames that a run writes before it is killed."""
Contents = tuple[list[tuple[Fraction, str]], list[bytes]]


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """260 frames at an uneven rate about 10, so that a run has several chunks; a second of sound."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    pts = np.cumsum(np.random.default_rng(0).choice([1000, 1280, 1500], COUNT)).tolist()
    write_clip(path, size=(320, 192), pts=pts, audio="aac")
    return path


def contents(path: Path) -> Contents:
    """Return every frame with its time, and the stored sound packets."""
    frames = [
        (frame.pts * frame.time_base, hashlib.sha256(frame.pixels.tobytes()).hexdigest())
        for frame in open_source(str(path))
    ]
    with av.open(str(path)) as container:
        sound = [bytes(packet) for packet in container.demux(container.streams.audio) if packet.dts is not None]
    return frames, sound


def command(source: Path, out: Path) -> list[str]:
    return ["--source", str(source), "--out", str(out), "--provider", "cpu", "--threads", "1"]


@pytest.fixture(scope="module", params=[".mp4", ".mkv"])
def whole(long_clip: Path, request: pytest.FixtureRequest) -> tuple[str, Contents]:
    out = long_clip.with_name(f"whole{request.param}")
    assert main(command(long_clip, out)) == 0
    made = contents(out)
    assert len(made[0]) == COUNT
    return request.param, made


def run_and_kill(arguments: list[str], out: Path, frame: int, seconds: float) -> None:
    """Kill a run some seconds after it has written a frame: at any step of a later one, never at its end."""
    run = Held("runtime.video", [*arguments, "--resume"], at=HELD_AT)
    run.wait_for_frame(frame)
    time.sleep(seconds)
    run.kill()
    assert out.with_name(f"{out.stem}.partial{out.suffix}").exists()
    assert not out.exists()


@pytest.mark.fault("Files", "kill -9, then --resume", done="twice at random points of a job, then finished")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kills", [3, pytest.param(25, marks=pytest.mark.slow)])
def test_a_job_killed_at_random_points_ends_with_the_same_output(
    kills: int,
    long_clip: Path,
    whole: tuple[str, Contents],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    survived: Survived,
) -> None:
    suffix, expected = whole
    chance = random.Random(kills)  # noqa: S311
    resumed_after = []
    for index in range(kills):
        out = tmp_path / f"{index}{suffix}"
        arguments = command(long_clip, out)
        for frame in sorted(chance.randint(COUNT // 10, HELD_AT) for _ in range(2)):
            run_and_kill(arguments, out, frame, chance.uniform(0, 0.03))
        assert main([*arguments, "--resume"]) == 0
        resumed_after.append(int(capsys.readouterr().err.split("resume  after ")[1].split()[0]))
        assert contents(out) == expected
        assert sorted(path.name for path in tmp_path.glob(f"{index}.*")) == [out.name]
    assert max(resumed_after) > 0, "every run was killed before a chunk was whole"
    survived(f"{kills} jobs: frames, times and sound as if never stopped", code=0, lost=0)


def unfinished(source: Path, out: Path, frames: int) -> None:
    """Kill a run after a number of frames and return what it leaves."""
    opened = open_source(str(source))
    sink = VideoSink(out, opened.info, job="deblur test")
    for _, frame in zip(range(frames), opened, strict=False):
        sink.write(frame)
    assert sink._container is not None
    assert sink._encoder is None or sink._in_chunk
    sink.close(complete=False)
    opened.close()


def test_only_complete_chunks_are_kept(long_clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.mp4"
    unfinished(long_clip, out, 130)
    source = open_source(str(long_clip))
    sink = VideoSink(out, source.info, job="deblur test")
    done = sink.resume(source.start)
    assert done % sink._chunk_frames == 0
    assert 0 < done <= 130
    source.skip(done)
    first = next(iter(source))
    assert first.pts == [frame.pts for frame in open_source(str(long_clip))][done]
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


def test_a_new_run_forgets_the_frames_that_another_job_set_aside(long_clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.mp4"
    unfinished(long_clip, out, 130)
    (tmp_path / "a.partial.mp4").rename(tmp_path / "a.before.mp4")
    source = open_source(str(long_clip))
    sink = VideoSink(out, source.info, job="deblur other")
    sink.write(next(iter(source)))
    sink.close(complete=False)
    source.close()
    assert not (tmp_path / "a.before.mp4").exists()


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
    assert main(["--source", str(clip), "--out", str(tmp_path / "frames"), "--resume"]) == 2
    assert "only a video into a video can be resumed" in capsys.readouterr().err


def test_a_finished_output_is_left_as_it_is(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.mp4"
    for _ in range(2):
        assert main([*command(clip, out), "--resume"]) == 0
        before = out.stat().st_mtime_ns
        time.sleep(0.01)
    assert out.stat().st_mtime_ns == before
    assert "is finished" in capsys.readouterr().err
