"""Providers of ONNX Runtime for GPUs, tested without one: real IO binding and real results in the memory of the CPU.

Only the names of providers and devices differ from a run on a GPU; `tests/runtime/test_gpu.py` has the tests for one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from runtime.engines import BUNDLED, onnx_gpu, onnx_plugin, onnx_providers, open_backend, open_engine
from runtime.engines.choice import choose_engine
from runtime.engines.cuda import Device
from runtime.engines.onnx import HostRunner, OnnxEngine
from runtime.engines.onnx_binding import MAX_GRAPHS, BoundRunner, OrtFrames, PinnedFrames
from runtime.engines.onnx_gpu import require_convolutions_on_gpu
from runtime.engines.onnx_providers import provider_options
from runtime.engines.timing import trial_frame
from runtime.errors import EngineError, OutOfMemoryError
from runtime.frame import Pixels
from runtime.spec import EngineSpec
from runtime.video import main
from tests.conftest import make_image
from tests.standin import HostCuda

FP16, FP32 = (BUNDLED.with_name(f"edge-s_{precision}.onnx") for precision in ("fp16", "fp32"))
NO_LIBRARIES = (
    "/onnxruntime_src/onnxruntime/python/onnxruntime_pybind_state.cc:729 void onnxruntime::python::RegisterTensorRT"
    "PluginsAsCustomOps(PySessionOptions&, const onnxruntime::ProviderOptions&) Please install TensorRT libraries as "
    "mentioned in the GPU requirements page, make sure they're in the PATH or LD_LIBRARY_PATH\n"
)
NO_GPU = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:154 bool onnxruntime::CudaCall(ERRTYPE) [with "
    "ERRTYPE = cudaError] CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version ; GPU=-1 ; "
    "hostname=board ; file=/onnxruntime_src/cuda_execution_provider.cc ; line=355 ; expr=cudaSetDevice(0);\n"
)
OUT_OF_MEMORY, ILLEGAL_ADDRESS = (
    f"/onnxruntime_src/cuda_call.cc:154 bool onnxruntime::CudaCall() {failure} ; GPU=0 ; hostname=board ; line=3"
    for failure in ("CUDA failure 2: out of memory", "CUDA failure 700: an illegal memory access was encountered")
)
"""Messages of onnxruntime-gpu 1.31 without the libraries of TensorRT, and without a GPU."""


class GpuSession(ort.InferenceSession):
    """Session that computes on the CPU and says that it runs on the provider that was asked for."""

    asked: list[tuple[str, dict[str, str]]] = []  # noqa: RUF012 - cleared by the fixture
    refuse: Any = staticmethod(lambda options: None)
    fail: Any = staticmethod(lambda run_options: None)
    graph_ids: list[str] = []  # noqa: RUF012 - as above

    def __init__(self, path: str, options: ort.SessionOptions, **settings: Any) -> None:
        first = settings["providers"][0]
        self.name = first[0] if isinstance(first, tuple) else first
        if isinstance(first, tuple):
            assert settings["enable_fallback"] == 0, "ONNX Runtime would print to standard output, and use the CPU"
            GpuSession.asked.append(first)
            if message := GpuSession.refuse(first[1]):
                raise RuntimeError(message)
        disabled = settings.get("disabled_optimizers")
        super().__init__(path, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled)

    def get_providers(self) -> list[str]:
        return [self.name, "CPUExecutionProvider"]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return []

    def run_with_iobinding(self, binding: ort.IOBinding, run_options: ort.RunOptions | None = None) -> None:
        number = run_options.get_run_config_entry("gpu_graph_id") if run_options else ""
        GpuSession.graph_ids.append(number)
        if message := GpuSession.fail(number):
            raise RuntimeError(message)
        super().run_with_iobinding(binding, run_options)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostCuda]:
    """Stand-in for a GPU under ONNX Runtime; it checks that all memory is released."""
    monkeypatch.setattr(ort, "InferenceSession", GpuSession)
    monkeypatch.setattr(ort, "get_available_providers", lambda: list(onnx_providers.ORT_NAMES.values()))
    monkeypatch.setattr(onnx_providers, "probe", lambda: Device("stand-in", "9.0", integrated=False, driver="13.0"))
    monkeypatch.setattr(onnx_gpu, "PinnedFrames", partial(PinnedFrames, device="cpu"))
    gpu = HostCuda()
    monkeypatch.setattr(onnx_gpu, "open_cuda", lambda: gpu)
    for name, value in (("asked", []), ("graph_ids", []), ("refuse", lambda _: None), ("fail", lambda _: None)):
        setattr(GpuSession, name, value)
    yield gpu
    assert not gpu.live


def open_cuda_engine(path: Path = FP32) -> OnnxEngine:
    engine = OnnxEngine(path, provider="cuda")
    assert isinstance(engine, OnnxEngine)
    return engine


def frames(*widths: int) -> list[Pixels]:
    return [make_image(width, 33, seed=seed)[None] for seed, width in enumerate(widths)]


@pytest.mark.parametrize("path", [FP32, FP16, BUNDLED], ids=["fp32", "fp16", "int8_cpu"])
@pytest.mark.parametrize("memory", ["onnxruntime", "page-locked", "integrated"])
def test_bound_runs_give_the_bits_of_an_ordinary_run(path: Path, memory: str) -> None:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    plain = HostRunner(session)
    gpu = HostCuda(integrated=memory == "integrated")
    with gpu.active():
        stream = gpu.create_stream()
    allocate = partial(OrtFrames, device="cpu")
    if memory != "onnxruntime":
        allocate = partial(PinnedFrames, cuda=gpu, stream=stream, device="cpu")
    runner = BoundRunner(session, allocate, with_graphs=True)
    for batch in frames(40, 40, 40, 51, 40, 51, 51, 17, 40):
        assert np.array_equal(runner.run(batch), plain.run(batch))
    batch = np.concatenate(frames(24, 24, 24))
    assert np.array_equal(runner.run(batch[:, ::-1, ::2]), plain.run(batch[:, ::-1, ::2]))
    runner.close()
    assert gpu.live == {stream}
    with pytest.raises(EngineError, match="has been closed"):
        runner.run(batch)


def test_a_frame_is_copied_once_to_the_device_and_once_back(cuda: HostCuda) -> None:
    engine = open_cuda_engine()
    (frame,) = frames(40)
    engine.infer(frame)
    before = cuda.copies
    for _ in range(5):
        engine.infer(frame)
    assert cuda.copies == before + 10
    assert engine.backend.endswith(" CUDA (CUDA graphs; page-locked frames)")
    engine.close()
    assert cuda.closed


def test_a_shape_that_comes_again_gets_a_graph_with_fixed_addresses(cuda: HostCuda) -> None:
    engine = open_cuda_engine()
    for batch in frames(40, 40, 51, 40, 51, 17, 18, 19, 40):
        engine.infer(batch)
    assert GpuSession.graph_ids == ["-1", "1", "-1", "1", "2", "-1", "-1", "-1", "1"]
    assert len([item for item in cuda.live if not isinstance(item, int)]) == 2 * 3  # 40, 51 and the last other one
    engine.close()


def test_no_more_than_a_few_shapes_keep_a_graph(cuda: HostCuda) -> None:
    engine = open_cuda_engine()
    widths = range(16, 16 + MAX_GRAPHS + 2)
    for batch in frames(*(width for width in widths for _ in range(3))):
        engine.infer(batch)
    numbers = GpuSession.graph_ids
    assert numbers[: 3 * MAX_GRAPHS] == [n for i in range(MAX_GRAPHS) for n in ("-1", str(i + 1), str(i + 1))]
    assert set(numbers[3 * MAX_GRAPHS :]) == {"-1"}
    engine.close()


def test_options_that_are_rejected_with_graphs_are_tried_without(cuda: HostCuda) -> None:
    GpuSession.refuse = staticmethod(
        lambda options: "this session cannot use graphs" if options["enable_cuda_graph"] == "1" else None
    )
    engine = open_cuda_engine()
    assert [options["enable_cuda_graph"] for _, options in GpuSession.asked] == ["1", "0"]
    assert engine.backend.endswith("(no CUDA graph: this session cannot use graphs; page-locked frames)")
    for batch in frames(40, 40, 40):
        engine.infer(batch)
    assert set(GpuSession.graph_ids) == {""}
    engine.close()


def test_a_failed_capture_costs_no_frame(cuda: HostCuda) -> None:
    message = "CUDA failure 900: operation not permitted when stream is capturing ; GPU=0 ; hostname=board"
    GpuSession.fail = staticmethod(lambda number: message if number == "1" else None)
    engine = open_cuda_engine()
    plain = OnnxEngine(FP32)
    for batch in frames(40, 40, 40):
        assert np.array_equal(engine.infer(batch), plain.infer(batch))
    assert GpuSession.graph_ids == ["-1", "1", "", ""]
    reason = "CUDA failure 900: operation not permitted when stream is capturing"
    assert engine.backend.endswith(f"(no CUDA graph: {reason}; page-locked frames)")
    engine.close()


def test_a_failing_frame_is_an_error_and_the_next_one_is_not(cuda: HostCuda) -> None:
    engine = open_cuda_engine()
    engine.infer(*frames(40))
    for message, kind in ((OUT_OF_MEMORY, OutOfMemoryError), (ILLEGAL_ADDRESS, EngineError)):
        GpuSession.fail = staticmethod(lambda _, message=message: message)
        with pytest.raises(kind) as failure:
            engine.infer(*frames(51))
        assert "hostname" not in str(failure.value)
    GpuSession.fail = staticmethod(lambda _: None)
    engine.infer(*frames(51))
    assert set(GpuSession.graph_ids) == {"-1"}, "a shape that only failed is not captured"
    engine.close()


def test_without_a_package_for_page_locked_memory_onnx_runtime_copies(
    cuda: HostCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise EngineError("neither PyCUDA nor cuda-bindings is installed", hint="")

    monkeypatch.setattr(onnx_gpu, "open_cuda", refuse)
    monkeypatch.setattr(onnx_gpu, "OrtFrames", lambda shape, device: OrtFrames(shape, {"cuda": "cpu"}[device]))
    engine, plain = open_cuda_engine(), OnnxEngine(FP32)
    assert engine.backend.endswith(
        "(CUDA graphs; frames not page-locked: neither PyCUDA nor cuda-bindings is installed)"
    )
    for batch in frames(40, 40, 51):
        assert np.array_equal(engine.infer(batch), plain.infer(batch))
    engine.close()


@pytest.mark.parametrize(
    ("precision", "nhwc", "fp16", "int8"),
    [("fp32", "0", "0", "0"), ("unknown", "0", "0", "0"), ("fp16", "1", "1", "0"), ("int8", "0", "1", "1")],
)
def test_options_follow_from_the_precision(precision: Any, nhwc: str, fp16: str, int8: str) -> None:
    spec, path = EngineSpec(name="a", precision=precision), Path("a.onnx")
    cuda = provider_options("cuda", spec, path, "x", with_graphs=True)
    assert cuda == {"use_tf32": "0", "prefer_nhwc": nhwc, "enable_cuda_graph": "1"}
    tensorrt = provider_options("tensorrt", spec, path, "x")
    assert (tensorrt["trt_fp16_enable"], tensorrt["trt_int8_enable"]) == (fp16, int8)
    assert provider_options("cpu", spec, path, "x") == {}


def test_biases_of_int8_convolutions_reach_the_provider_as_they_are(
    cuda: HostCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """ONNX Runtime would quantise them before TensorRT, which takes no quantised biases, sees the graph."""
    onnx = pytest.importorskip("onnx")
    provider_graph = tmp_path / "provider.onnx"
    create_options = ort.SessionOptions

    def keep_graph() -> ort.SessionOptions:
        options = create_options()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC  # what runs before a provider
        options.optimized_model_filepath = str(provider_graph)
        return options

    with monkeypatch.context() as patch:
        patch.setattr(ort, "SessionOptions", keep_graph)
        OnnxEngine(BUNDLED.with_name("edge-s_int8.onnx"), provider="tensorrt").close()
    engine = onnx.load(BUNDLED.with_name("edge-s_int8.onnx")).graph
    graph = onnx.load(provider_graph).graph
    produced = {name: node.op_type for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == sum(node.op_type == "Conv" for node in engine.node) > 17
    biases = {name for node in convolutions for name in node.input[2:]}
    assert {produced.get(name, "constant") for name in biases} <= {"constant", "Cast"}
    assert len(biases) > 17


@pytest.mark.parametrize("provider", ["tensorrt", "trt-rtx"])
def test_tensorrt_takes_no_int8_layout_of_cpus(cuda: HostCuda, monkeypatch: pytest.MonkeyPatch, provider: Any) -> None:
    monkeypatch.setattr(onnx_plugin, "require_installed", lambda path: None)
    with pytest.raises(EngineError, match=f"{provider} takes no INT8 engine for CPUs: .*; give NAME_fp16.onnx"):
        OnnxEngine(BUNDLED, provider=provider)
    assert not GpuSession.asked


@pytest.mark.parametrize(
    ("provider", "message", "line"),
    [
        ("cuda", NO_GPU, "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version"),
        (
            "tensorrt",
            NO_LIBRARIES,
            "Please install TensorRT libraries as mentioned in the GPU requirements page, make ",
        ),
    ],
)
def test_a_provider_that_cannot_start_is_one_line(
    cuda: HostCuda, provider: Any, message: str, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    GpuSession.refuse = staticmethod(lambda _: message)
    with pytest.raises(EngineError) as refusal:
        OnnxEngine(FP16, provider=provider)
    text = str(refusal.value)
    assert f"ONNX Runtime could not start {provider} ({line}" in text
    assert "or use provider cpu" in text
    for noise in ("\n", "onnxruntime_src", "hostname"):
        assert noise not in text
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_onnx_runtime_prints_nothing_where_the_video_goes(
    provider: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The real ONNX Runtime, which does not know the provider, answers with five lines on standard output."""
    names = ort.get_available_providers()
    monkeypatch.setattr(ort, "get_available_providers", lambda: [*names, onnx_providers.ORT_NAMES[provider]])
    monkeypatch.setattr(onnx_providers, "probe", lambda: None)
    with pytest.raises(EngineError, match=f"ONNX Runtime could not start {provider}"):
        open_backend(FP16, provider=provider)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_gpu_provider_without_a_gpu_is_one_line(provider: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: list(onnx_providers.ORT_NAMES.values()))
    monkeypatch.setattr("runtime.engines.cuda.ctypes.CDLL", lambda _: (_ for _ in ()).throw(OSError()))
    expected = f"no NVIDIA driver is installed here .libcuda.so.1., as {provider} needs: .*; use provider cpu"
    with pytest.raises(EngineError, match=expected):
        open_backend(FP16, provider=provider)


def test_a_missing_library_is_named(
    cuda: HostCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """ONNX Runtime writes to its log that it cannot load its library for CUDA, and goes on without the provider."""
    (tmp_path / "capi").mkdir()
    (tmp_path / "capi" / "libonnxruntime_providers_cuda.so").write_bytes(b"junk")
    monkeypatch.setattr(ort, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(GpuSession, "get_providers", lambda _: ["CPUExecutionProvider"])
    with pytest.raises(EngineError, match=r"could not start cuda \(.*libonnxruntime_providers_cuda\.so"):
        open_cuda_engine()
    assert capfd.readouterr() == ("", "")


def test_convolutions_on_the_cpu_are_an_error() -> None:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = ort.InferenceSession(str(FP32), options, providers=["CPUExecutionProvider"])
    if not hasattr(session, "get_provider_graph_assignment_info"):
        pytest.skip("ONNX Runtime before 1.24 does not tell")
    with pytest.raises(EngineError, match=r"cuda leaves \d+ convolutions to the CPU"):
        require_convolutions_on_gpu(session, "cuda", FP32)


def test_a_bundled_engine_is_its_fp16_file_on_a_gpu(cuda: HostCuda, capsys: pytest.CaptureFixture[str]) -> None:
    for engine in (BUNDLED, "edge-s"):
        for provider in ("auto", "cuda", "tensorrt"):
            lines: list[str] = []
            with open_engine(engine, provider=provider, say=lines.append) as opened:  # type: ignore[arg-type]
                assert (opened.path, opened.spec.precision) == (FP16, "fp16")
            assert lines == ["chosen  edge-s_fp16.onnx, because edge-s_int8_cpu.onnx is for CPUs"]
            cuda.closed = False
    with open_engine("edge-s", provider="cpu") as opened:
        assert opened.spec.precision == "int8_cpu"
    backend = open_backend("edge-s", provider="cuda")
    assert backend.spec.precision == "fp16"
    backend.close()


def test_auto_takes_the_int8_file_where_cuda_does_not_start(cuda: HostCuda) -> None:
    GpuSession.refuse = staticmethod(lambda _: NO_GPU)
    with open_engine("edge-s") as opened:
        assert (opened.spec.precision, opened.provider in {"cpu", "openvino"}) == ("int8_cpu", True)
        assert "(not CUDA: ONNX Runtime could not start cuda (CUDA failure 35: " in opened.backend


def test_planes_of_a_bundled_engine_on_a_gpu(cuda: HostCuda) -> None:
    for provider in ("auto", "cuda", "tensorrt"):
        lines: list[str] = []
        with open_engine("edge-s", provider=provider, pixels="auto", say=lines.append) as opened:  # type: ignore[arg-type]
            assert opened.path == BUNDLED.with_name("edge-s_fp16_yuv420.onnx")
            frames = trial_frame((64, 48), "yuv420")
            expected = OnnxEngine(opened.path).infer(frames)
            for _ in range(3):
                assert np.array_equal(opened.infer(frames), expected)
        assert lines == ["chosen  edge-s_fp16_yuv420.onnx, because edge-s_int8_cpu_yuv420.onnx is for CPUs"]
        cuda.closed = False
    GpuSession.refuse = staticmethod(lambda _: NO_GPU)
    with open_engine("edge-s", pixels="auto") as opened:
        assert opened.path == BUNDLED.with_name("edge-s_int8_cpu_yuv420.onnx")


def test_another_int8_file_for_cpus_runs_on_a_gpu_with_a_warning(cuda: HostCuda, tmp_path: Path) -> None:
    path = tmp_path / "mine_int8_cpu.onnx"
    path.write_bytes(BUNDLED.read_bytes())
    lines: list[str] = []
    with open_engine(path, provider="cuda", say=lines.append) as opened:
        assert opened.spec.precision == "int8_cpu"
    assert lines == ["warning: an INT8 engine for CPUs is slower on a GPU than an FP16 engine (NAME_fp16)"]


def test_a_folder_leaves_out_int8_files_for_cpus_on_a_gpu(
    cuda: HostCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("runtime.engines.choice.TRIAL_S", 0.1)
    folder = tmp_path / "engines"
    folder.mkdir()
    (folder / BUNDLED.name).write_bytes(BUNDLED.read_bytes())

    def choose() -> tuple[str, str]:
        def open_one(path: Path) -> OnnxEngine:
            monkeypatch.setattr(onnx_gpu, "open_cuda", HostCuda)
            return OnnxEngine(path, provider="cuda")

        engine, path, reason = choose_engine(folder, open_one, size=(64, 48))
        engine.close()
        return path.name, reason

    assert choose()[0] == BUNDLED.name  # rather than none
    (folder / FP16.name).write_bytes(FP16.read_bytes())
    name, reason = choose()
    assert name == FP16.name
    assert f"{BUNDLED.name}: is for CPUs" in reason


class TestPlugin:
    """`--provider trt-rtx`."""

    @pytest.fixture
    def package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The package of the plug-in with a library that is none; its GPU is the CPU's own device."""
        folder = tmp_path / onnx_plugin._PACKAGE
        folder.mkdir()
        (folder / "__init__.py").write_text(
            "from pathlib import Path\ndef get_library_path(): return str(Path(__file__).with_name('libplugin.so'))\n"
        )
        (folder / "libplugin.so").write_bytes(b"junk")
        (folder / "libcudart.so.12.9").write_bytes(b"junk")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, onnx_plugin._PACKAGE, raising=False)
        if not hasattr(ort, "get_ep_devices"):
            pytest.skip("ONNX Runtime before 1.23 takes no plug-ins")
        monkeypatch.setattr(ort, "__version__", "1.24.0")
        monkeypatch.setattr(onnx_providers, "probe", lambda: None)
        return folder

    def test_without_the_package_one_line_says_what_to_install(
        self, clip: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["--source", str(clip), "--out", "null", "--provider", "trt-rtx"]) == EngineError.exit_code
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
        assert line.startswith(f"error: provider trt-rtx is not installed: {FP16}; pip install 'onnxruntime-ep-nv-ten")

    def test_an_old_onnx_runtime_is_one_line(self, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ort, "__version__", "1.23.2")
        with pytest.raises(
            EngineError, match=r"needs ONNX Runtime 1\.24, this is 1\.23\.2: .*pip install 'onnxruntime>="
        ):
            open_backend(FP16, provider="trt-rtx")

    def test_a_library_that_does_not_load_is_one_line(self, package: Path, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(EngineError, match=r"trt-rtx cannot be loaded .*libplugin\.so") as refusal:
            open_backend(FP16, provider="trt-rtx")
        assert "\n" not in str(refusal.value)
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("error", [None, RuntimeError("EP library is already registered under X")])
    def test_no_gpu_that_it_supports_is_one_line(
        self, package: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None
    ) -> None:
        def register(*_: str) -> None:
            if error:
                raise error

        monkeypatch.setattr(ort, "register_execution_provider_library", register)
        with pytest.raises(EngineError, match=r"finds no GPU that it supports: .*compute capability 8\.6"):
            open_backend(FP16, provider="trt-rtx")

    def test_its_session_runs_single_frames_in_a_range_of_sizes(
        self, package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        given: list[dict[str, str]] = []
        (device,) = [device for device in ort.get_ep_devices() if device.ep_name == "CPUExecutionProvider"]
        monkeypatch.setattr(onnx_plugin, "open_device", lambda path: device)
        monkeypatch.setitem(onnx_providers.ORT_NAMES, "trt-rtx", "CPUExecutionProvider")
        monkeypatch.setattr(onnx_gpu, "require_convolutions_on_gpu", lambda *_: None)
        options = onnx_plugin.session_options
        monkeypatch.setattr(onnx_plugin, "session_options", lambda *facts: given.append(options(*facts)) or {})
        engine = open_backend(FP16, provider="trt-rtx")
        assert (engine.spec.height, engine.spec.width) == ((64, 2176), (64, 3840))
        assert engine.backend.endswith(" (frames copied by ONNX Runtime)")
        ((name, cache),) = [(key, value) for key, value in given[0].items() if "cache" in key]
        assert (name, Path(cache).parent) == ("nv_runtime_cache_path", tmp_path / "cache" / "deblur" / "trt-rtx")
        profile = {key: value.split(":")[1] for key, value in given[0].items() if "profile" in key}
        sizes = {"min": "1x64x64x3", "opt": "1x720x1280x3", "max": "1x2176x3840x3"}
        assert profile == {f"nv_profile_{key}_shapes": size for key, size in sizes.items()}
        open_backend(FP16.with_name("edge-s_fp16_yuv420.onnx"), provider="trt-rtx").close()
        sizes = {"min": "1x96x64", "opt": "1x1080x1280", "max": "1x3264x3840"}
        profile = {key: value.split(":")[1] for key, value in given[1].items() if "profile" in key}
        assert profile == {f"nv_profile_{key}_shapes": size for key, size in sizes.items()}
        batch = np.concatenate([make_image(80, 64, seed=seed)[None] for seed in range(3)])
        plain = OnnxEngine(FP16)
        expected = np.concatenate([plain.infer(batch[index : index + 1]) for index in range(3)])
        counts: list[int] = []
        run = BoundRunner.run
        monkeypatch.setattr(BoundRunner, "run", lambda self, part: counts.append(len(part)) or run(self, part))
        assert np.array_equal(engine.infer(batch), expected)
        assert counts == [1, 1, 1]
        engine.close()

    def test_sizes_of_an_engine_for_one_size(self) -> None:
        spec = onnx_plugin.limit_sizes(EngineSpec(name="a", height=(48, 48), width=(4096, 4096)))
        assert (spec.height, spec.width) == ((48, 48), (4096, 4096))


def test_libraries_of_pip_are_loaded_before_a_gpu_provider_starts(
    cuda: HostCuda, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    calls: list[dict[str, Any]] = []

    def preload(**settings: Any) -> None:
        print("Failed to load libcublas.so.13")
        calls.append(settings | {"sessions": len(GpuSession.asked)})

    monkeypatch.setattr(ort, "preload_dlls", preload, raising=False)
    open_cuda_engine().close()
    assert calls == [{"directory": "", "sessions": 0}]
    assert capfd.readouterr().out == ""
