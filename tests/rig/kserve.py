"""A small KServe v2 server over gRPC that runs the ONNX engines of a Triton model repository."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf import text_format
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.grpc.model_config_pb2 import ModelConfig

from runtime.engines.onnx import OnnxEngine


class Model:
    """A model as Triton reads its folder: the configuration and the newest version."""

    def __init__(self, folder: Path) -> None:
        self.config = text_format.Parse((folder / "config.pbtxt").read_text(), ModelConfig())
        newest = max(int(path.name) for path in folder.iterdir() if path.is_dir())
        self.engine = OnnxEngine(folder / str(newest) / self.config.default_model_filename, threads=1)


class Service(service_pb2_grpc.GRPCInferenceServiceServicer):
    """The calls that the runtime's Triton engine uses."""

    def __init__(self, repository: Path) -> None:
        self.models = {folder.name: Model(folder) for folder in repository.iterdir()}
        self.frames = 0
        """Number of frames that were restored."""
        self.fail = ""
        """Error message to answer instead of a result; empty for results."""

    def _model(self, name: str, context: Any) -> Model:
        if name not in self.models:
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model {name}")
        return self.models[name]

    def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name is that of the protocol, also below
        return service_pb2.ModelConfigResponse(config=self._model(request.name, context).config)

    def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        config = self._model(request.name, context).config
        answer = service_pb2.ModelMetadataResponse(name=request.name)
        for metadata, tensors in ((answer.inputs, config.input), (answer.outputs, config.output)):
            for tensor in tensors:
                metadata.add(name=tensor.name, datatype="UINT8", shape=[-1, *tensor.dims])
        return answer

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        model = self._model(request.model_name, context)
        if self.fail:
            context.abort(grpc.StatusCode.INTERNAL, self.fail)
        (tensor,) = request.inputs
        assert tensor.shape[0] <= model.config.max_batch_size
        batch = np.frombuffer(request.raw_input_contents[0], np.uint8).reshape(tensor.shape)
        self.frames += len(batch)
        answer = service_pb2.ModelInferResponse(model_name=request.model_name)
        answer.outputs.add(name=model.config.output[0].name, datatype="UINT8", shape=tensor.shape)
        answer.raw_output_contents.append(model.engine.infer(batch).tobytes())
        return answer


@contextmanager
def serving(repository: Path) -> Iterator[tuple[str, Service]]:
    """Run a server on loopback; yields its address `HOST:PORT` and its service."""
    large = [("grpc.max_receive_message_length", 1 << 30), ("grpc.max_send_message_length", 1 << 30)]
    server = grpc.server(ThreadPoolExecutor(1), options=large)
    service = Service(repository)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", service
    server.stop(None).wait()
