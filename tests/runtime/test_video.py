"""The command line of `python -m runtime.video`."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime import run_engine, video
from runtime.sources import open_source
from tests.conftest import DEMO_CLIP, ROOT, Survived, make_image, write_clip
from tests.rig.held import Held


def run(*arguments: object) -> int:
    """Without the guard, which would take the test engine's inverted colours for a fault."""
    return video.main(
        [*(str(argument) for argument in arguments), *([] if "--guard" in arguments else ["--guard=off"])]
    )


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    (line,) = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert captured.err.endswith(line + "\n")
    return line


def test_clip_through_an_engine(
    clip: Path, invert_in_form: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, stats = tmp_path / "made" / "out.mp4", tmp_path / "stats.json"
    assert run("--engine", invert_in_form, "--source", clip, "--out", out, "--stats", stats) == 0
    restored = list(open_source(str(out)))
    assert [f.pts * f.time_base for f in restored] == [f.pts * f.time_base for f in open_source(str(clip))]
    assert np.abs(restored[0].pixels.astype(int) - (255 - make_image(64, 48).astype(int))).mean() < 8
    values = json.loads(stats.read_text())
    assert values["schema"] == 2
    assert values["frames"] == {"read": 10, "written": 10, "dropped": 0, "rejected": 0, "skipped": 0, "reconnects": 0}
    assert values["engine"]["name"] == invert_in_form.stem
    assert values["output"] == str(out)
    assert set(values["latency_ms"]) == {"read", "engine", "write", "total"}
    assert all(set(row) == {"p50", "p90", "p99", "max"} for row in values["latency_ms"].values())
    assert all(0 < row["p50"] <= row["p99"] <= row["max"] for row in values["latency_ms"].values())
    shown = capsys.readouterr().err
    assert "10 read, 10 written, 0 dropped" in shown
    assert f"output  {out}" in shown
    assert ("pixels  4:2:0, as decoded" in shown) == invert_in_form.stem.endswith("yuv420")


def test_bundled_engine_is_the_default(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--source", clip, "--out", tmp_path / "out.mp4", "--threads", 1) == 0
    shown = capsys.readouterr().err
    assert "edge-s_int8_cpu_yuv420, int8_cpu, " in shown
    assert "pixels  4:2:0, as decoded" in shown


def test_image_to_image_and_folder_to_folder(tmp_path: Path, invert: Path) -> None:
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), make_image(21, 13))
    cv2.imwrite(str(tmp_path / "in" / "b.png"), make_image(16, 12))
    assert run("--engine", invert, "--source", tmp_path / "in" / "a.png", "--out", tmp_path / "a.png") == 0
    assert np.array_equal(cv2.imread(str(tmp_path / "a.png")), 255 - make_image(21, 13))
    assert run("--engine", invert, "--source", tmp_path / "in", "--out", tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]
    assert np.array_equal(cv2.imread(str(tmp_path / "out" / "b.png")), 255 - make_image(16, 12))


def test_side_by_side(clip: Path, invert_in_form: Path, tmp_path: Path) -> None:
    assert run("--engine", invert_in_form, "--source", clip, "--out", tmp_path / "out.mp4", "--side-by-side") == 0
    assert next(iter(open_source(str(tmp_path / "out.mp4")))).size == (128, 48)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--source", "{tmp}/none.mp4", "--out", "null"], 3, "no such file"),
        (["--source", "{tmp}", "--out", "null"], 3, "no images found"),
        (["--source", "{tmp}/zero.mp4", "--out", "null"], 3, "file is empty"),
        (["--source", "{tmp}/junk.mp4", "--out", "null"], 3, "not a video that can be decoded"),
        (["--source", "97", "--out", "null"], 5, "camera does not open"),
        (["--engine", "{tmp}/none.onnx", "--source", "{clip}", "--out", "null"], 4, "no such engine"),
        (["--engine", "{tmp}/junk.mp4", "--source", "{clip}", "--out", "null"], 4, "unknown kind of engine"),
        (["--engine", "{tmp}", "--source", "{clip}", "--out", "null"], 4, "has no .onnx and no .plan file"),
        (["--provider", "tensorrt", "--source", "{clip}", "--out", "null"], 4, "use provider cpu"),
        (["--source", "{clip}", "--out", "{tmp}/zero.mp4"], 2, "output exists"),
        (["--source", "{clip}", "--out", "{tmp}/zero.mp4", "-n"], 2, "output exists"),
        (["--source", "{clip}", "--out", "{clip}", "-y"], 2, "output is the source"),
        (["--source", "{clip}", "--out", "{tmp}/a.gif"], 2, "are not known"),
        (["--source", "{clip}", "--out", "{tmp}/a.png"], 2, "several frames"),
        (["--source", "{clip}", "--out", "{tmp}/zero.mp4/a.mp4"], 6, "cannot write output"),
        (["--source", "{clip}", "--out", "/proc/a.mp4"], 6, "cannot write output"),
        (["--source", "{clip}", "--out", "null", "--stats", "{tmp}/zero.mp4/a.json"], 6, "cannot write output"),
    ],
)
def test_bad_input_gets_one_line_and_its_code(
    arguments: list[str], code: int, words: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "junk.mp4").write_bytes(bytes(range(256)) * 20)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    filled = [argument.format(tmp=tmp_path, clip=clip) for argument in arguments]
    assert run(*filled) == code
    assert words in error_line(capsys)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_first_error_is_reported_when_the_statistics_fail_too(
    tmp_path: Path, invert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "junk.png").write_bytes(b"junk")
    stats = tmp_path / "junk.png" / "s.json"
    assert run("--engine", invert, "--source", tmp_path / "junk.png", "--out", "null", "--stats", stats) == 3
    assert "not an image" in error_line(capsys)


@pytest.mark.parametrize("arguments", [["--threads", "0"], ["--provider", "magic"], ["--nonsense"]])
def test_bad_usage_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        run(*arguments)
    assert ending.value.code == 2


@pytest.mark.fault("Files", "output exists", done="without an answer, with -y")
def test_existing_output_is_replaced_only_on_request(
    clip: Path, invert: Path, tmp_path: Path, survived: Survived
) -> None:
    out = tmp_path / "out.mp4"
    out.write_bytes(b"precious")
    assert run("--engine", invert, "--source", clip, "--out", out) == 2
    assert out.read_bytes() == b"precious"
    assert run("--engine", invert, "--source", clip, "--out", out, "-y") == 0
    assert len(list(open_source(str(out)))) == 10
    survived("refused and untouched; replaced with -y", code=2)


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 2), ("", 2)])
def test_terminal_is_asked(
    answer: str, code: int, clip: Path, invert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    (tmp_path / "out.mp4").write_bytes(b"precious")
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert run("--engine", invert, "--source", clip, "--out", tmp_path / "out.mp4") == code
    assert ((tmp_path / "out.mp4").read_bytes() == b"precious") == (code != 0)


@pytest.mark.needs_screen
def test_window_and_file_at_the_same_time(clip: Path, invert: Path, tmp_path: Path) -> None:
    assert run("--engine", invert, "--source", clip, "--show", "--out", tmp_path / "out.mp4") == 0
    assert len(list(open_source(str(tmp_path / "out.mp4")))) == 10


def test_bugs_are_one_line_too(clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("first\nsecond")

    monkeypatch.setattr(run_engine, "open_engine", fail)
    assert run("--source", clip, "--out", "null") == 1
    assert "this is a bug (ZeroDivisionError: first second)" in error_line(capsys)
    assert run("--source", clip, "--out", "null", "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.fixture
def long_clip(tmp_path: Path) -> Path:
    """20 seconds, so that a killed run leaves some: FFmpeg keeps 10 s back once the sound has ended, and 256 KiB."""
    path = tmp_path / "long.mp4"
    write_clip(path, size=(320, 240), pts=[512 * index for index in range(500)], audio="aac")
    return path


@pytest.mark.fault("Files", "Ctrl-C, SIGTERM", done="in the middle of a file")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_run_keeps_what_was_written(
    long_clip: Path, tmp_path: Path, number: int, code: int, survived: Survived
) -> None:
    partial = tmp_path / "out.partial.mp4"
    arguments = ["--source", long_clip, "--out", tmp_path / "out.mp4", "--stats", tmp_path / "s.json"]
    run = Held("runtime.video", arguments, at=450)
    run.wait_for_frame(100)
    run.process.send_signal(number)
    exit_code, stderr = run.wait_for_end()
    assert exit_code == code
    assert stderr.splitlines()[-1].startswith(f"output  {partial}; unfinished, the same command with --resume")
    assert not (tmp_path / "out.mp4").exists()
    written = json.loads((tmp_path / "s.json").read_text())["frames"]["written"]
    assert len(list(open_source(str(partial)))) == written < 500
    survived("all that was written plays, under its partial name", code=code, lost=0)


@pytest.mark.fault("Files", "kill -9", done="while writing")
def test_killed_run_leaves_a_file_that_plays(long_clip: Path, tmp_path: Path, survived: Survived) -> None:
    partial = tmp_path / "out.partial.mp4"
    run = Held("runtime.video", ["--source", long_clip, "--out", tmp_path / "out.mp4"], at=450)
    run.wait_for_frame(400)
    run.kill()
    assert not (tmp_path / "out.mp4").exists()
    times = [frame.pts_seconds for frame in open_source(str(partial))]
    assert len(times) >= 25
    assert np.allclose(np.diff(times), 0.04)
    survived(f"{len(times)} frames play, up to about the last second", code=137)


def test_demo_clip_keeps_its_frames_times_and_sound(tmp_path: Path, invert_in_form: Path) -> None:
    import av

    out = tmp_path / "demo.mp4"
    assert run("--engine", invert_in_form, "--source", DEMO_CLIP, "--out", out) == 0
    facts = []
    for path in (DEMO_CLIP, out):
        with av.open(str(path)) as container:
            frames = [frame.pts * frame.time_base for frame in container.decode(video=0)]
        with av.open(str(path)) as container:
            sound = [(packet.pts, bytes(packet)) for packet in container.demux(audio=0) if packet.dts is not None]
        facts.append((frames, sound))
    assert facts[0] == facts[1]
    assert len(facts[0][0]) == 100
    assert facts[0][1]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_memory_stays_flat_over_a_long_clip(tmp_path: Path) -> None:
    """60 s of 1280x720 at 10 fps: the second half may not need more than the first."""
    import psutil

    path = tmp_path / "long.mp4"
    write_clip(path, size=(1280, 720), pts=[1280 * index for index in range(600)])
    sizes_mib = []
    command = [sys.executable, "-m", "runtime.video", "--source", str(path), "--out", str(tmp_path / "out.mp4")]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            sizes_mib.append(watched.memory_info().rss / 2**20)
            time.sleep(0.25)
    assert process.returncode == 0
    settled = sizes_mib[len(sizes_mib) // 5 : -4]
    first, second = settled[: len(settled) // 2], settled[len(settled) // 2 :]
    print(f"resident memory: first half at most {max(first):.0f} MiB, second {max(second):.0f} MiB")
    assert max(second) < max(first) * 1.05


def test_progress_line_is_cleared_before_the_report(tmp_path: Path, invert: Path) -> None:
    import os
    import pty

    master, slave = pty.openpty()
    command = [sys.executable, "-m", "runtime.video", "--source", str(DEMO_CLIP), "--out", "null", "--provider", "cpu"]
    child = subprocess.Popen(command, cwd=ROOT, stderr=slave)
    os.close(slave)
    said = b""
    try:
        while part := os.read(master, 65_536):
            said += part
    except OSError:
        pass  # the other end is closed
    os.close(master)
    assert child.wait(20) == 0
    assert b"\r\x1b[Kframe " in said
    before = said[: said.index(b"frames  100 read")]
    assert before.endswith((b"\r\x1b[K", b"\n"))
