"""The export for other programs: an engine's core with `float32[1, 3, H, W]` in and out, checked against the engine."""

from __future__ import annotations

import numpy as np
import onnx

from export.graph.float_interface import add_float_interface
from export.graph.pixel_interface import View
from export.verify import MIN_AGREEMENT_DB, Pair, Restorer, RestorerEngine, create_session
from runtime.engines.tiled import TiledEngine
from runtime.errors import EngineError
from runtime.frame import Pixels, Size
from runtime.metrics import psnr_db


def make_float_export(core: onnx.ModelProto, view: View, *, engine: Restorer, pairs: list[Pair], name: str) -> bytes:
    """Return the ONNX file of a core in BGR order with the interface `float_nchw`.

    `engine`: the engine for 8-bit frames of the same core. Raises EngineError if both differ by more than rounding on
    the blurred image of a pair.
    """
    model = add_float_interface(core, view, name=name)
    restore = _create_restorer(model, view.size)
    for pair in pairs:
        frame = pair.blurred[np.newaxis]
        agreement_db = psnr_db(restore(frame), engine(frame))
        if agreement_db < MIN_AGREEMENT_DB:
            raise EngineError(
                f"export differs from the engine for 8-bit frames ({agreement_db:.1f} dB on {pair.name}, needs "
                f"{MIN_AGREEMENT_DB})",
                name,
                hint="report it with the version of onnx",
            )
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _create_restorer(model: onnx.ModelProto, size: Size | None) -> Restorer:
    """Return a function that restores a frame uint8[1, H, W, 3] BGR as the hosts of the interface do.

    `size`: width and height of the tiles of a model that takes no others.
    """
    session = create_session(model)
    name = session.get_inputs()[0].name

    def restore(frame: Pixels) -> Pixels:
        rgb = frame[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
        (output,) = session.run(None, {name: rgb})
        codes: Pixels = np.rint(output * 255).astype(np.uint8).transpose(0, 2, 3, 1)[..., ::-1]
        return codes

    return TiledEngine(RestorerEngine(restore, size)).infer if size else restore
