"""Conformance suite of engines: every backend keeps the promises of `runtime.engines.base.Engine`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from runtime.engines import Engine
from runtime.errors import EngineError
from runtime.frame import Pixels
from runtime.spec import EngineSpec
from tests.conftest import make_image, write_engine
from tests.engine_backends import BACKENDS, OpenBackend, Resources

PROVIDERS = {"cpu", "openvino", "cuda", "tensorrt", "trt-rtx", "coreml", "tensorrt-rtx", "triton"}
Open = Callable[[Path], Engine]


@pytest.fixture(params=[open_backend for _, open_backend in BACKENDS], ids=[name for name, _ in BACKENDS])
def open_onnx(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Open the engine of an ONNX file in one backend; the engine is closed at the end of the test."""
    open_backend: OpenBackend = request.param
    with ExitStack() as cleanup:
        resources = Resources(tmp_path, monkeypatch, cleanup)
        yield lambda onnx: resources.open(open_backend, onnx)


@pytest.fixture
def engine(open_onnx: Open, invert: Path) -> Engine:
    """Engine whose result is 255 - batch."""
    return open_onnx(invert)


def frame(seed: int = 0, *, width: int = 24, height: int = 16) -> Pixels:
    return make_image(width, height, seed=seed)[None]


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 2), (33, 17), (64, 48)])
def test_result_has_the_shape_and_dtype_of_the_batch(engine: Engine, width: int, height: int) -> None:
    batch = frame(width=width, height=height)
    result = engine.infer(batch)
    assert (result.shape, result.dtype) == (batch.shape, np.uint8)
    assert np.array_equal(result, 255 - batch)


def test_shape_may_change_between_frames(engine: Engine) -> None:
    for width, height in [(24, 16), (40, 33), (24, 16), (8, 50)]:
        batch = frame(width=width, height=height)
        assert np.array_equal(engine.infer(batch), 255 - batch)


def test_batch_of_two_frames(engine: Engine) -> None:
    batch = np.concatenate([frame(0), frame(1)])
    assert np.array_equal(engine.infer(batch), 255 - batch)


def test_batch_is_not_changed_and_may_be_a_view(engine: Engine) -> None:
    batch = make_image(12, 10)[::-1, ::2][None]
    copy = batch.copy()
    assert np.array_equal(engine.infer(batch), 255 - copy)
    assert np.array_equal(batch, copy)


def test_result_belongs_to_the_caller(engine: Engine) -> None:
    batch = frame(0)
    first = engine.infer(batch)
    assert not np.shares_memory(first, batch)
    engine.infer(frame(1))
    assert np.array_equal(first, 255 - batch)
    first[:] = 7  # it can be written
    assert np.array_equal(engine.infer(batch), 255 - batch)


def test_results_come_in_the_order_of_submission_with_all_slots_busy(engine: Engine) -> None:
    assert engine.slots >= 1
    count = 5 * engine.slots
    results = []
    for seed in range(count):
        if seed >= engine.slots:
            results.append(engine.collect())
        engine.submit(frame(seed))
    results += [engine.collect() for _ in range(engine.slots)]
    for seed, result in enumerate(results):
        assert np.array_equal(result, 255 - frame(seed))
    assert np.array_equal(engine.infer(frame()), 255 - frame())  # all slots are free again


def test_calls_may_come_from_different_threads(engine: Engine) -> None:
    for seed in range(3):
        with ThreadPoolExecutor(1) as thread:
            assert np.array_equal(thread.submit(engine.infer, frame(seed)).result(), 255 - frame(seed))


def test_size_outside_the_range_is_refused(open_onnx: Open, tmp_path: Path) -> None:
    engine = open_onnx(write_engine(tmp_path / "fixed.onnx", shape=("n", 48, 64, 3)))
    good, bad = frame(width=64, height=48), frame(width=65, height=48)
    assert engine.spec.accepts(width=64, height=48)
    if engine.spec.accepts(width=65, height=48):  # a wrapper that extends the range
        assert np.array_equal(engine.infer(bad), 255 - bad)
        return
    assert (engine.spec.height, engine.spec.width) == ((48, 48), (64, 64))
    message = "65x48 is outside the engine's range 64x48 to 64x48"
    with pytest.raises(EngineError, match=message):
        engine.infer(bad)
    with pytest.raises(EngineError, match=message):
        submit_and_collect(engine, bad)
    assert np.array_equal(engine.infer(good), 255 - good)


def test_failure_of_the_library_is_an_engine_error(open_onnx: Open, tmp_path: Path) -> None:
    """The graph adds a constant of height 7: it can be loaded, and fails on frames of another height."""
    constant = helper.make_tensor("c", TensorProto.UINT8, [1, 7, 1, 3], [0] * 21)
    nodes = [helper.make_node("Constant", [], ["c"], value=constant), helper.make_node("Add", ["x0", "c"], ["y"])]
    engine = open_onnx(write_engine(tmp_path / "bad.onnx", nodes=nodes))
    for restore in (engine.infer, lambda batch: submit_and_collect(engine, batch)):
        with pytest.raises(EngineError, match="engine failed"):
            restore(frame(width=9, height=5))
        assert np.array_equal(restore(frame(width=9, height=7)), frame(width=9, height=7))


def test_closed_engine_refuses_frames_and_closes_twice(engine: Engine) -> None:
    engine.infer(frame())
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="engine has been closed"):
        engine.infer(frame())
    with pytest.raises(EngineError, match="engine has been closed"):
        submit_and_collect(engine, frame())


def test_close_with_submitted_batches(engine: Engine) -> None:
    for seed in range(engine.slots):
        engine.submit(frame(seed))
    engine.close()


def test_engine_describes_itself(engine: Engine) -> None:
    assert isinstance(engine.spec, EngineSpec)
    assert engine.spec.name == "invert"
    assert engine.provider in PROVIDERS
    assert engine.backend
    assert "\n" not in engine.backend


def test_two_engines_at_the_same_time(open_onnx: Open, invert: Path, tmp_path: Path) -> None:
    identity = write_engine(tmp_path / "identity.onnx", nodes=[helper.make_node("Identity", ["x0"], ["y"])])
    one, two = open_onnx(invert), open_onnx(identity)
    one.submit(frame(0))
    two.submit(frame(1))
    assert np.array_equal(two.collect(), frame(1))
    assert np.array_equal(one.collect(), 255 - frame(0))
    with ThreadPoolExecutor(2) as threads:
        inverted, same = (threads.submit(lambda e=e: [e.infer(frame(seed)) for seed in range(20)]) for e in (one, two))
    for seed in range(20):
        assert np.array_equal(inverted.result()[seed], 255 - frame(seed))
        assert np.array_equal(same.result()[seed], frame(seed))
    one.close()
    assert np.array_equal(two.infer(frame()), frame())


def submit_and_collect(engine: Engine, batch: Pixels) -> Pixels:
    """Restore a batch; an error may come from either call."""
    engine.submit(batch)
    return engine.collect()
