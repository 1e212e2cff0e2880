"""A replaced engine file: the new engine takes over between two frames, no frame is lost, a bad file is not used."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from runtime.engines import Engine, open_backend
from runtime.engines import watched as module
from runtime.engines.tensorrt import TensorRtEngine
from runtime.engines.watched import WatchedEngine
from runtime.errors import EngineError
from runtime.sources import open_source
from runtime.spec import EngineSpec
from runtime.video import main
from tests.conftest import make_image, write_clip, write_engine
from tests.rig import wait_until
from tests.standin import install_stand_in, write_plan


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.05)


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    (tmp_path / "new").mkdir()
    return write_engine(tmp_path / "new" / "identity.onnx", nodes=[helper.make_node("Identity", ["x0"], ["y"])])


@pytest.fixture
def path(invert: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(invert, tmp_path / "engine.onnx"))


def replace(path: Path, by: Path | bytes) -> None:
    """Replace a file in one step, as an export does."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(by if isinstance(by, bytes) else by.read_bytes())
    fresh.replace(path)


def until(condition: Callable[[], bool], engine: Engine, frame: np.ndarray) -> Iterator[np.ndarray]:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        yield engine.infer(frame)
        time.sleep(0.005)


def opener(path: Path) -> Callable[[], Engine]:
    return lambda: open_backend(path, provider="cpu")


def test_the_new_engine_takes_over(path: Path, identity: Path) -> None:
    messages: list[str] = []
    engine = WatchedEngine(path, opener(path), say=messages.append)
    frame = make_image(32, 24)[None]
    assert np.array_equal(engine.infer(frame), 255 - frame)
    replace(path, identity)
    results = list(until(lambda: bool(messages), engine, frame))
    inverted = [np.array_equal(result, 255 - frame) for result in results]
    same = [np.array_equal(result, frame) for result in results]
    assert inverted == [not is_same for is_same in same]
    assert inverted == sorted(inverted, reverse=True)  # all results of the old engine come first
    assert np.array_equal(engine.infer(frame), frame)
    assert messages[0].startswith("engine replaced: engine, ")
    engine.close()
    engine.close()


def test_an_error_of_the_old_engine_reaches_its_own_frame(
    path: Path, identity: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[str] = []
    engine = WatchedEngine(path, opener(path), say=messages.append)
    frame = make_image(32, 24)[None]
    engine.infer(frame)
    engine.submit(frame)

    def fail() -> np.ndarray:
        raise EngineError("lost", hint="none")

    monkeypatch.setattr(engine._engine, "collect", fail)
    replace(path, identity)
    wait_until(lambda: engine._next is not None)
    engine.submit(frame)
    with pytest.raises(EngineError, match="lost"):
        engine.collect()
    assert np.array_equal(engine.collect(), frame)
    engine.close()


@pytest.mark.parametrize("kind", ["junk", "float", "gone"])
def test_bad_new_engine_gives_a_warning_and_the_old_one_stays(path: Path, tmp_path: Path, kind: str) -> None:
    messages: list[str] = []
    engine = WatchedEngine(path, opener(path), say=messages.append)
    frame = make_image(32, 24)[None]
    if kind == "gone":
        path.unlink()
    else:
        replace(path, b"junk" if kind == "junk" else write_engine(tmp_path / "f.onnx", kind=TensorProto.FLOAT))
    for result in until(lambda: bool(messages), engine, frame):
        assert np.array_equal(result, 255 - frame)
    assert messages[0].startswith("warning: the new engine is not used: ")
    assert np.array_equal(engine.infer(frame), 255 - frame)
    engine.close()


def test_new_engine_that_fails_on_the_current_shape_is_not_used(path: Path, tmp_path: Path) -> None:
    nodes = [
        helper.make_node(
            "Constant", [], ["c"], value=helper.make_tensor("c", TensorProto.UINT8, [1, 7, 1, 3], [0] * 21)
        ),
        helper.make_node("Add", ["x0", "c"], ["y"]),
    ]
    messages: list[str] = []
    engine = WatchedEngine(path, opener(path), say=messages.append)
    frame = make_image(32, 24)[None]
    engine.infer(frame)
    replace(path, write_engine(tmp_path / "bad.onnx", nodes=nodes))
    for result in until(lambda: bool(messages), engine, frame):
        assert np.array_equal(result, 255 - frame)
    assert "engine failed on a frame of 32x24" in messages[0]
    engine.close()


def write_cropping_engine(path: Path, rows: int = 8, shape: tuple[object, ...] = ("n", "h", "w", 3)) -> Path:
    """Write an engine that returns the first rows of a frame only; its description does not say so."""
    values = {"starts": [0], "ends": [rows], "axes": [1]}
    constants = [
        helper.make_node("Constant", [], [name], value=helper.make_tensor(name, TensorProto.INT64, [1], value))
        for name, value in values.items()
    ]
    return write_engine(path, nodes=[*constants, helper.make_node("Slice", ["x0", *values], ["y"])], shape=shape)


def test_an_engine_that_returns_another_shape_is_an_error_of_the_engine(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = write_cropping_engine(tmp_path / "crop.onnx")
    for options in ([], ["--guard=off"], ["--tile=64x64"]):
        arguments = ["--engine", engine, "--source", clip, "--out", tmp_path / "o.mp4", "--provider", "cpu", "-y"]
        assert main([*map(str, arguments), *options]) == 4
        (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
        assert "returned uint8[1, 8, 64, 3] for uint8[1, " in line
        assert not (tmp_path / "o.mp4").exists()


def test_a_graph_that_states_another_output_size_is_not_opened(tmp_path: Path) -> None:
    path = write_cropping_engine(tmp_path / "fixed.onnx", shape=(1, 48, 64, 3))
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 8
    onnx.save(model, path)
    with pytest.raises(EngineError, match="expected one input and one output of"):
        open_backend(path, provider="cpu")


@pytest.mark.parametrize("rows", [8, 24], ids=["every shape", "one of two shapes"])
@pytest.mark.parametrize("when", ["before the first frame", "while frames flow"])
def test_new_engine_with_another_output_shape_is_not_used(path: Path, tmp_path: Path, rows: int, when: str) -> None:
    """The frames of two streams have 24 and 32 rows; 24 rows are right for one of them."""
    messages: list[str] = []
    engine = WatchedEngine(path, opener(path), say=messages.append)
    frames = [make_image(40, height)[None] for height in (32, 24)]

    def offer() -> None:
        replace(path, write_cropping_engine(tmp_path / "crop.onnx", rows))

    if when == "before the first frame":
        offer()
        wait_until(lambda: bool(messages) or engine._next is not None)
    for index in range(40):
        if when == "while frames flow" and index == 2:
            offer()
            wait_until(lambda: bool(messages))
        assert np.array_equal(engine.infer(frames[index % 2]), 255 - frames[index % 2])
    (message,) = messages
    assert message.startswith("warning: the new engine is not used: engine returned uint8[1, ")
    assert "\n" not in message
    engine.close()


@pytest.mark.parametrize("guard", ["on", "off"])
def test_a_bad_engine_ends_no_stream(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, guard: str
) -> None:
    count, names = 60, ("a", "b")
    for index, name in enumerate(names):
        write_clip(tmp_path / f"{name}.mp4", size=(64, 48 + 16 * index), pts=[512 * n for n in range(count)])
    said: list[str] = []
    submitted = 0
    original = WatchedEngine.submit

    def submit(self: WatchedEngine, batch: np.ndarray) -> None:
        nonlocal submitted
        submitted += 1
        if submitted == 20:
            say = self._say
            self._say = lambda text: (said.append(text), say(text))
            replace(path, write_cropping_engine(tmp_path / "crop.onnx"))
        if submitted == 40:
            wait_until(lambda: bool(said))
        original(self, batch)

    monkeypatch.setattr(WatchedEngine, "submit", submit)
    arguments = ["--engine", path, "--watch-engine", "--provider", "cpu", f"--guard={guard}"]
    for name in names:
        arguments += ["--source", tmp_path / f"{name}.mp4", "--out", tmp_path / f"{name}_out.mp4"]
    assert main(list(map(str, arguments))) == 0
    shown = capsys.readouterr().err
    assert shown.count("warning: the new engine is not used: engine returned uint8[1, 8, 64, 3]") == 1
    assert "engine replaced" not in shown
    for name in names:
        source, out = (list(open_source(str(tmp_path / file))) for file in (f"{name}.mp4", f"{name}_out.mp4"))
        assert [frame.pixels.shape for frame in out] == [frame.pixels.shape for frame in source]


@pytest.mark.parametrize("kind", ["shape", "type"])
def test_new_plan_with_another_shape_or_type_is_not_used(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    stand_ins = install_stand_in(monkeypatch)
    plan = write_plan(path, tmp_path)
    messages: list[str] = []
    engine = WatchedEngine(plan, lambda: TensorRtEngine(plan), say=messages.append)
    frame = make_image(32, 24)[None]
    assert np.array_equal(engine.infer(frame), 255 - frame)
    (tmp_path / "new").mkdir()
    bad = tmp_path / "new" / "engine.onnx"
    write_cropping_engine(bad) if kind == "shape" else write_engine(bad, kind=TensorProto.FLOAT)
    fresh = write_plan(bad, tmp_path / "new", engine=EngineSpec(name="engine"))
    replace(plan.with_name(plan.name + ".json"), fresh.with_name(fresh.name + ".json"))
    replace(plan, fresh)
    expected = "plan returns [1, 8, 32, 3] for [1, 24, 32, 3]" if kind == "shape" else "expected uint8 frames, got "
    for result in until(lambda: any(expected in message for message in messages), engine, frame):
        assert np.array_equal(result, 255 - frame)
    engine.close()
    assert all(cuda.closed for cuda, _ in stand_ins)


def test_submitted_batches_are_finished_by_the_old_engine(
    path: Path, identity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins = install_stand_in(monkeypatch)
    plan = write_plan(path, tmp_path)
    messages: list[str] = []
    engine = WatchedEngine(plan, lambda: TensorRtEngine(plan, mode="throughput"), say=messages.append)
    frames = [make_image(32, 24, seed=seed)[None] for seed in range(4)]
    engine.submit(frames[0])
    engine.submit(frames[1])
    fresh = write_plan(identity, tmp_path / "new")
    replace(plan.with_name(plan.name + ".json"), fresh.with_name(fresh.name + ".json"))
    replace(plan, fresh)
    end = time.monotonic() + 10
    while engine._next is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    engine.submit(frames[2])
    assert np.array_equal(engine.collect(), 255 - frames[0])
    engine.submit(frames[3])
    assert np.array_equal(engine.collect(), 255 - frames[1])
    assert np.array_equal(engine.collect(), frames[2])
    assert np.array_equal(engine.collect(), frames[3])
    engine.close()
    assert all(cuda.closed for cuda, _ in stand_ins)


def test_new_engine_may_come_between_any_two_calls(
    path: Path, identity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The results of the old engine come from the old engine and in order, at whatever moment the new one comes."""
    install_stand_in(monkeypatch)
    plan, fresh = write_plan(path, tmp_path), write_plan(identity, tmp_path / "new")
    engine = WatchedEngine(plan, lambda: TensorRtEngine(plan, mode="throughput"), say=lambda _: None)
    frames = [make_image(32, 24, seed=seed)[None] for seed in range(6)]
    engine.submit(frames[0])
    engine.submit(frames[1])
    engine._offer(TensorRtEngine(fresh, mode="throughput"))
    engine.submit(frames[2])
    engine._offer(TensorRtEngine(plan, mode="throughput"))
    engine.submit(frames[3])
    for index, frame in enumerate(frames[:4]):
        assert np.array_equal(engine.collect(), frame if index == 2 else 255 - frame)
    engine.close()


def test_through_the_command_line_no_frame_is_lost(
    path: Path, identity: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is replaced while a clip runs: every frame is written, first inverted, then unchanged."""
    count = 120
    write_clip(tmp_path / "long.mp4", pts=[512 * index for index in range(count)])
    frames_seen, first = 0, []
    original = WatchedEngine.submit

    def submit(self: WatchedEngine, batch: np.ndarray) -> None:
        nonlocal frames_seen
        frames_seen += 1
        if frames_seen == 20:
            first.append(self._engine)
            replace(path, identity)
        if frames_seen == 60:  # by when it may have taken over already
            wait_until(lambda: self._next is not None or self._engine is not first[0])
        time.sleep(0.01)
        original(self, batch)

    monkeypatch.setattr(WatchedEngine, "submit", submit)
    arguments = ["--engine", path, "--source", tmp_path / "long.mp4", "--out", tmp_path / "out.mp4", "--watch-engine"]
    assert main([*map(str, arguments), "--provider", "cpu", "--guard=off"]) == 0
    shown = capsys.readouterr().err
    assert "engine replaced: " in shown
    assert f"{count} read, {count} written, 0 dropped" in shown
    restored, source = (list(open_source(str(tmp_path / name))) for name in ("out.mp4", "long.mp4"))
    assert [frame.pts for frame in restored] == [frame.pts for frame in source]
    same = [
        np.abs(out.pixels.astype(int) - into.pixels).mean() < 12 for out, into in zip(restored, source, strict=True)
    ]
    assert not any(same[:20])
    assert all(same[-20:])
    assert same == sorted(same)
