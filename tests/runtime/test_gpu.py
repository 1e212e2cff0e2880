"""Tests of plans and providers on a real GPU; skipped without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pytest

from runtime.engines import BUNDLED, open_backend
from runtime.engines.cuda import probe
from runtime.engines.cuda_drivers import open_cuda
from runtime.engines.onnx_providers import OrtProvider, has_provider
from runtime.engines.tensorrt import Mode
from runtime.errors import EngineError
from runtime.metrics import psnr_db
from tests.conftest import make_image

pytestmark = pytest.mark.gpu
MIN_DB = {"fp32": 55.0, "fp16": 45.0}


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def plan(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from benchmarks.gpu_check.gpu import detect_flavour
    from export.plan.__main__ import main

    onnx = BUNDLED.with_name(f"edge-s_{request.param}.onnx")
    out = tmp_path_factory.mktemp("plans") / f"{onnx.stem}.plan"
    limits = ["--min-size", "16x16", "--opt-size", "320x180", "--max-size", "640x480", "--batch", "2"]
    assert main([str(onnx), "--out", str(out), "--target", detect_flavour(), *limits]) == 0
    return out


def test_driver_describes_the_gpu() -> None:
    device = probe()
    assert float(device.compute_capability) >= 5
    with pytest.raises(EngineError, match="number 99 was requested"):
        probe(99)


def test_memory_copies_and_graphs() -> None:
    cuda = open_cuda()
    with cuda.active():
        buffer, stream = cuda.allocate(1000), cuda.create_stream()
        buffer.host[:] = 7
        cuda.upload(buffer, 1000, stream)
        cuda.wait(stream)
        if not cuda.device.integrated:
            buffer.host[:] = 0

        def work() -> None:
            cuda.download(buffer, 1000, stream)

        graph = cuda.capture(stream, work)
        if graph is None:
            work()
        else:
            cuda.launch(graph, stream)
            cuda.destroy_graph(graph)
        cuda.wait(stream)
        assert (buffer.host == 7).all()
        buffer.free()
        cuda.destroy_stream(stream)
    cuda.close()


@pytest.mark.parametrize("mode", ["latency", "throughput"])
@pytest.mark.parametrize(("width", "height"), [(320, 180), (333, 217), (16, 16), (640, 480)])
def test_plan_gives_the_result_of_the_cpu(plan: Path, mode: Mode, width: int, height: int) -> None:
    frames = [make_image(width, height, seed=seed)[None] for seed in range(5)]
    reference = open_backend(BUNDLED.with_name(f"{plan.stem}.onnx"), provider="cpu")
    engine = open_backend(plan, mode=mode)
    min_db = MIN_DB[engine.spec.precision]
    for frame in frames:
        assert psnr_db(engine.infer(frame)[0], reference.infer(frame)[0]) > min_db
    batch_result = engine.infer(np.concatenate(frames[:3]))
    assert psnr_db(batch_result[2], reference.infer(frames[2])[0]) > min_db
    engine.close()


def test_a_thousand_frames_do_not_increase_memory(plan: Path) -> None:
    engine = open_backend(plan)
    frame = make_image(320, 180)[None]
    for _ in range(100):
        engine.infer(frame)
    before = psutil.Process().memory_info().rss
    for _ in range(1000):
        engine.infer(frame)
    assert psutil.Process().memory_info().rss - before < 16 << 20
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="has been closed"):
        engine.infer(frame)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "trt-rtx"])
def test_onnx_runtimes_gpu_providers(provider: OrtProvider, precision: str) -> None:
    """The sizes alternate, so that graphs of several sizes are captured and replayed."""
    if not has_provider(provider):
        pytest.skip(f"ONNX Runtime was built without {provider}")
    path = BUNDLED.with_name(f"edge-s_{precision}.onnx")
    frames = [make_image(width, 217, seed=seed)[None] for seed, width in enumerate((333, 333, 320, 333, 320, 333))]
    plain = open_backend(path, provider="cpu")
    engine = open_backend(path, provider=provider)
    for frame in frames:
        assert psnr_db(engine.infer(frame)[0], plain.infer(frame)[0]) > MIN_DB[precision]
    engine.close()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_graph_of_onnx_runtime_gives_the_bits_of_a_run_without(precision: str) -> None:
    if not has_provider("cuda"):
        pytest.skip("ONNX Runtime was built without cuda")
    engine = open_backend(BUNDLED.with_name(f"edge-s_{precision}.onnx"), provider="cuda")
    frames = [make_image(320, 180, seed=seed)[None] for seed in range(3)]
    expected = []
    for number, frame in enumerate(frames):
        engine.infer(make_image(64 + number, 64)[None])  # another size, so that the next one is not captured
        expected.append(engine.infer(frame))
    assert "CUDA graphs" in engine.backend
    for frame, result in zip(frames * 2, expected * 2, strict=True):
        assert np.array_equal(engine.infer(frame), result)
    assert "CUDA graphs" in engine.backend  # no capture failed
    engine.close()
