"""Frame sizes of the plug-in of ONNX Runtime, planned by the same version of TensorRT-RTX without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.plan.__main__ import main
from runtime.engines import BUNDLED_NAMES, resolve_engine
from runtime.engines.onnx_plugin import HEIGHT_PX, WIDTH_PX
from runtime.sidecar import read_sidecar


@pytest.mark.parametrize("name", BUNDLED_NAMES)
def test_sizes_of_trt_rtx_need_little_memory(name: str, tmp_path: Path) -> None:
    out = tmp_path / "a.plan"
    sizes = zip(("--min-size", "--opt-size", "--max-size"), WIDTH_PX, HEIGHT_PX, strict=True)
    limits = [word for option, width, height in sizes for word in (option, f"{width}x{height}")]
    engine = resolve_engine(name, "trt-rtx")
    assert main([str(engine), "--out", str(out), "--target", "tensorrt-rtx", *limits]) == 0
    scratch = read_sidecar(out, out.read_bytes()).scratch_bytes
    assert scratch
    assert scratch < 550e6
