"""TensorRT plans: refusals before TensorRT is called, and the engine around it, with stand-ins that compute."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.engines import BUNDLED, open_backend
from runtime.engines.tensorrt import TensorRtEngine
from runtime.errors import EngineError, OutOfMemoryError, UnfitPlanError
from runtime.sidecar import Sidecar, read_sidecar, sidecar_path
from runtime.video import main
from tests.conftest import ROOT, make_image, without_gpu
from tests.standin import HostCuda, install_stand_in, write_plan


def frame(seed: int = 0, *, width: int = 24, height: int = 16) -> np.ndarray:
    return make_image(width, height, seed=seed)[None]


# Plans that are refused


@pytest.fixture
def plan(invert: Path, tmp_path: Path) -> Path:
    return write_plan(invert, tmp_path)


def refusal(plan: Path) -> EngineError:
    with pytest.raises(EngineError) as caught:
        open_backend(plan)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("kind", ["truncated", "bit flipped", "junk"])
def test_a_damaged_plan_is_never_loaded(plan: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.engines.tensorrt.import_tensorrt", lambda _: pytest.fail("TensorRT was called"))
    whole = plan.read_bytes()
    flipped = bytes([whole[0] ^ 1]) + whole[1:]
    plan.write_bytes({"truncated": whole[:99], "bit flipped": flipped, "junk": b"junk" * 99}[kind])
    error = refusal(plan)
    assert "SHA-256 differs" in str(error)
    assert isinstance(error, UnfitPlanError)
    assert error.rebuild[:4] == ["-m", "export.plan", str(plan.with_name("invert.onnx")), "--out"]


def test_missing_plan_and_missing_sidecar(plan: Path) -> None:
    sidecar_path(plan).unlink()
    assert "plan has no sidecar file" in str(refusal(plan))
    plan.write_bytes(b"")
    assert "engine is empty" in str(refusal(plan))
    plan.unlink()
    assert "no such engine" in str(refusal(plan))
    plan.mkdir()
    assert "engine is a folder" in str(refusal(plan))


def test_plan_without_read_permission(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert "plan cannot be read (Permission denied)" in str(refusal(plan))


def test_metadata_of_another_tool_in_front_of_the_plan_is_detected(plan: Path) -> None:
    text = json.dumps({"stride": 32, "task": "detect"}).encode()
    plan.write_bytes(len(text).to_bytes(4, "little") + text + plan.read_bytes())
    assert "metadata of another tool in front" in str(refusal(plan))


@pytest.mark.parametrize("name", ["", "../elsewhere.onnx", "a/b.onnx"])
def test_sidecar_must_name_a_file_in_the_folder_of_the_plan(plan: Path, name: str) -> None:
    values = json.loads(sidecar_path(plan).read_text())
    sidecar_path(plan).write_text(json.dumps(values | {"onnx": name}))
    assert "onnx must be the name of a file in the folder of the plan" in str(refusal(plan))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"engine": {}}', '{"engine": {"name": "a", "height": [9, 1]}}', "\0"])
def test_a_damaged_sidecar(plan: Path, text: str) -> None:
    sidecar_path(plan).write_text(text)
    assert "sidecar cannot be read" in str(refusal(plan))


def test_unknown_fields_of_a_sidecar_are_ignored(plan: Path) -> None:
    values = json.loads(sidecar_path(plan).read_text())
    sidecar_path(plan).write_text(json.dumps(values | {"new": 1, "engine": values["engine"] | {"new": 1}}))
    assert read_sidecar(plan, plan.read_bytes()).flavour == "tensorrt-rtx"


def test_wrong_tensorrt_version_names_both_versions_and_the_command(
    invert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_stand_in(monkeypatch)
    text = str(refusal(write_plan(invert, tmp_path, version="1.5.0")))
    assert "built by tensorrt-rtx 1.5.0, here is 1.7.1.116" in text
    assert f"python -m export.plan {tmp_path}/invert.onnx --out {tmp_path}/invert.plan --target tensorrt-rtx" in text


def test_wrong_gpu_names_both_compute_capabilities(
    invert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins = install_stand_in(monkeypatch)
    size = {"opt_size": (320, 180), "workspace_mib": 99}
    text = str(refusal(write_plan(invert, tmp_path, compute_capabilities=("8.6", "12.0"), **size)))
    assert "--opt-size 320x180" in text
    assert text.endswith("--batch 4 --workspace-mib 99 --compute-capability 8.9")
    assert "plan is for compute capability 8.6, 12.0, stand-in has 8.9" in text
    assert stand_ins[0][0].closed


def test_error_message_of_tensorrt_is_shown(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins = install_stand_in(monkeypatch)
    plan.write_bytes(b"not a plan")
    values = Sidecar.from_json(sidecar_path(plan).read_text())
    whole = dataclasses.replace(values, plan_sha256=hashlib.sha256(plan.read_bytes()).hexdigest())
    sidecar_path(plan).write_text(whole.to_json())
    assert "cannot load the plan (magic tag does not match" in str(refusal(plan))
    assert stand_ins[0][0].closed


def test_a_package_that_is_not_installed(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    assert "tensorrt-rtx cannot be imported" in str(refusal(plan))


@without_gpu
def test_without_a_driver_the_hint_names_the_onnx_file(plan: Path) -> None:
    text = str(refusal(plan))
    assert "no NVIDIA driver is installed here" in text
    assert "run invert.onnx instead" in text


# Plans that run


def test_graph_is_captured_once_per_shape(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins = install_stand_in(monkeypatch)
    engine = TensorRtEngine(plan)
    cuda, trt = stand_ins[0]
    for seed in range(5):
        assert np.array_equal(engine.infer(frame(seed)), 255 - frame(seed))
    assert trt.executions == 2  # one warm-up and one capture; then only the graph is launched
    assert cuda.launched == 5
    assert "CUDA graph" in engine.backend
    larger = frame(1, width=40, height=33)
    assert np.array_equal(engine.infer(larger), 255 - larger)
    assert np.array_equal(engine.infer(frame(7)), 255 - frame(7))
    assert trt.executions == 6
    engine.close()
    assert cuda.closed


@pytest.mark.parametrize("graphs", [True, False])
def test_compute_time_is_measured_without_copies(plan: Path, graphs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins = install_stand_in(monkeypatch, lambda: HostCuda(graphs=graphs))
    with contextlib.closing(open_backend(plan)) as engine:
        assert isinstance(engine, TensorRtEngine)
        times = engine.compute_ms(frame(), count=5)
        assert len(times) == 5
        assert min(times) > 0
        cuda, trt = stand_ins[0]
        copies, executions, launched = cuda.copies, trt.executions, cuda.launched
        engine.compute_ms(frame(), count=5)
        assert cuda.copies - copies == (5 if graphs else 2 + 5)  # one frame up and down, then five uploads
        assert trt.executions - executions == (1 if graphs else 1 + 5)  # with graphs, the one that is captured
        assert cuda.launched - launched == (1 + 5 if graphs else 0)
        assert np.array_equal(engine.infer(frame(1)), 255 - frame(1))
    with pytest.raises(EngineError, match="closed"):
        engine.compute_ms(frame(), count=1)


def test_without_graphs_every_frame_is_queued(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins = install_stand_in(monkeypatch, lambda: HostCuda(graphs=False))
    engine = TensorRtEngine(plan)
    for seed in range(3):
        assert np.array_equal(engine.infer(frame(seed)), 255 - frame(seed))
    assert stand_ins[0][0].launched == 0
    assert "CUDA graph" not in engine.backend


def test_a_shape_for_which_memory_is_allocated_is_not_captured(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins = install_stand_in(monkeypatch)
    engine = TensorRtEngine(plan)
    cuda, trt = stand_ins[0]
    trt.allocates = True
    assert np.array_equal(engine.infer(frame()), 255 - frame())
    assert cuda.launched == 0
    trt.allocates = False
    larger = frame(width=40, height=33)
    assert np.array_equal(engine.infer(larger), 255 - larger)
    assert cuda.launched == 1
    engine.close()


def test_an_integrated_gpu_copies_nothing(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins = install_stand_in(monkeypatch, lambda: HostCuda(integrated=True))
    engine = TensorRtEngine(plan)
    assert np.array_equal(engine.infer(frame()), 255 - frame())
    assert stand_ins[0][0].copies == 0


def test_engine_works_after_a_failed_part_of_a_batch(
    invert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins = install_stand_in(monkeypatch, lambda: HostCuda(graphs=False))
    engine = TensorRtEngine(write_plan(invert, tmp_path, batch=1), mode="throughput")
    engine.infer(frame())
    stand_ins[0][1].fail_at = stand_ins[0][1].executions + 5
    with pytest.raises(EngineError, match="plan failed on a frame"):
        engine.infer(np.concatenate([frame(seed) for seed in range(7)]))
    assert np.array_equal(engine.infer(frame(1)), 255 - frame(1))
    engine.close()


def test_close_waits_for_a_frame_in_work(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed run, `close` comes from another thread than the frame."""
    stand_ins = install_stand_in(monkeypatch)
    engine = TensorRtEngine(plan)
    cuda = stand_ins[0][0]
    inside, go_on = threading.Event(), threading.Event()
    wait = cuda.wait

    def slow(stream: int) -> None:
        inside.set()
        go_on.wait(5)
        assert cuda.live
        wait(stream)

    monkeypatch.setattr(cuda, "wait", slow)

    def work() -> None:
        with contextlib.suppress(EngineError):  # closed between two calls
            engine.infer(frame())

    worker = threading.Thread(target=work)
    worker.start()
    inside.wait(5)
    closer = threading.Thread(target=engine.close)
    closer.start()
    closer.join(0.2)
    assert not cuda.closed
    go_on.set()
    closer.join(5)
    worker.join(5)
    assert cuda.closed


def test_three_slots_keep_the_order_and_refuse_infer_while_busy(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_stand_in(monkeypatch)
    engine = TensorRtEngine(plan, mode="throughput")
    assert engine.slots == 3
    for seed in range(3):
        engine.submit(frame(seed))
    for seed in range(20):
        assert np.array_equal(engine.collect(), 255 - frame(seed))
        engine.submit(frame(seed + 3))
    with pytest.raises(EngineError, match="collect what was submitted first"):
        engine.infer(frame())
    engine.close()  # with submitted batches


def test_batch_larger_than_the_plan_allows_is_split(
    invert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_stand_in(monkeypatch)
    batch = np.concatenate([frame(seed) for seed in range(7)])
    for mode in ("latency", "throughput"):
        engine = TensorRtEngine(write_plan(invert, tmp_path, batch=2), mode=mode)
        assert np.array_equal(engine.infer(batch), 255 - batch)
        engine.close()


@pytest.mark.parametrize("fail_at", [1, 2, 3, 4])
def test_engine_works_after_a_failed_execution(plan: Path, fail_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The warm-up, the capture or a later frame fails; the frames after it work."""
    stand_ins = install_stand_in(monkeypatch, lambda: HostCuda(graphs=False))
    engine = TensorRtEngine(plan)
    cuda, trt = stand_ins[0]
    trt.fail_at = fail_at
    failures = 0
    for seed in range(4):
        try:
            assert np.array_equal(engine.infer(frame(seed)), 255 - frame(seed))
        except EngineError as error:
            assert "plan failed on a frame" in str(error)
            failures += 1
    assert failures == (fail_at != 2)  # a failed capture is no failed frame: it runs without a graph
    engine.close()
    assert cuda.closed


def test_shape_that_the_plan_refuses(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins = install_stand_in(monkeypatch)
    engine = TensorRtEngine(plan)
    stand_ins[0][1].refuse_shapes = True
    with pytest.raises(EngineError, match="plan refuses frames of shape"):
        engine.infer(frame())
    engine.close()


def test_out_of_memory_is_raised_and_memory_released(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins = install_stand_in(monkeypatch, lambda: HostCuda(memory_bytes=4000))
    engine = TensorRtEngine(plan)
    assert np.array_equal(engine.infer(frame()), 255 - frame())
    with pytest.raises(OutOfMemoryError):
        engine.infer(frame(width=64, height=64))
    assert np.array_equal(engine.infer(frame()), 255 - frame())
    engine.close()
    assert stand_ins[0][0].closed


def test_slots_without_memory_are_left_out(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is memory for the frames of two slots, and later for those of one."""
    stand_ins = install_stand_in(monkeypatch, lambda: HostCuda(memory_bytes=4 * frame().size))
    engine = TensorRtEngine(plan, mode="throughput")
    assert engine.slots == 3
    for seed in (0, 1):
        engine.submit(frame(seed))
        assert engine.slots == 2
    for seed in (0, 1):
        assert np.array_equal(engine.collect(), 255 - frame(seed))
    larger = frame(1, width=40, height=16)
    assert np.array_equal(engine.infer(larger), 255 - larger)
    assert engine.slots == 1
    engine.close()
    assert stand_ins[0][0].closed


def test_contexts_without_memory_are_left_out(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins = install_stand_in(monkeypatch)
    monkeypatch.setattr("tests.standin.StandInTensorRt.max_contexts", 2)
    engine = TensorRtEngine(plan, mode="throughput")
    assert engine.slots == 2
    assert "2 slots" in engine.backend
    assert np.array_equal(engine.infer(frame()), 255 - frame())
    engine.close()
    assert stand_ins[0][0].closed
    monkeypatch.setattr("tests.standin.StandInTensorRt.max_contexts", 0)
    with pytest.raises(OutOfMemoryError, match="not enough GPU memory for a context"):
        TensorRtEngine(plan, mode="throughput")


@pytest.mark.parametrize(("memory_bytes", "code"), [(640 * 360 * 3, 0), (10_000, 7)])
def test_out_of_memory_through_the_command_line(
    memory_bytes: int,
    code: int,
    plan: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tiles of half the size are tried once; if memory still does not suffice, the exit code is 7."""
    install_stand_in(monkeypatch, lambda: HostCuda(memory_bytes=memory_bytes))
    source, out = tmp_path / "source.png", tmp_path / "out.png"
    cv2.imwrite(str(source), make_image(640, 360))
    assert main(["--engine", str(plan), "--source", str(source), "--out", str(out), "--guard", "off"]) == code
    shown = capsys.readouterr().err
    assert "warning: not enough memory for 640x360, taken in tiles of half that size" in shown
    if code == 0:
        assert np.array_equal(cv2.imread(str(out)), 255 - make_image(640, 360))
    else:
        assert "error: not enough GPU memory" in shown


def test_memory_is_reported(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_stand_in(monkeypatch)
    engine = TensorRtEngine(plan, mode="throughput")
    engine.infer(frame())
    assert engine.device_memory_bytes == 3 * (1 << 20) + 3 * 2 * frame().size
    assert engine.backend == "tensorrt-rtx 1.7.1.116 on stand-in, 3 slots, CUDA graph, 3 MiB"


def test_runtime_cache_is_stored_next_to_the_plan(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins = install_stand_in(monkeypatch)
    cache = plan.with_name("invert.plan.cache")
    TensorRtEngine(plan).close()
    assert cache.read_bytes() == b"compiled"
    TensorRtEngine(plan).close()
    assert stand_ins[1][1].cache == b"compiled"


# Plans that are built again


def test_rebuild_builds_a_plan_and_opens_it(invert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_stand_in(monkeypatch)
    plan = write_plan(invert, tmp_path, version="1.5.0")
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        write_plan(invert, tmp_path)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr("runtime.engines.subprocess.run", run)
    engine = open_backend(plan, rebuild=True)
    assert np.array_equal(engine.infer(frame()), 255 - frame())
    assert commands == [[sys.executable, *Sidecar.from_json(sidecar_path(plan).read_text()).rebuild_arguments(plan)]]
    open_backend(plan, rebuild=True)  # the new plan fits: nothing is built
    assert len(commands) == 1


@without_gpu
def test_command_in_the_hint_builds_a_plan(tmp_path: Path) -> None:
    """The hint for a truncated plan is run as it is, with the real builder."""
    onnx = tmp_path / "edge-s_fp32.onnx"
    shutil.copy(BUNDLED.with_name(onnx.name), onnx)
    plan = write_plan(onnx, tmp_path)
    plan.write_bytes(plan.read_bytes()[:1000])
    with pytest.raises(UnfitPlanError) as caught:
        open_backend(plan)
    limits = ["--max-size", "640x360", "--opt-size", "320x180"]  # a smaller range than in the spec, for a short test
    subprocess.run([sys.executable, *caught.value.rebuild, *limits], cwd=ROOT, check=True)
    assert read_sidecar(plan, plan.read_bytes()).version == version("tensorrt-rtx")
    assert "no NVIDIA driver" in str(refusal(plan))


def test_failed_rebuild_is_an_engine_error(plan: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plan.write_bytes(b"junk")
    with pytest.raises(EngineError, match="and building it again failed"):
        open_backend(plan, rebuild=True)
    assert "error: " in capfd.readouterr().err  # of the builder: there is no invert.onnx
