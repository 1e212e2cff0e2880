"""Our subclasses of TensorRT's classes, used with the real module; a script, because a process has one TensorRT.

mypy cannot follow a class whose base is a variable. The script prints the names of what it tried.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, get_args

import numpy as np

from export.plan import calibrator
from runtime.engines.nvidia import create_logger, import_tensorrt
from runtime.engines.tensorrt import TensorRtEngine
from runtime.errors import EngineError
from tests.standin import HostCuda


def try_logger(trt: Any) -> None:
    log = create_logger(trt)
    assert isinstance(log, trt.ILogger)
    log.log(trt.ILogger.Severity.WARNING, "slow")
    log.log(trt.ILogger.Severity.ERROR, "magic tag\ndoes not match")
    assert log.reason() == "magic tag does not match"


def try_calibrator(trt: Any, algorithm: calibrator.Algorithm) -> None:
    frames = [np.full((4, 6, 3), 7, np.uint8)]
    with calibrator.open_calibrator(trt, algorithm, frames, (6, 4)) as reader:
        base = type(reader).__base__
        assert issubclass(base, trt.IInt8Calibrator)
        ours = {name for name in vars(type(reader)) if not name.startswith("_")}
        assert ours <= set(vars(base)), f"TensorRT does not call {ours - set(vars(base))}"
        assert len(reader.get_batch(["x"])) == reader.get_batch_size() == 1
        assert reader.get_batch(["x"]) is None


def try_scratch_memory(trt: Any) -> None:
    """Read the size from an object with the attributes of an engine, all 7: a misspelt name would give 0."""
    engine = SimpleNamespace(**dict.fromkeys(vars(trt.ICudaEngine), 7))
    plan = SimpleNamespace(_engine=engine, _slots=[SimpleNamespace(buffer_bytes=0)])
    assert TensorRtEngine.device_memory_bytes.fget(plan) == 7


if __name__ == "__main__":
    calibrator.open_cuda = HostCuda
    tensorrt = import_tensorrt("tensorrt")
    try_logger(tensorrt)
    try_scratch_memory(tensorrt)
    for name in get_args(calibrator.Algorithm):
        try:
            try_calibrator(tensorrt, name)
        except EngineError as error:
            assert not hasattr(tensorrt, "IInt8Calibrator"), error  # from 11 on
            print(f"no {name}: {error}")
        else:
            print(name)
    print(tensorrt.__version__)
