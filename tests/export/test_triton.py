"""Model repositories for Triton, and streaming through a server that serves one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tritonclient.grpc")
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import TYPE_UINT8, ModelConfig, ModelInstanceGroup

from export.triton import main
from runtime.engines import BUNDLED, open_engine, resolve_engine
from runtime.errors import EngineError
from runtime.sources import open_source
from runtime.video import main as run_video
from tests.conftest import DEMO_CLIP, make_image
from tests.rig.kserve import Service, serving

MODELS = BUNDLED.parent
NAME = BUNDLED.stem


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton")
    assert main([str(MODELS), "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[tuple[str, Service]]:
    with serving(repository) as address_and_service:
        yield address_and_service


def config(repository: Path, name: str) -> ModelConfig:
    return text_format.Parse((repository / name / "config.pbtxt").read_text(), ModelConfig())


def test_the_repository_follows_tritons_protobuf(repository: Path) -> None:
    names = {path.stem for path in MODELS.glob("*.onnx") if not path.stem.endswith("_yuv420")}
    assert names == {path.name for path in repository.iterdir()}
    for model in repository.iterdir():
        written = config(repository, model.name)
        assert written.name == model.name
        assert written.backend == "onnxruntime"
        assert [(tensor.name, tensor.data_type, list(tensor.dims)) for tensor in (*written.input, *written.output)] == [
            ("blurred", TYPE_UINT8, [-1, -1, 3]),
            ("sharp", TYPE_UINT8, [-1, -1, 3]),
        ]
        assert written.dynamic_batching.max_queue_delay_microseconds == 2000
        assert list(written.model_warmup[0].inputs["blurred"].dims) == [720, 1280, 3]
        assert (model / "1" / written.default_model_filename).read_bytes() == (
            MODELS / f"{model.name}.onnx"
        ).read_bytes()
    kinds = {name: config(repository, name).instance_group[0].kind for name in (NAME, NAME.replace("int8_cpu", "fp16"))}
    assert list(kinds.values()) == [ModelInstanceGroup.KIND_CPU, ModelInstanceGroup.KIND_GPU]


def test_an_engine_for_planes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planes = BUNDLED.with_name(f"{NAME}_yuv420.onnx")
    assert main([str(planes), "--out", str(tmp_path)]) == 2
    assert "an engine for planes is not served" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_second_export_writes_a_second_version(tmp_path: Path) -> None:
    for _ in range(2):
        assert main([str(BUNDLED), "--out", str(tmp_path), "--batch", "2", "--instances", "3", "--kind", "gpu"]) == 0
    assert {path.name for path in (tmp_path / NAME).iterdir()} == {"1", "2", "config.pbtxt"}
    assert config(tmp_path, NAME).max_batch_size == 2
    assert config(tmp_path, NAME).instance_group[0].count == 3
    assert config(tmp_path, NAME).instance_group[0].kind == ModelInstanceGroup.KIND_GPU


def test_engines_that_cannot_be_served_get_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 3
    assert "no engines found" in capsys.readouterr().err
    (tmp_path / "broken.onnx").write_bytes(b"not an engine")
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 4
    shutil.copy(BUNDLED, tmp_path / "broken.onnx")
    (tmp_path / "file").write_bytes(b"")
    assert main([str(tmp_path), "--out", str(tmp_path / "file" / "out")]) == 6


def test_a_name_that_is_too_long_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["a" * 300, "--out", str(tmp_path / "models")]) == 2
    assert capsys.readouterr().err.startswith("error: file name is too long: aaa")


def test_a_stream_through_the_server_equals_a_local_one(server: tuple[str, Service], tmp_path: Path) -> None:
    address, service = server
    clips = [tmp_path / "served.mp4", tmp_path / "local.mp4"]
    before = service.frames
    for engine, out in zip((f"triton://{address}/{NAME}", str(BUNDLED)), clips, strict=True):
        options = ["--engine", engine, "--provider", "cpu", "--pixels", "bgr"]
        assert run_video([*options, "--source", str(DEMO_CLIP), "--out", str(out)]) == 0
    assert service.frames - before == 100
    for served, local in zip(*(open_source(str(out)) for out in clips), strict=True):
        assert np.array_equal(served.pixels, local.pixels)


def test_an_engine_on_a_server_has_its_spec_and_keeps_the_order_of_batches(server: tuple[str, Service]) -> None:
    address, _ = server
    engine, local = open_engine(resolve_engine(f"triton://{address}/{NAME}/1")), open_engine(provider="cpu")
    assert engine.spec == local.spec
    assert engine.backend == f"onnxruntime on {address}"
    batches = [make_image(64, 48, seed=seed)[np.newaxis] for seed in range(engine.slots)]
    for batch in batches:
        engine.submit(batch)
    for batch in batches:
        assert np.array_equal(engine.collect(), local.infer(batch))
    engine.close()
    with pytest.raises(EngineError, match="has been closed"):
        engine.infer(batches[0])


def test_missing_and_failing_servers_get_an_error(
    server: tuple[str, Service], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address, service = server
    for engine, words in [
        ("triton://127.0.0.1:1/model", "the server does not answer"),
        (f"triton://{address}/another", "unknown model another"),
        (f"triton://{address}", "not the address of a model"),
    ]:
        with pytest.raises(EngineError, match=words) as error:
            open_engine(resolve_engine(engine))
        assert "triton://" in str(error.value)
    service.fail = "out of slots"
    try:
        arguments = ["--source", str(DEMO_CLIP), "--out", str(tmp_path / "a.mp4")]
        assert run_video(["--engine", f"triton://{address}/{NAME}", *arguments]) == 4
    finally:
        service.fail = ""
    assert "out of slots" in capsys.readouterr().err
