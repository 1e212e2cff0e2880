"""Restoration without a network, for comparison: Wiener, Richardson-Lucy, and unsharp masking.

All three are told nothing about the single frame. Wiener and Richardson-Lucy need the kernel that a frame was blurred
with; nobody who films knows it. They get a centred Gaussian, one for all frames, and like the amounts and iterations
it was chosen once: by the mean PSNR on `calib_data/held_out`, as `python -m benchmarks.classical` does it again. What
they give on those pictures flatters them; what they give elsewhere is what a user would have. The choice is a timid
one, and a bolder one loses: a Gaussian is not what motion does to a picture.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.ground_truth import Known, from_pairs
from calib_data import HELD_OUT
from runtime.cli import report_error
from runtime.engines.base import SynchronousEngine
from runtime.errors import DeblurError, UsageError
from runtime.frame import Pixels
from runtime.metrics import IDENTICAL_DB, psnr_db
from runtime.spec import EngineSpec

_MARGIN_PX = 16
"""Frames are continued by their mirror image before they are deconvolved, and cropped back: less ringing at edges."""


@dataclass(frozen=True, kw_only=True)
class Wiener:
    """`skimage.restoration.wiener` (Wiener-Hunt with a Laplacian, as in Orieux et al. 2010), each colour by itself."""

    sigma_px: float = 0.5
    balance: float = 0.01
    """More suppresses noise more and sharpens less."""

    def restored(self, frame: Pixels) -> Pixels:
        """uint8[H, W, 3] BGR -> the same."""
        from skimage.restoration import wiener  # noqa: PLC0415 - only these two need it

        psf = gaussian(self.sigma_px)
        return _by_plane(frame, lambda plane: wiener(plane, psf, self.balance, clip=False))


@dataclass(frozen=True, kw_only=True)
class RichardsonLucy:
    """`skimage.restoration.richardson_lucy` (Richardson 1972, Lucy 1974), each colour by itself."""

    sigma_px: float = 0.5
    iterations: int = 2

    def restored(self, frame: Pixels) -> Pixels:
        """uint8[H, W, 3] BGR -> the same."""
        from skimage.restoration import richardson_lucy  # noqa: PLC0415 - as above

        psf = gaussian(self.sigma_px)
        return _by_plane(frame, lambda plane: richardson_lucy(plane, psf, self.iterations, filter_epsilon=1e-6))


@dataclass(frozen=True, kw_only=True)
class UnsharpMask:
    """frame + amount * (frame - blurred frame), by OpenCV."""

    sigma_px: float = 1.5
    amount: float = 0.1

    def restored(self, frame: Pixels) -> Pixels:
        """uint8[H, W, 3] BGR -> the same."""
        smooth = cv2.GaussianBlur(frame, (0, 0), self.sigma_px)
        return np.asarray(cv2.addWeighted(frame, 1 + self.amount, smooth, -self.amount, 0), np.uint8)


Method = Wiener | RichardsonLucy | UnsharpMask
AnyMethod = TypeVar("AnyMethod", Wiener, RichardsonLucy, UnsharpMask)
METHODS: dict[str, Method] = {
    "wiener": Wiener(),
    "richardson-lucy": RichardsonLucy(),
    "unsharp": UnsharpMask(),
}
GRIDS: dict[str, dict[str, Sequence[float]]] = {
    "wiener": {"sigma_px": (0.3, 0.4, 0.5, 0.65, 0.8, 1.2, 1.7), "balance": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)},
    "richardson-lucy": {"sigma_px": (0.3, 0.4, 0.5, 0.65, 0.8, 1.2, 1.7), "iterations": (1, 2, 3, 5, 10, 20)},
    "unsharp": {"sigma_px": (0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0), "amount": (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8, 1.2)},
}


class ClassicalEngine(SynchronousEngine):
    """A method as an engine of the runtime: uint8[N, H, W, 3] BGR -> the same."""

    def __init__(self, name: str, method: Method) -> None:
        """Raises UsageError if scikit-image is needed and not installed."""
        super().__init__()
        if not isinstance(method, UnsharpMask) and find_spec("skimage") is None:
            raise UsageError("scikit-image is not installed", hint="pip install 'deblur-toolkit[bench]'")
        self.spec = EngineSpec(name=name)
        self.backend = "OpenCV" if isinstance(method, UnsharpMask) else "scikit-image"
        self.provider = "cpu"
        self._method = method

    def infer(self, batch: Pixels) -> Pixels:
        return np.stack([self._method.restored(frame) for frame in batch])

    def close(self) -> None: ...


def gaussian(sigma_px: float) -> NDArray[np.float32]:
    """A centred point spread function that sums to 1."""
    line = cv2.getGaussianKernel(2 * round(3 * sigma_px) + 1, sigma_px)
    return np.asarray(line @ line.T, np.float32)


def chosen(method: AnyMethod, grid: dict[str, Sequence[float]], pairs: Iterable[Known]) -> tuple[AnyMethod, float]:
    """The settings of the grid with the best mean PSNR on pairs, and that PSNR in dB."""
    known = list(pairs)
    tried = [replace(method, **dict(zip(grid, values, strict=True))) for values in itertools.product(*grid.values())]
    scores = [np.mean([_capped_db(each.restored(pair.blurred), pair.sharp) for pair in known]) for each in tried]
    best = int(np.argmax(scores))
    return tried[best], float(scores[best])


def _by_plane(frame: Pixels, restored: Callable[[NDArray[np.float32]], NDArray[np.floating]]) -> Pixels:
    framed = cv2.copyMakeBorder(frame, *4 * (_MARGIN_PX,), cv2.BORDER_REFLECT_101)
    planes = [restored(plane.astype(np.float32) / 255) for plane in cv2.split(framed)]
    inner = np.dstack(planes)[_MARGIN_PX:-_MARGIN_PX, _MARGIN_PX:-_MARGIN_PX]
    codes: Pixels = np.rint(np.clip(inner, 0, 1) * 255).astype(np.uint8)
    return codes


def _capped_db(picture: Pixels, truth: Pixels) -> float:
    return min(psnr_db(picture, truth), IDENTICAL_DB)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.classical", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=Path, default=HELD_OUT, metavar="DIR", help="blur/ and sharp/ to choose by")
    options = parser.parse_args(arguments)
    try:
        pairs = list(from_pairs(options.pairs))
        before = np.mean([_capped_db(pair.blurred, pair.sharp) for pair in pairs])
        print(f"blurred {before:.3f} dB, mean of {len(pairs)} pairs")
        for name, method in METHODS.items():
            best, found_db = chosen(method, GRIDS[name], pairs)
            settings = ", ".join(f"{field.name}={getattr(best, field.name):g}" for field in fields(best))
            print(f"{name}: {settings}: {found_db:.3f} dB{'' if best == method else ', not as set here'}")
    except DeblurError as error:
        return report_error(error, debug=False)
    return 0
