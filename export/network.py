"""The trained network of an export, and the cache of steps that depend on it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from export.graph.pixel_interface import View, add_pixel_interface
from export.graph.yuv420 import CODE_RANGE, Yuv420View
from export.graph.yuv420_interface import add_yuv420_interface
from export.planes import bgr_from_planes, planes_from_bgr, restore_planes
from export.progress import Progress
from export.step_cache import StepCache, compute_digest
from export.torch_to_onnx import export_to_onnx, get_view
from export.verify import RestorerEngine
from runtime.engines.tiled import TiledEngine
from runtime.frame import Pixels, Size
from runtime.spec import EngineSpec, PixelFormat, Precision
from train.checkpoint import load_generator
from train.models import Generator, restore_frames
from train.models.half_resolution import HalfResolution
from train.weights import weights_path


@dataclass(frozen=True)
class Network:
    """A trained generator with its settings and the digest of its weights."""

    generator: Generator
    settings: dict[str, Any]
    """Contents of the checkpoint's config.json."""
    weights_sha256: str
    core: onnx.ModelProto | None = None
    """Its core, if it is a foreign ONNX file; None if it is made of the generator."""
    size: Size | None = None
    """The only width and height that it takes; None for any."""
    notes: tuple[str, ...] = ()
    """Findings for the report, one line each."""
    planes: Yuv420View | None = None
    """How its cores read frames as planes; None if they take BGR."""

    @property
    def pixels(self) -> PixelFormat:
        """Form of the frames that its engines take."""
        return "yuv420" if self.planes else "bgr"

    @property
    def description(self) -> str:
        """Name of the generator and its options, such as `edge(blocks=[1, 1, 2])`."""
        options = ", ".join(f"{name}={value}" for name, value in self.settings["options"].items())
        place = " at half the resolution" if isinstance(self.generator, HalfResolution) else ""
        return f"{self.settings['generator']}({options}){place}"

    @property
    def view(self) -> View:
        """Pixel values and sizes that its cores for BGR frames expect."""
        return dataclasses.replace(get_view(self.generator), size=self.size)

    def export_core(self) -> onnx.ModelProto:
        """Return its core in its own channel order."""
        return self.core or export_to_onnx(self.generator)

    def fit(self, image: Pixels) -> Pixels:
        """Return an image uint8[H, W, 3] cropped, or extended by its last row and column, to the only size."""
        if not self.size:
            return image
        width, height = self.size
        missing = ((0, max(0, height - image.shape[0])), (0, max(0, width - image.shape[1])), (0, 0))
        return np.ascontiguousarray(np.pad(image, missing, mode="edge")[:height, :width])

    def adapt(self, image: Pixels) -> Pixels:
        """Return an image uint8[H, W, 3] BGR as the engines take frames."""
        return planes_from_bgr(image) if self.planes else image

    def to_bgr(self, frame: Pixels) -> Pixels:
        """Return a frame of an engine as uint8[H, W, 3] BGR."""
        return bgr_from_planes(frame) if self.planes else frame

    def restore(self, blurred: Pixels) -> Pixels:
        """Restore a frame in the form of the engines with PyTorch."""
        if self.planes:
            return restore_planes(self.generator, blurred)
        engine = RestorerEngine(self._restore_batch, self.size)
        batch = (TiledEngine(engine) if self.size else engine).infer(blurred[np.newaxis])
        restored: Pixels = batch[0]
        return restored

    def _restore_batch(self, batch: Pixels) -> Pixels:
        restored: Pixels = restore_frames(self.generator, torch.from_numpy(batch)).numpy()
        return restored

    def wrap(self, core: onnx.ModelProto, *, keep_bytes: bool = False) -> onnx.ModelProto:
        """Return a core of this network with the pixel interface of an engine."""
        if self.planes:
            return add_yuv420_interface(core, self.planes, spec=EngineSpec(name="deblur"), keep_bytes=keep_bytes)
        return add_pixel_interface(core, self.view, spec=EngineSpec(name="deblur"), keep_bytes=keep_bytes)

    def keeps_bytes(self, precision: Precision) -> bool:
        """Return whether engines of this precision keep frames as bytes: in the layout for CPUs, if black is 0."""
        return precision == "int8_cpu" and (self.planes is not None or self.generator.pixel_range[0] == 0)

    @property
    def code_range(self) -> tuple[float, float]:
        """Values of the codes 0 and 255 in a core."""
        return CODE_RANGE if self.planes else self.generator.pixel_range


def load_network(
    checkpoint: Path, *, name: str = "auto", options: Mapping[str, Any] | None = None, work_scale: int = 1
) -> Network:
    """Load a trained generator: a run of ours, or a weights file of a published network.

    `name`: network that it must be, or `auto`. `options`: options of the network to change. `work_scale` 2: the
    network works at half the resolution. Raises CheckpointError if its files are missing, damaged, or of another
    network.
    """
    generator, settings = load_generator(checkpoint, network=name, options=options)
    if work_scale == 2:
        generator = HalfResolution(generator).eval()
    return Network(generator, settings, compute_digest(weights_path(checkpoint).read_bytes()))


class NetworkCache:
    """Step cache for one network: its weights and settings are inputs of every step."""

    def __init__(self, cache: StepCache, network: Network) -> None:
        self._cache = cache
        settings = {name: network.settings[name] for name in ("generator", "options")}
        self._base_inputs: dict[str, object] = {"weights": network.weights_sha256, "network": settings}
        if isinstance(network.generator, HalfResolution):
            self._base_inputs["work_scale"] = 2
        if network.planes:
            self._base_inputs["planes"] = repr(network.planes)

    @property
    def progress(self) -> Progress:
        """Progress of the export."""
        return self._cache.progress

    def get_model(
        self, step: str, inputs: dict[str, object], compute: Callable[[], onnx.ModelProto]
    ) -> onnx.ModelProto:
        """Return the ONNX model that a step computes."""
        key = self._base_inputs | inputs
        content = self._cache.get(step, key, lambda: compute().SerializeToString(deterministic=True))
        return onnx.load_from_string(content)

    def get_json(self, step: str, inputs: dict[str, object], compute: Callable[[], Any]) -> Any:
        """Return the value that a step computes, as JSON keeps it: tuples become lists."""
        key = self._base_inputs | inputs
        return json.loads(self._cache.get(step, key, lambda: json.dumps(compute()).encode()))
