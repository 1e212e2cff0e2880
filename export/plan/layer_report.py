"""Report of what a builder made of a network: its kernels, and its convolutions by data type."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from runtime.sidecar import Sidecar

_PIXELS = "pixels."
"""Prefix of the names of the nodes that `export.graph.pixel_interface` adds."""
_LAYER = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*)\], Constants: .*"
    r"Outputs: .*, TacticName: .*Metadata: (?P<nodes>.*)"
)
_NO_KERNELS = {"shape_call", "signal", "wait", "allocate", "deallocate"}
"""Kinds of layers that compute nothing on pixels."""
_REFORMAT = re.compile(r"__myl_(Tran|Resh|Move|Cast)+_myl")
"""Names of generated kernels that only transpose, copy or convert values."""


@dataclass(frozen=True)
class Layer:
    """One kernel of a plan, as the builder reports it."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    """Data types of its inputs: Float, Half, Int8, UInt8."""
    nodes: tuple[str, ...]
    """Names of the ONNX nodes that it computes, entirely or in part."""

    @property
    def is_convolution(self) -> bool:
        """Whether it is a convolution or a matrix product, as which the builder computes convolutions of 1x1 pixels."""
        return self.kind in {"correlation", "gemm"} or "Corr" in self.name or self.name.startswith("__myl_Fc")

    @property
    def is_reformat(self) -> bool:
        """Whether the kernel only moves or converts values between two layers."""
        return bool(_REFORMAT.match(self.name)) and not self.is_pixel_conversion

    @property
    def is_pixel_conversion(self) -> bool:
        """Whether the kernel reads or writes 8-bit frames, or does a part of that conversion."""
        return any(node.startswith(_PIXELS) for node in self.nodes)


def parse_layers(log: Iterable[str]) -> list[Layer]:
    """Return the kernels in a builder's log, in the format of TensorRT-RTX 1.7; empty if the log has another format."""
    layers = []
    for line in "\n".join(log).splitlines():
        match = _LAYER.match(line)
        if match and match["kind"] not in _NO_KERNELS:
            inputs = tuple(re.findall(r"Datatype: (\w+)", match["inputs"]))
            nodes = tuple(re.findall(r"\[ONNX Layer: (.*?)\]", match["nodes"]))
            layers.append(Layer(match["name"], match["kind"], inputs, nodes))
    return layers


def find_scratch_bytes(log: Iterable[str]) -> int | None:
    """Return the largest scratch memory of a layer in a builder's log; None if the log does not state it."""
    found = re.findall(r"^Max Scratch Memory: (\d+) bytes", "\n".join(log), re.MULTILINE)
    return max(map(int, found)) if found else None


def count_convolutions(layers: list[Layer]) -> dict[str, int]:
    """Return the number of convolutions and matrix products by the data type of their first input."""
    return dict(Counter(layer.inputs[0] for layer in layers if layer.is_convolution))


def format_summary(sidecar: Sidecar) -> str:
    """Return one line for people: builder and version, GPUs, kernels, and convolutions by data type."""
    types = ", ".join(f"{count} {data_type}" for data_type, count in sidecar.convolutions.items())
    kernels = f", {sidecar.kernels} kernels ({types} convolutions)" if sidecar.kernels else ""
    if sidecar.scratch_bytes is not None:
        kernels += f", {sidecar.scratch_bytes / 1e6:.0f} MB of scratch memory"
    return f"{sidecar.flavour} {sidecar.version}, GPUs {', '.join(sidecar.compute_capabilities)}{kernels}"
