"""Numeric tests of engines with the bundled networks, and the choice of `open_backend` between backends."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil
import pytest
from onnx import TensorProto

from runtime.engines import BUNDLED, BUNDLED_NAMES, Engine, open_backend, resolve_engine
from runtime.engines.openvino import OpenVinoEngine
from runtime.errors import EngineError
from runtime.frame import Pixels
from tests.conftest import make_image, write_engine
from tests.engine_backends import BACKENDS, Resources

FP32 = BUNDLED.with_name("edge-s_fp32.onnx")
SIZES = [(1, 1), (2, 3), (7, 1), (4, 4), (5, 8), (33, 17), (360, 640), (721, 1279)]
"""Height and width of frames."""
Open = Callable[[Path], Engine]

NUMERIC_BACKENDS = {
    name: open_backend for name, open_backend in BACKENDS if name.startswith(("onnxruntime", "openvino", "tensorrt"))
}
ONNX_BACKENDS = [name for name in NUMERIC_BACKENDS if not name.startswith("tensorrt")]


@pytest.fixture(params=NUMERIC_BACKENDS)
def open_onnx(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Open]:
    """Open the engine of an ONNX file in each backend that computes; plans use stand-ins for CUDA and TensorRT."""
    with ExitStack() as cleanup:
        resources = Resources(tmp_path, monkeypatch, cleanup)
        yield lambda onnx: resources.open(NUMERIC_BACKENDS[request.param], onnx)


def test_throughput_mode_gives_the_results_of_latency_mode() -> None:
    frames = [make_image(64, 48, seed=seed)[None] for seed in range(12)]
    for path in (BUNDLED, FP32):
        latency, throughput = (
            open_backend(path, provider="cpu"),
            open_backend(path, provider="cpu", mode="throughput", threads=3),
        )
        assert (latency.slots, throughput.slots) == (1, 4)
        assert throughput.backend == f"{latency.backend} (3 frames at once)"
        results = []
        for index, frame in enumerate(frames):
            if index >= throughput.slots:
                results.append(throughput.collect())
            throughput.submit(frame)
        results += [throughput.collect() for _ in range(throughput.slots)]
        for frame, result in zip(frames, results, strict=True):
            assert np.array_equal(result, latency.infer(frame))
    assert open_backend(BUNDLED, provider="cpu", mode="throughput", threads=1).slots == 1
    assert open_backend(BUNDLED, provider="cpu", mode="throughput", threads=32).slots == 9


def test_bundled_files_are_small_and_name_no_machine() -> None:
    for path in BUNDLED.parent.rglob("*.*"):
        content = path.read_bytes()
        assert len(content) < 7_000_000, path
        assert path.suffix not in {".onnx", ".json"} or not re.search(rb"/(home|root|tmp|work|usr)/", content), path


def test_name_of_a_bundled_engine_opens_it_unless_a_file_has_this_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [resolve_engine(name).name for name in BUNDLED_NAMES] == [f"{name}_int8_cpu.onnx" for name in BUNDLED_NAMES]
    assert all(resolve_engine(name).is_file() for name in BUNDLED_NAMES)
    assert resolve_engine("mine.onnx") == Path("mine.onnx")
    (tmp_path / "edge-s").mkdir()
    (tmp_path / "edge-s" / "photo.png").touch()  # outputs of engines are often in folders of their names
    assert resolve_engine("edge-s").name == "edge-s_int8_cpu.onnx"
    (tmp_path / "edge-s" / "deblur_fp16.onnx").touch()
    assert resolve_engine("edge-s") == Path("edge-s")


@pytest.mark.parametrize("path", [FP32, BUNDLED], ids=["fp32", "int8_cpu"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_every_size_gives_the_result_of_onnx_runtime(open_onnx: Open, path: Path, height: int, width: int) -> None:
    frame = make_image(width, height)[None]
    restored = open_onnx(path).infer(frame)
    assert restored.shape == frame.shape
    assert restored.dtype == np.uint8
    expected = open_backend(path, provider="cpu").infer(frame)
    difference = np.abs(restored.astype(int) - expected)
    assert difference.max() <= (1 if path == FP32 else 12)
    assert difference.mean() < (2 if height * width < 16 else 1)  # few pixels have a mean of 1.4 with another library


def test_1921x1081(open_onnx: Open) -> None:
    frame = np.zeros((1, 1081, 1921, 3), np.uint8)
    assert open_onnx(BUNDLED).infer(frame).shape == frame.shape


def test_batch_gives_the_results_of_single_frames(open_onnx: Open) -> None:
    engine = open_onnx(FP32)
    batch = np.stack([make_image(61, 50, seed=seed) for seed in range(3)])
    single = np.concatenate([engine.infer(batch[i : i + 1]) for i in range(3)])
    assert np.abs(engine.infer(batch).astype(int) - single).max() <= 1


def test_flat_frames_stay_flat_up_to_the_border(open_onnx: Open) -> None:
    """Black, gray and white frames have no detail to restore; a change at the border would come from padding."""
    for value in (0, 128, 255):
        frame = np.full((1, 41, 59, 3), value, np.uint8)
        assert np.abs(open_onnx(BUNDLED).infer(frame).astype(int) - value).max() <= 8


def test_a_thousand_frames_do_not_increase_memory(open_onnx: Open) -> None:
    engine = open_onnx(BUNDLED)
    frame = make_image(96, 64)[None]
    process = psutil.Process()
    for _ in range(200):
        engine.infer(frame)
    gc.collect()
    before = process.memory_info().rss
    for _ in range(1000):
        engine.infer(frame)
    gc.collect()
    assert process.memory_info().rss - before < 8 << 20  # all results together have 18 MB


def test_bundled_engine_has_a_spec(open_onnx: Open) -> None:
    engine = open_onnx(BUNDLED)
    assert (engine.spec.name, engine.spec.precision) == ("edge-s_int8_cpu", "int8_cpu")
    assert engine.spec.loss_db is not None
    assert engine.spec.loss_db < 0.3


@pytest.mark.parametrize("open_onnx", ONNX_BACKENDS, indirect=True)
@pytest.mark.parametrize(
    "contract",
    [{"kind": TensorProto.FLOAT}, {"shape": ("n", 3, "h", "w")}, {"shape": ("h", "w", 3)}, {"inputs": 2}],
    ids=["float", "nchw", "no batch", "two inputs"],
)
def test_other_inputs_are_refused_with_the_expected_contract(
    open_onnx: Open, tmp_path: Path, contract: dict[str, object]
) -> None:
    path = write_engine(tmp_path / "other.onnx", **contract)
    with pytest.raises(EngineError, match=r"expected one input and one output of uint8\[N, H, W, 3\] or .*, got"):
        open_onnx(path)


def test_auto_opens_the_faster_backend_and_names_both_times() -> None:
    backend = open_backend(BUNDLED).backend
    for one, other in (("ONNX Runtime", "OpenVINO"), ("OpenVINO", "ONNX Runtime")):
        if backend.startswith(one):
            rest = backend.split("(")[1].rstrip(")").split(" ms for 320x180; ")
            assert rest[1].startswith(other)
            assert float(rest[0]) <= float(rest[1].rpartition(" ")[2])
            return
    pytest.fail(backend)


def test_auto_works_without_openvino(monkeypatch: pytest.MonkeyPatch, invert: Path) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr("runtime.engines.find_spec", lambda name: None)
    assert open_backend(invert).backend.startswith("ONNX Runtime")
    with pytest.raises(EngineError, match="OpenVINO is not installed"):
        open_backend(invert, provider="openvino")


def test_auto_opens_onnx_runtime_if_openvino_cannot_load_the_engine(
    monkeypatch: pytest.MonkeyPatch, invert: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise EngineError("not an engine that OpenVINO can load", hint="")

    monkeypatch.setattr("runtime.engines.OpenVinoEngine", refuse)
    engine = open_backend(invert)
    assert engine.backend.startswith("ONNX Runtime")
    assert np.array_equal(engine.infer(make_image(8, 6)[None]), 255 - make_image(8, 6)[None])


def test_auto_opens_onnx_runtime_if_the_result_of_openvino_differs(
    monkeypatch: pytest.MonkeyPatch, invert: Path
) -> None:
    class Wrong(OpenVinoEngine):
        def infer(self, batch: Pixels) -> Pixels:
            return super().infer(batch) // 2

    monkeypatch.setattr("runtime.engines.OpenVinoEngine", Wrong)
    engine = open_backend(invert)
    assert engine.backend.startswith("ONNX Runtime")
    assert "OpenVINO's output differs: " in engine.backend
    engine.close()
