"""The Python API: names of the package, engines as context managers, one image, options."""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest

import runtime
from runtime import EngineError, Pipeline, RunOptions, UsageError, open_engine, open_sink, open_source, restore
from runtime.engines import open_backend, require_engine
from runtime.spec import METADATA_KEY, EngineSpec
from runtime.video import main, parse
from tests.conftest import ROOT, make_image, write_engine
from tests.runtime.conftest import UNGUARDED


@pytest.mark.parametrize("name", runtime.__all__)
def test_public_names_exist(name: str) -> None:
    assert getattr(runtime, name).__name__ == name
    assert name in dir(runtime)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'open_engines'"):
        _ = runtime.open_engines


def test_import_of_the_package_loads_no_engine() -> None:
    code = "import runtime, sys; assert not {'onnxruntime', 'av', 'torch'} & set(sys.modules), sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_an_engine_restores_frames_and_batches_and_closes(invert: Path) -> None:
    frame = make_image(61, 47)
    with open_engine(invert, provider="cpu") as engine:
        assert np.array_equal(engine(frame), 255 - frame)
        assert np.array_equal(engine(frame[np.newaxis]), 255 - frame[np.newaxis])
    with pytest.raises(EngineError, match="closed"):
        engine(frame)


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((3, 8, 8), np.uint8), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)],
    ids=["chw", "gray", "float", "empty"],
)
def test_wrong_arrays_are_value_errors_that_say_what_is_expected(wrong: np.ndarray, invert: Path) -> None:
    with open_engine(invert, provider="cpu") as engine, pytest.raises(ValueError, match=r"expected uint8\[H, W, 3\]"):
        engine(wrong)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (np.zeros((512, 512, 3), np.uint8), r"got uint8\[512, 512, 3\]; a batch of one frame is frame\[np.newaxis\]"),
        (np.zeros((1, 3, 64, 64), np.uint8), r"got uint8\[1, 3, 64, 64\]$"),
        (np.zeros((1, 64, 64, 3), np.float32), r"got float32\[1, 64, 64, 3\]$"),
        (np.zeros((0, 64, 64, 3), np.uint8), r"got uint8\[0, 64, 64, 3\]$"),
        (None, "got NoneType$"),
    ],
    ids=["frame", "nchw", "float", "empty", "none"],
)
def test_engines_refuse_what_is_no_batch(wrong: np.ndarray, words: str, invert: Path) -> None:
    for engine in (open_engine(invert, provider="cpu"), open_backend(invert, provider="cpu")):
        for call in (engine.infer, engine.submit):
            with pytest.raises(ValueError, match=rf"^expected uint8\[N, H, W, 3\] in BGR order, {words}"):
                call(wrong)
        engine.close()


def test_an_image_that_opencv_could_not_read_is_a_value_error(invert: Path) -> None:
    with pytest.raises(ValueError, match=r"got NoneType; cv2\.imread gives None"):
        restore(None, engine=invert)


@pytest.mark.parametrize("open_by_name", [open_engine, open_backend, require_engine])
def test_bundled_names_work_wherever_an_engine_is_named(open_by_name: Callable[[str], object]) -> None:
    engine = open_by_name("edge-m")
    if engine is not None:
        engine.close()
    with pytest.raises(EngineError, match="no such engine: edge-x; "):
        open_by_name("edge-x")


@pytest.mark.parametrize("wrong", [{"provider": "gpu"}, {"mode": "fast"}, {"threads": -1}, {"threads": 10**6}], ids=str)
def test_wrong_arguments_of_an_engine_are_usage_errors(wrong: dict[str, object], invert: Path) -> None:
    for open_it, engine in product((open_engine, open_backend), (invert, "edge-s")):
        with pytest.raises(UsageError):
            open_it(engine, **wrong)


def test_an_fp16_engine_on_a_cpu_is_said_to_be_slow(tmp_path: Path) -> None:
    for precision, count in (("fp16", 1), ("int8_cpu", 0)):
        path = write_engine(tmp_path / f"{precision}.onnx")
        model = onnx.load(path)
        model.metadata_props.add(key=METADATA_KEY, value=EngineSpec(name="a", precision=precision).to_json())
        onnx.save(model, path)
        lines: list[str] = []
        open_engine(path, provider="cpu", say=lines.append).close()
        assert len([line for line in lines if "FP16" in line and "slower" in line]) == count


def test_messages_of_the_interface_name_no_option_of_a_command() -> None:
    """A hint may hold a whole command, `python -m ...` or `ffmpeg ...`; an option alone means nothing in a program."""
    commands = (
        "video.py",
        "__main__.py",
        "session.py",
        "jobs.py",
        "resume.py",
        "report.py",
        "cli.py",
        "worker.py",
        "cluster.py",
        "gate.py",
    )
    found = []
    for path in sorted((ROOT / "runtime").rglob("*.py")):
        if path.name in commands or path.parent.name in {"batch", "install", "monitor", "web"}:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and str(getattr(node.func, "id", "")).endswith("Error"):
                texts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
                found += [
                    f"{path.name}:{node.lineno} {text}"
                    for text in texts
                    if isinstance(text, str) and re.search(r"(^| )--[a-z]", text) and "python -m" not in text
                ]
    assert found == []


def test_restore_takes_an_engine_or_its_name(invert: Path) -> None:
    frame = make_image(61, 47)
    assert np.array_equal(restore(frame, engine=invert), 255 - frame)
    with open_engine(invert, provider="cpu") as engine:
        assert np.array_equal(restore(frame, engine=engine), 255 - frame)
    assert restore(frame, engine="edge-s").shape == frame.shape


def test_frames_outside_the_range_are_tiled(tmp_path: Path) -> None:
    small = write_engine(tmp_path / "small.onnx", shape=("n", 64, 64, 3))
    frame = make_image(150, 90)
    with open_engine(small, provider="cpu") as engine:
        assert np.array_equal(engine(frame), 255 - frame)


def test_a_pipeline_runs_with_the_guard_by_default(invert: Path, clip: Path, tmp_path: Path) -> None:
    for options, rejected in ((None, 10), (UNGUARDED, 0)):
        source = open_source(str(clip))
        with open_engine(invert, provider="cpu") as engine:
            pipeline = Pipeline(source, engine, open_sink(str(tmp_path / "out.mp4"), source.info), options)
            pipeline.run()
        assert (pipeline.frames_written, pipeline.frames_rejected) == (10, rejected)


@pytest.mark.parametrize(
    "wrong",
    [
        {"provider": "gpu"},
        {"mode": "fast"},
        {"pipe": "avi"},
        {"threads": -1},
        {"skip_blur_score": 2.0},
        {"segment_s": -1.0},
        {"tile": (8, 8)},
        {"sources": ()},
    ],
    ids=str,
)
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        RunOptions(**wrong)


def test_options_are_frozen_and_those_of_the_command_line() -> None:
    options = RunOptions()
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.threads = 2
    assert parse([]) == dataclasses.replace(options, engine="edge-s")


@pytest.mark.parametrize("engine", ["missing.plan", "edge-x", "missing.onnx"])
def test_a_missing_engine_is_reported_before_a_camera_is_opened(
    engine: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("runtime.session.open_source", lambda *_, **__: pytest.fail("a source was opened"))
    assert main(["--engine", engine]) == 4
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: no such engine: {engine}; ")
    assert all(name in shown for name in ("edge-s", "edge-m", "edge-l", "edge-l-gan"))


def test_without_a_source_the_default_camera_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    if Path("/dev/video0").exists():
        pytest.skip("this machine has a camera")
    assert main([]) == 5
    assert "camera 0 is the default source" in capsys.readouterr().err


def test_values_that_cannot_be_meant_are_refused(clip: Path) -> None:
    with pytest.raises(UsageError, match="tuples of names"):
        RunOptions(sources="a.mp4")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="unknown form of frames 'rgb'"):
        RunOptions(pixels="rgb")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="unknown form of frames 'rgb'"):
        open_engine("edge-s", pixels="rgb")  # type: ignore[call-overload, arg-type]
    assert open_source(clip).info.name == str(clip)
