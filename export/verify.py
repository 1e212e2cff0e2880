"""Measurement of engines in memory: image quality on held-out pairs, and agreement with the float network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from runtime.engines.base import SynchronousEngine
from runtime.engines.onnx_providers import BIAS_ROUNDING
from runtime.engines.tile_layout import MIN_TILE_PX
from runtime.engines.tiled import TiledEngine
from runtime.errors import EngineError, InputError
from runtime.frame import Pixels, Size
from runtime.image_files import is_image, read_image
from runtime.metrics import IDENTICAL_DB, SSIM_MIN_PX, psnr_db, ssim
from runtime.spec import EngineSpec

TILE_OVERLAPS_PX = (0, 16, 32)
MIN_AGREEMENT_DB = 50.0
"""Agreement of two ways to compute the same on the worst image; less is more than a difference in rounding."""
Restorer = Callable[[Pixels], Pixels]
"""uint8[N, H, W, 3] BGR -> the same shape, restored."""


@dataclass(frozen=True)
class Pair:
    """A blurred image and its sharp reference, uint8[H, W, 3] BGR each."""

    name: str
    blurred: Pixels
    sharp: Pixels


@dataclass(frozen=True)
class Quality:
    """Mean quality of images against their sharp references."""

    psnr_db: float
    ssim: float


@dataclass(frozen=True)
class Score(Quality):
    """Quality of an engine on all pairs, and how far it agrees with the float network."""

    agreement_db: float
    """Mean PSNR against the output of the float network in PyTorch; 99 if all images are equal."""
    worst_image: str
    """Name of the image on which engine and float network differ most."""
    worst_agreement_db: float


def create_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Return a session that runs a model from memory on ONNX Runtime's CPU provider.

    Biases are used as they are in the graph: ONNX Runtime would round those of quantised convolutions to multiples of a
    scale in half precision, which may overflow, and no GPU does it.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        model.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=[BIAS_ROUNDING],
    )


def create_restorer(model: onnx.ModelProto) -> Restorer:
    """Return a function that runs an engine from memory on ONNX Runtime's CPU provider.

    An engine for frames of one size gets others in tiles, as in the runtime.
    """
    session = create_session(model)
    source = session.get_inputs()[0]

    def restore(frames: Pixels) -> Pixels:
        (output,) = session.run(None, {source.name: frames})
        return np.asarray(output, np.uint8)

    height, width = source.shape[1:3]
    if len(source.shape) == 4 and isinstance(height, int) and isinstance(width, int):
        return TiledEngine(RestorerEngine(restore, (width, height))).infer
    return restore


def read_pairs(folder: Path) -> Iterator[Pair]:
    """Yield the pairs of `blur/NAME` and `sharp/NAME` in a folder.

    Raises InputError if no pair exists, if an image cannot be read or is too small for SSIM, or if the images of a pair
    differ in size.
    """
    blurred = sorted(path for path in (folder / "blur").glob("*") if is_image(path))
    if not blurred:
        raise InputError("no pairs found", folder, hint="give a folder that contains blur/ and sharp/")
    for path in blurred:
        pair = Pair(path.name, read_image(path), read_image(folder / "sharp" / path.name))
        if pair.blurred.shape != pair.sharp.shape:
            hint = "scale both to the same size, or remove the pair"
            raise InputError("the images of a pair differ in size", path, hint=hint)
        if min(pair.blurred.shape[:2]) <= SSIM_MIN_PX:  # planes leave out an odd row or column
            raise InputError(f"smaller than {SSIM_MIN_PX + 1} pixels", path, hint="remove the pair")
        yield pair


def crop_centre(pair: Pair, side_px: int) -> Pair:
    """Return the centre of both images, at most `side_px` wide and high."""
    top, left = (max(0, (side - side_px) // 2) for side in pair.blurred.shape[:2])
    part = np.s_[top : top + side_px, left : left + side_px]
    return Pair(pair.name, np.ascontiguousarray(pair.blurred[part]), np.ascontiguousarray(pair.sharp[part]))


def measure_score(
    outputs: list[Pixels], float_outputs: list[Pixels], pairs: list[Pair], *, to_bgr: Callable[[Pixels], Pixels]
) -> Score:
    """Compare what an engine made of the blurred images with the sharp references and with the float network.

    `outputs`, `float_outputs`: frames of the engine and of the float network, in the order of `pairs`. `to_bgr` turns
    one into uint8[H, W, 3] BGR; an odd last row or column may be missing.
    """
    rows = []
    for output, float_output, pair in zip(outputs, float_outputs, pairs, strict=True):
        agreement_db = min(psnr_db(output, float_output), IDENTICAL_DB)
        restored = to_bgr(output)
        sharp = pair.sharp[: restored.shape[0], : restored.shape[1]]
        rows.append((min(psnr_db(restored, sharp), IDENTICAL_DB), ssim(restored, sharp), agreement_db))
    mean_psnr_db, mean_ssim, mean_agreement_db = (float(value) for value in np.mean(rows, axis=0))
    worst = int(np.argmin([row[2] for row in rows]))
    return Score(
        psnr_db=mean_psnr_db,
        ssim=mean_ssim,
        agreement_db=mean_agreement_db,
        worst_image=pairs[worst].name,
        worst_agreement_db=float(rows[worst][2]),
    )


def measure_blurred(pairs: list[Pair]) -> Quality:
    """Return the mean quality of the blurred images, without any restoration."""
    rows = [(min(psnr_db(p.blurred, p.sharp), IDENTICAL_DB), ssim(p.blurred, p.sharp)) for p in pairs]
    mean_psnr_db, mean_ssim = (float(value) for value in np.mean(rows, axis=0))
    return Quality(mean_psnr_db, mean_ssim)


def require_agreement(score: Score, *, min_db: float, name: str) -> None:
    """Raise EngineError if the engine `name` agrees with the float network by less than `min_db` on some image."""
    if score.worst_agreement_db < min_db:
        raise EngineError(
            f"engine differs from PyTorch ({score.worst_agreement_db:.1f} dB on {score.worst_image}, needs {min_db})",
            name,
            hint="report it with the versions of torch and onnx",
        )


def measure_tile_losses_db(restore: Restorer, pairs: list[Pair]) -> dict[int, float]:
    """Return the PSNR in dB lost by restoring images in four or more tiles, by the overlap of the tiles in pixels."""
    whole_db = np.mean([_measure_psnr_db(restore, pair) for pair in pairs])
    losses_db = {}
    for overlap_px in TILE_OVERLAPS_PX:
        tiled_db = []
        for pair in pairs:
            height, width = (max(side // 2 + overlap_px, MIN_TILE_PX) for side in pair.blurred.shape[:2])
            tiled = TiledEngine(RestorerEngine(restore), tile=(width, height), overlap_px=overlap_px)
            tiled_db.append(_measure_psnr_db(tiled.infer, pair))
        losses_db[overlap_px] = float(whole_db - np.mean(tiled_db))
    return losses_db


def _measure_psnr_db(restore: Restorer, pair: Pair) -> float:
    return min(psnr_db(restore(pair.blurred[np.newaxis])[0], pair.sharp), IDENTICAL_DB)


class RestorerEngine(SynchronousEngine):
    """A restorer with the interface of the runtime's engines; for frames of `size` (width, height) alone, if given."""

    backend, provider = "ONNX Runtime", "cpu"

    def __init__(self, restore: Restorer, size: Size | None = None) -> None:
        super().__init__()
        self.spec = EngineSpec(name="restorer")
        if size:
            self.spec = EngineSpec(name="restorer", width=(size[0], size[0]), height=(size[1], size[1]))
        self._restore = restore

    def infer(self, batch: Pixels) -> Pixels:
        return self._restore(batch)

    def close(self) -> None: ...
