"""Files that a run may not replace: its source, engine, outputs and unfinished outputs, and files of others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runtime.files import partial_name
from runtime.sinks import existing_output
from runtime.video import main
from tests.conftest import write_engine


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return write_engine(tmp_path / "invert.onnx")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Current folder of the runs, with a folder `o` and a link `link` to it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "o").mkdir()
    (tmp_path / "link").symlink_to("o")
    return tmp_path


def run(clip: Path, engine: Path, *arguments: str | Path) -> int:
    common = ["--source", clip, "--engine", engine, "--provider", "cpu", "--guard", "off"]
    return main([str(argument) for argument in (*common, *arguments)])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "outputs",
    [
        ("d.mkv", "d.mkv"),
        ("d.mkv", "o/../d.mkv"),
        ("o/d.mp4", "link/d.mp4"),
        ("frames", "frames/"),
        ("d.mp4", "d.partial.mp4"),
        ("-", "-"),
        ("rtsp://localhost:1/a", "rtsp://localhost:1/a"),
    ],
)
def test_same_output_twice_is_refused_before_anything_is_opened(
    outputs: tuple[str, str], clip: Path, engine: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(folder)
    assert run(clip, engine, "--out", outputs[0], "--out", outputs[1]) == 2
    shown = capsys.readouterr().err
    assert shown == f"error: two outputs are the same: {outputs[1]}; give each --out a name of its own\n"
    assert contents(folder) == before


def test_outputs_that_write_nothing_may_be_repeated(clip: Path, engine: Path) -> None:
    assert run(clip, engine, "--out", "null", "--out", "null") == 0


def test_empty_unfinished_output_blocks_no_run(clip: Path, engine: Path, folder: Path) -> None:
    (folder / "a.partial.mp4").touch()
    assert existing_output("a.mp4") is None
    assert run(clip, engine, "--out", "a.mp4") == 0
    assert not (folder / "a.partial.mp4").exists()


def test_refused_output_leaves_no_file_of_the_others(clip: Path, engine: Path, folder: Path) -> None:
    (folder / "b.mp4").write_bytes(b"precious")
    before = contents(folder)
    assert run(clip, engine, "--out", "a.mp4", "--out", "b.mp4") == 2
    assert run(clip, engine, "--out", "a.mp4", "--out", "b.odd") == 2
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("arguments", "is_advised"),
    [
        (["--out", "a.mp4"], True),
        (["--out", "a.mp4", "-n"], True),
        (["--out", "a.mp4", "--out", "b.mp4"], False),
        (["--out", "a.mp4", "--show"], False),
    ],
)
def test_unfinished_output_is_to_be_resumed_first(
    arguments: list[str], is_advised: bool, clip: Path, engine: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    partial = folder / "a.partial.mp4"
    partial.write_bytes(b"an hour of work")
    assert run(clip, engine, *arguments) == 2
    hint = capsys.readouterr().err.splitlines()[-1].partition("a.partial.mp4; ")[2]
    assert hint.startswith("add --resume to continue it, -y to start again" if is_advised else "add -y to replace it")
    assert partial.read_bytes() == b"an hour of work"


def test_finished_output_of_an_earlier_run_does_not_hide_an_unfinished_one(
    clip: Path, engine: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(clip, engine, "--out", "a.mp4") == 0
    finished = (folder / "a.mp4").read_bytes()
    partial_name(folder / "a.mp4").write_bytes(b"of a second run with -y")
    assert run(clip, engine, "--out", "a.mp4", "--resume") == 2
    assert "output exists: a.mp4; add -y" in capsys.readouterr().err
    assert (folder / "a.mp4").read_bytes() == finished
    assert run(clip, engine, "--out", "a.mp4", "--resume", "-y") == 0
    assert not partial_name(folder / "a.mp4").exists()


@pytest.mark.parametrize(
    "name",
    [
        "clip.mp4",
        "o/../clip.mp4",
        "invert.onnx",
        "a.mp4",
        "a.partial.mp4",
        "calibration.cache",
        "other.json",
        "deep.json",
        "o",
        "/dev/null",
    ],
)
@pytest.mark.parametrize("overwrite", [[], ["-y"], ["-n"]])
def test_statistics_never_replace_another_file(
    name: str, overwrite: list[str], clip: Path, engine: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "calibration.cache").write_bytes(b"\x00scales")
    (folder / "other.json").write_text('{"schema": 2}')
    (folder / "deep.json").write_text("[" * 100_000)
    before = contents(folder)
    assert run(clip, engine, "--out", "a.mp4", "--stats", name, *overwrite) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: statistics ")
    assert "give another --stats" in shown
    assert contents(folder) == before
    assert Path("/dev/null").is_char_device()


def test_statistics_are_no_image_or_segment_of_the_run(clip: Path, engine: Path, folder: Path) -> None:
    assert run(clip, engine, "--out", "frames/", "--stats", "frames/frame_000001.png") == 2
    assert run(clip, engine, "--out", "a.mp4", "--segment-s", "0.2", "--stats", "a_00001.mp4") == 2
    assert not (folder / "frames").exists()


def test_a_recording_asks_for_no_file_that_it_does_not_write(clip: Path, engine: Path, folder: Path) -> None:
    (folder / "a.mp4").write_bytes(b"mine")
    assert run(clip, engine, "--out", "a.mp4", "--segment-s", "1") == 0
    assert (folder / "a.mp4").read_bytes() == b"mine"
    assert (folder / "a_00001.mp4").exists()


def test_statistics_replace_those_of_an_earlier_run_unless_that_is_forbidden(
    clip: Path, engine: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stats = folder / "s.json"
    stats.touch()  # as mktemp leaves it
    for output in ("a.mp4", "b.mp4"):
        assert run(clip, engine, "--out", output, "--stats", stats) == 0
        assert json.loads(stats.read_text())["output"] == output
    assert run(clip, engine, "--out", "c.mp4", "--stats", stats, "-n") == 2
    assert "statistics exist" in capsys.readouterr().err
    assert json.loads(stats.read_text())["output"] == "b.mp4"
