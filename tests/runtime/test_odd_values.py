"""Names and numbers that nobody means: one line and an exit code, never a bug report or a wait."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import pytest

from runtime.engines import available_cores
from runtime.engines.names import MAX_THREADS
from runtime.errors import UsageError
from runtime.options import RunOptions
from runtime.patterns import find_files
from runtime.sources import LiveOptions, Watch, open_source
from runtime.video import main, parse
from tests.conftest import make_image

LONG = "a" * 300


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-i", f"{LONG}.mp4", "-o", "null"], 3, "cannot be read (File name too long)"),
        (["-i", LONG, "-o", "null"], 3, "cannot be read (File name too long)"),
        (["-i", "9" * 300, "-o", "null"], 3, "cannot be read (File name too long)"),
        (["-i", "9" * 20, "-o", "null"], 3, "no such file"),
        (["-i", "{clip}/x.mp4", "-o", "null"], 3, "no such file"),
        (["-i", "", "-o", "null"], 2, "no source"),
        (["-i", "{clip}", "-o", ""], 2, "output has no name"),
        (["-i", "{clip}", "-o", f"{LONG}.mp4", "-y"], 6, "give a shorter name"),
        (["-i", "{clip}", "-o", f"{'a' * 250}.mp4", "-y"], 6, "give a shorter name"),
        (["-i", "{clip}", "-o", LONG, "-y"], 6, "give a shorter name"),
        (["-i", "{clip}", "-o", f"{LONG}.mp4", "--resume"], 6, "give a shorter name"),
        (["-i", "{clip}", "-o", "null", "--engine", LONG], 4, "cannot be read (File name too long)"),
        (["-i", "{clip}", "-o", "null", "--engine", "{clip}/a.onnx"], 4, "no such engine"),
        (["-i", "{clip}", "-o", "null", "--stats", "/"], 2, "statistics need a regular file: /"),
        (["-i", "{clip}", "-o", "null", "--stats", "."], 2, "statistics need a regular file: ."),
        (["-i", "{clip}", "-o", "null", "--stats", LONG], 6, "give a shorter name"),
        (["-i", "{clip}", "-o", "rtsp://[", "-y"], 2, "not an address (Invalid IPv6 URL): rtsp://["),
        (["-i", "{clip}", "-o", "null", "--threads", "100000"], 2, "number of threads"),
        (["-i", "{clip}", "-o", "null", "--threads", "99999999999999"], 2, "number of threads"),
        (["-i", "udp://127.0.0.1:9", "-o", "null", "--open-s", "inf"], 2, "seconds to wait for the first frame: inf"),
        (["-i", "0", "-o", "null", "--open-s", "nan"], 2, "seconds to wait for the first frame: nan"),
        (["-i", "0", "-o", "null", "--timeout-s", "-1"], 2, "seconds without a frame: -1"),
        (["-i", "0", "-o", "null", "--frozen-s", "1e300"], 2, "seconds of identical frames"),
        (["-i", "0", "-o", "null", "--max-reconnects", "-1"], 2, "number of reconnections: -1"),
        (["-i", "csi://0", "-o", "null", "--camera-fps", "inf"], 2, "frame rate of the camera: inf"),
        (["-i", "{clip}", "-o", "null", "--segment-s", "nan"], 2, "seconds of a segment: nan"),
        (["-i", "{clip}", "-o", "null", "--max-latency-ms", "nan"], 2, "milliseconds of latency: nan"),
        (["-i", "{clip}", "-o", "null", "--guard", "off", "--strict"], 2, "strict is about what the guard finds"),
        (["-i", "{clip}", "-o", "null", "--resume"], 2, "leave out --resume, or write one video alone"),
        (["-i", "@nothing", "-o", "null"], 2, "or write ./@NAME"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_odd_arguments_get_one_line_and_their_code(
    arguments: list[str],
    code: int,
    words: str,
    clip: Path,
    invert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    filled = [argument.format(clip=clip) for argument in arguments]
    if "--engine" not in filled:
        filled += ["--engine", str(invert), "--provider", "cpu"]
    assert main(filled) == code
    line = last_line(capsys)
    assert line.startswith("error: ")
    assert words in line


@pytest.mark.parametrize(
    "arguments",
    [
        ["--tile", "99999999999999999999x64"],
        ["--camera-size", "65536x9"],
        ["--raw", "9x9@1e999"],
        ["--raw", "9x9@nan"],
        ["--serve", "[::zz]:80"],
        ["--skip-sharp", "nan"],
    ],
    ids=" ".join,
)
def test_odd_arguments_that_the_parser_refuses(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["-i", "clip.mp4", *arguments])
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_short_names_of_options() -> None:
    assert parse(["-i", "a", "-i", "b", "-o", "c", "-o", "d"]) == parse(
        ["--source", "a", "--source", "b", "--out", "c", "--out", "d"]
    )


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -1.0, 1e300])
def test_impossible_limits_of_the_interface_are_usage_errors(value: float) -> None:
    for name in ("open_s", "timeout_s", "frozen_s"):
        with pytest.raises(UsageError, match="give a number from"):
            Watch(**{name: value})
    with pytest.raises(UsageError, match="frame rate"):
        LiveOptions(camera_fps=value)
    with pytest.raises(UsageError, match="latency"):
        RunOptions(max_latency_ms=value)


def test_as_many_threads_as_a_large_machine_has_are_accepted() -> None:
    assert RunOptions(threads=max(MAX_THREADS, available_cores())).threads


def test_the_current_folder_is_an_output(
    clip: Path, invert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["-i", str(clip), "-o", ".", "--engine", str(invert), "--provider", "cpu"]) == 0
    assert len(list(Path().glob("*.png"))) == 10


def test_the_folder_of_the_source_images_is_no_output(
    invert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), make_image(16, 16))
    monkeypatch.chdir(tmp_path)
    assert main(["-i", ".", "-o", ".", "-y", "--engine", str(invert), "--provider", "cpu"]) == 2
    assert "output is the source" in last_line(capsys)


def test_patterns_find_what_glob_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "x/b.png", "x/y/c.png", "x/y/d.txt", "x/.hidden/e.png", ".f.png", "x/y.png/g.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "h.png").touch()
    (tmp_path / "x" / "link").symlink_to(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    import glob

    for pattern in ("**/*.png", "*.png", "x/**", "**", "x/**/y/**/*", "**/y*/*", "**/.hidden/*", "*/**/*.png", "?/*"):
        for place in (pattern, str(tmp_path / pattern)):
            expected = {name for name in glob.glob(place, recursive=True) if os.path.isfile(name)}  # noqa: PTH207, PTH113
            assert {str(path) for path in find_files(place)} == expected, place


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / f"{name}.png"), make_image(16, 16))
    for index in range(4):  # glob.glob follows each up to forty times, in every order
        (tmp_path / "a" / f"up{index}").symlink_to(tmp_path)
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "gone").symlink_to(tmp_path / "gone")
    found = [str(path.relative_to(tmp_path)) for path in find_files(f"{tmp_path}/**/*.png")]
    assert sorted(found) == ["a/a.png", "b/a/a.png", "b/b.png"]


def test_a_pattern_over_the_root_ends(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-i", "/**/no such folder/*.png", "-o", "null"]) == 3
    assert last_line(capsys).startswith("error: no images found")


def test_a_name_with_a_zero_byte_is_an_input_error() -> None:
    from runtime.errors import InputError

    with pytest.raises(InputError, match="cannot be read"):
        open_source("a\0b")
