"""The trained network of an export, and the cache of steps that depend on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from export.graph.pixel_interface import add_pixel_interface
from export.progress import Progress
from export.step_cache import StepCache, compute_digest
from export.torch_to_onnx import get_view
from runtime.frame import Pixels
from runtime.spec import EngineSpec, Precision
from train.checkpoint import load_generator, weights_path
from train.models import Generator, restore_frames


@dataclass(frozen=True)
class Network:
    """A trained generator with its settings and the digest of its weights."""

    generator: Generator
    settings: dict[str, Any]
    """Contents of the checkpoint's config.json."""
    weights_sha256: str

    @property
    def description(self) -> str:
        """Name of the generator and its options, such as `edge(blocks=[1, 1, 2])`."""
        options = ", ".join(f"{name}={value}" for name, value in self.settings["options"].items())
        return f"{self.settings['generator']}({options})"

    def restore(self, blurred: Pixels) -> Pixels:
        """Restore an image with PyTorch: uint8[H, W, 3] BGR -> the same shape."""
        restored: Pixels = restore_frames(self.generator, torch.from_numpy(blurred[np.newaxis]))[0].numpy()
        return restored

    def wrap(self, core: onnx.ModelProto, *, keep_bytes: bool = False) -> onnx.ModelProto:
        """Return a core of this network with the pixel interface of an engine."""
        view = get_view(self.generator)
        return add_pixel_interface(core, view, spec=EngineSpec(name="deblur"), keep_bytes=keep_bytes)

    def keeps_bytes(self, precision: Precision) -> bool:
        """Return whether engines of this precision keep frames as bytes: in the layout for CPUs, if black is 0."""
        return precision == "int8_cpu" and self.generator.pixel_range[0] == 0


def load_network(checkpoint: Path) -> Network:
    """Load a trained generator; raises CheckpointError if its files are missing or damaged."""
    generator, settings = load_generator(checkpoint)
    return Network(generator, settings, compute_digest(weights_path(checkpoint).read_bytes()))


class NetworkCache:
    """Step cache for one network: its weights and settings are inputs of every step."""

    def __init__(self, cache: StepCache, network: Network) -> None:
        self._cache = cache
        settings = {name: network.settings[name] for name in ("generator", "options")}
        self._base_inputs: dict[str, object] = {"weights": network.weights_sha256, "network": settings}

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
