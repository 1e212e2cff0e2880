"""Whether an engine does what the float network does, and what it gives on true pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from runtime.engines.base import SynchronousEngine
from runtime.engines.tiled import MIN_TILE_PX, TiledEngine
from runtime.errors import EngineError, InputError
from runtime.frame import Pixels
from runtime.image_files import is_image, read_image
from runtime.metrics import IDENTICAL_DB, psnr_db, ssim
from runtime.spec import EngineSpec

TILE_OVERLAPS_PX = (0, 16, 32)
Restorer = Callable[[Pixels], Pixels]
"""uint8[N, H, W, 3] BGR -> the same, restored."""


@dataclass(frozen=True)
class Pair:
    """A blurred and a sharp picture, uint8[H, W, 3] BGR each."""

    name: str
    blurred: Pixels
    sharp: Pixels


@dataclass(frozen=True)
class Score:
    """Means over held-out pictures, and the one that suffers most."""

    psnr_db: float
    """Against the sharp pictures."""
    ssim: float
    agreement_db: float
    """PSNR against the float network's pictures; 99 where all are equal."""
    worst: str
    worst_agreement_db: float


def restorer(model: onnx.ModelProto) -> Restorer:
    """An engine that is still in memory, on ONNX Runtime's CPU provider."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def restore(frames: Pixels) -> Pixels:
        (result,) = session.run(None, {name: frames})
        return np.asarray(result, np.uint8)

    return restore


def read_pairs(folder: Path) -> Iterator[Pair]:
    """Blurred and sharp pictures from `blur/` and `sharp/`, matched by name; raises InputError."""
    blurred = sorted(path for path in (folder / "blur").glob("*") if is_image(path))
    if not blurred:
        raise InputError("no pairs found", folder, hint="give a folder with blur/ and sharp/ in it")
    for path in blurred:
        pair = Pair(path.name, read_image(path), read_image(folder / "sharp" / path.name))
        if pair.blurred.shape != pair.sharp.shape:
            raise InputError("the pictures of a pair differ in size", path, hint="scale them alike, or remove the pair")
        yield pair


class RestorerEngine(SynchronousEngine):
    """A restorer as an engine of the runtime."""

    backend, provider = "ONNX Runtime", "cpu"

    def __init__(self, restore: Restorer) -> None:
        super().__init__()
        self.spec = EngineSpec(name="restorer")
        self._restore = restore

    def infer(self, batch: Pixels) -> Pixels:
        return self._restore(batch)

    def close(self) -> None: ...


def tile_costs_db(restore: Restorer, pairs: list[Pair]) -> dict[int, float]:
    """PSNR lost where pictures are taken in four or more tiles instead of whole, by overlap in pixels."""
    whole = np.mean([_psnr_db(restore, pair) for pair in pairs])
    costs = {}
    for overlap_px in TILE_OVERLAPS_PX:
        losses = []
        for pair in pairs:
            height, width = (max(side // 2 + overlap_px, MIN_TILE_PX) for side in pair.blurred.shape[:2])
            tiled = TiledEngine(RestorerEngine(restore), tile=(width, height), overlap_px=overlap_px)
            losses.append(_psnr_db(tiled.infer, pair))
        costs[overlap_px] = float(whole - np.mean(losses))
    return costs


def _psnr_db(restore: Restorer, pair: Pair) -> float:
    return min(psnr_db(restore(pair.blurred[np.newaxis])[0], pair.sharp), IDENTICAL_DB)


def score(restore: Restorer, pairs: list[Pair], reference: list[Pixels]) -> Score:
    """Compare a restorer with the truth and with what the float network made of the same pictures."""
    rows = []
    for pair, expected in zip(pairs, reference, strict=True):
        restored = restore(pair.blurred[np.newaxis])[0]
        agreement = min(psnr_db(restored, expected), IDENTICAL_DB)
        rows.append((min(psnr_db(restored, pair.sharp), IDENTICAL_DB), ssim(restored, pair.sharp), agreement))
    means = [float(value) for value in np.mean(rows, axis=0)]
    worst = int(np.argmin([row[2] for row in rows]))
    return Score(*means, worst=pairs[worst].name, worst_agreement_db=float(rows[worst][2]))


def blurred_score(pairs: list[Pair]) -> tuple[float, float]:
    """Mean PSNR in dB and SSIM of the blurred pictures as they are."""
    rows = [(min(psnr_db(p.blurred, p.sharp), IDENTICAL_DB), ssim(p.blurred, p.sharp)) for p in pairs]
    first, second = np.mean(rows, axis=0)
    return float(first), float(second)


def require_agreement(score: Score, *, least_db: float, name: str) -> None:
    """Raise EngineError unless an engine gives the float network's pictures."""
    if score.worst_agreement_db < least_db:
        raise EngineError(
            f"engine differs from PyTorch ({score.worst_agreement_db:.1f} dB on {score.worst}, {least_db} expected)",
            name,
            hint="report it with the versions of torch and onnx",
        )
