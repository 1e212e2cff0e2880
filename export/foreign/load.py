"""A foreign ONNX file as a network of the chain: its core, and a generator that runs the file as it was given."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.foreign.core import build_core, get_core_range
from export.foreign.options import ForeignOptions
from export.foreign.ranges import compute_conversion
from export.foreign.reader import list_files, read_model
from export.foreign.session import ForeignSession, Form
from export.foreign.signature import read_input
from export.foreign.view_search import find_way
from export.foreign.way import LUMA_BGR, Way
from export.network import Network
from export.step_cache import compute_digest
from export.verify import Pair
from runtime.cli import say
from runtime.errors import EngineError
from train.models import Generator
from train.models.base import ChannelOrder


def load_foreign_network(path: Path, options: ForeignOptions, pairs: list[Pair], *, force: bool = False) -> Network:
    """Return the network in a foreign ONNX file, and print what was found out about it.

    `force`: run it as the options say, even if another way is better. Raises EngineError if it is no network that
    restores an image, or if what it takes cannot be found out.
    """
    model = read_model(path)
    image = read_input(model, path)
    say(f"trial   of the sizes, range, colours and residual of {path.name}, which may take a minute")
    session = ForeignSession(path, image)
    form = session.find_form()
    multiple = session.find_multiple(form, options.multiple_of)
    finding = find_way(session, form, multiple, pairs, options, force=force)
    way = finding.way
    core = _make_core(model, path, session, form, way)
    generator = _create_generator(session, form, way, multiple)
    sizes = f"multiples of {multiple}" if multiple > 1 else "any"
    sizes = f"{image.size[0]}x{image.size[1]} only" if image.size else sizes
    kind = onnx.TensorProto.DataType.Name(image.data_type)
    say(f"model   {path}: {form.layout}, {kind}, sizes {sizes}, output {way.output}")
    say(f"view    {finding.text}")
    settings = {
        "generator": path.name,
        "options": {"range": way.range_name, "channels": way.channels, "residual": way.residual, "sizes": sizes},
    }
    digest = compute_digest(*(file.read_bytes() for file in list_files(path)))
    return Network(generator, settings, digest, core=core, size=image.size, notes=(finding.text,))


def _make_core(model: onnx.ModelProto, path: Path, session: ForeignSession, form: Form, way: Way) -> onnx.ModelProto:
    """Return the core; of any number of images per call, if the network can be made so. Raises EngineError."""
    try:
        core = build_core(model, session.image, form, way)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, RuntimeError) as error:
        what = f"it cannot be rewritten ({' '.join(str(error).split())[:160]})"
        raise EngineError(what, path, hint="export it again with opset 18") from error
    if session.image.batch is None:
        return core
    return _free_batch(core) or core


def _free_batch(core: onnx.ModelProto) -> onnx.ModelProto | None:
    """Return a core of one image per call for any number of them; None if it computes something else then."""
    free = onnx.ModelProto()
    free.CopyFrom(core)
    for value in (*free.graph.input, *free.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del free.graph.value_info[:]
    height, width = (dim.dim_value or 192 for dim in core.graph.input[0].type.tensor_type.shape.dim[2:])
    images = np.random.default_rng(0).random((2, 3, height, width), np.float32)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # a Reshape to one image fails here, which is an answer
    try:
        onnx.checker.check_model(free, full_check=True)
        session = onnxruntime.InferenceSession(free.SerializeToString(), options, providers=["CPUExecutionProvider"])
        both, *single = (session.run(None, {"core_input": part})[0] for part in (images, images[:1], images[1:]))
    except Exception:  # noqa: BLE001 - ONNX Runtime has a class for each status, and any of them says no
        return None
    return free if np.allclose(both, np.concatenate(single), rtol=1e-3, atol=1e-3) else None


def _create_generator(session: ForeignSession, form: Form, way: Way, multiple: int) -> Generator:
    """Return the file as a generator: the reference that every engine is compared with."""

    core_range = get_core_range(way)
    factor, offset = compute_conversion(core_range, way.range, way.channels)
    output_factor, output_offset = compute_conversion(way.output_range, core_range, way.channels)

    def restore(image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the image, or the residual, that the network gives, in the range of the core."""
        result = session.restore(image * factor + offset, form, way.output) * output_factor
        return result + output_offset if way.residual == "own" else result

    class Foreign(Generator):
        channel_order: ClassVar[ChannelOrder] = "RGB" if way.channels == "rgb" else "BGR"
        pixel_range: ClassVar[tuple[float, float]] = (core_range.black[0], core_range.white[0])
        multiple_of = multiple

        def forward(self, x: Tensor) -> Tensor:
            image = x.numpy()
            if form.channels == 1:
                gray = np.tensordot(np.array(LUMA_BGR, np.float32), image, axes=(0, 1))[:, np.newaxis]
                result = restore(gray)
                change = result - gray if way.residual == "own" else result
                return torch.from_numpy(image - change if way.residual == "subtracted" else image + change)
            result = restore(image)
            if way.residual != "own":
                result = image + result if way.residual == "added" else image - result
            return torch.from_numpy(result)

    return Foreign().eval()
