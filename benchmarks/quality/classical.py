"""`python -m benchmarks.classical`: restoration without a network: Wiener, Richardson-Lucy, and unsharp masking.

Wiener and Richardson-Lucy need the blur kernel of a frame, which nobody who films knows. They get a centred Gaussian,
the same for all frames. Its width, the amounts and the iterations were chosen once, by the mean PSNR on
`calib_data/held_out`; the command repeats that search. Results on those images are therefore optimistic; results on
other images are what a user would get. The chosen settings are mild, and stronger ones lose PSNR: motion blur does not
look like a Gaussian.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.metrics import capped_psnr_db
from benchmarks.quality.ground_truth import Sample, read_pairs
from calib_data import HELD_OUT
from runtime.cli import run_cli
from runtime.engines.base import SynchronousEngine
from runtime.errors import UsageError
from runtime.frame import Pixels
from runtime.libraries import install_hint
from runtime.parser import CommandParser
from runtime.spec import EngineSpec

_MARGIN_PX = 16
"""Width of the mirrored border that is added before deconvolution and cropped after it, against ringing at edges."""


@dataclass(frozen=True, kw_only=True)
class Wiener:
    """`skimage.restoration.wiener` (Wiener-Hunt with a Laplacian, Orieux et al. 2010), each channel separately."""

    sigma_px: float = 0.5
    balance: float = 0.01
    """Weight of the regularization: a larger one suppresses more noise and sharpens less."""

    def restore(self, frame: Pixels) -> Pixels:
        """Restore uint8[H, W, 3] BGR."""
        from skimage.restoration import wiener  # noqa: PLC0415 - an optional package

        psf = make_gaussian_psf(self.sigma_px)
        return _restore_channels(frame, lambda channel: wiener(channel, psf, self.balance, clip=False))


@dataclass(frozen=True, kw_only=True)
class RichardsonLucy:
    """`skimage.restoration.richardson_lucy` (Richardson 1972, Lucy 1974), each channel separately."""

    sigma_px: float = 0.5
    iterations: int = 2

    def restore(self, frame: Pixels) -> Pixels:
        """Restore uint8[H, W, 3] BGR."""
        from skimage.restoration import richardson_lucy  # noqa: PLC0415 - an optional package

        psf = make_gaussian_psf(self.sigma_px)
        return _restore_channels(
            frame, lambda channel: richardson_lucy(channel, psf, self.iterations, filter_epsilon=1e-6)
        )


@dataclass(frozen=True, kw_only=True)
class UnsharpMask:
    """frame + amount * (frame - smoothed frame), with OpenCV."""

    sigma_px: float = 1.5
    amount: float = 0.1

    def restore(self, frame: Pixels) -> Pixels:
        """Restore uint8[H, W, 3] BGR."""
        smooth = cv2.GaussianBlur(frame, (0, 0), self.sigma_px)
        return np.asarray(cv2.addWeighted(frame, 1 + self.amount, smooth, -self.amount, 0), np.uint8)


Method = Wiener | RichardsonLucy | UnsharpMask
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
"""Values of the search for the settings of each method."""


class ClassicalEngine(SynchronousEngine):
    """A classical method as an engine of the runtime: uint8[N, H, W, 3] BGR in, the same out."""

    def __init__(self, name: str, method: Method) -> None:
        """Wrap a method; raise UsageError if it needs scikit-image and that is not installed."""
        super().__init__()
        if not isinstance(method, UnsharpMask) and find_spec("skimage") is None:
            raise UsageError("scikit-image is not installed", hint=install_hint("skimage"))
        self.spec = EngineSpec(name=name)
        self.backend = "OpenCV" if isinstance(method, UnsharpMask) else "scikit-image"
        self.provider = "cpu"
        self._method = method

    def infer(self, batch: Pixels) -> Pixels:
        return np.stack([self._method.restore(frame) for frame in batch])

    def close(self) -> None: ...


def make_gaussian_psf(sigma_px: float) -> NDArray[np.float32]:
    """Return a centred Gaussian point spread function, float32[K, K], that sums to 1."""
    line = cv2.getGaussianKernel(2 * round(3 * sigma_px) + 1, sigma_px)
    return np.asarray(line @ line.T, np.float32)


def choose_settings(
    method: Method, grid: dict[str, Sequence[float]], samples: Iterable[Sample]
) -> tuple[Method, float]:
    """Return the settings of the grid with the best mean PSNR, and that PSNR in dB."""
    known = list(samples)
    products = itertools.product(*grid.values())
    candidates: list[Method] = [replace(method, **dict(zip(grid, values, strict=True))) for values in products]  # type: ignore[arg-type]
    scores_db = [
        np.mean([capped_psnr_db(candidate.restore(sample.blurred), sample.sharp) for sample in known])
        for candidate in candidates
    ]
    best = int(np.argmax(scores_db))
    return candidates[best], float(scores_db[best])


def _restore_channels(frame: Pixels, restore: Callable[[NDArray[np.float32]], NDArray[np.floating]]) -> Pixels:
    """Apply `restore` to each channel, float32[H, W] in 0..1, with a mirrored border."""
    bordered = cv2.copyMakeBorder(frame, *4 * (_MARGIN_PX,), cv2.BORDER_REFLECT_101)
    channels = [restore(channel.astype(np.float32) / 255) for channel in np.moveaxis(bordered, -1, 0)]
    cropped = np.dstack(channels)[_MARGIN_PX:-_MARGIN_PX, _MARGIN_PX:-_MARGIN_PX]
    codes: Pixels = np.rint(np.clip(cropped, 0, 1) * 255).astype(np.uint8)
    return codes


def main(arguments: list[str] | None = None) -> int:
    """Search the settings of all methods again and print them; return the exit code."""
    parser = CommandParser("benchmarks.classical", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--pairs",
        type=Path,
        default=HELD_OUT,
        metavar="DIR",
        help="folder with blur/ and sharp/ for the search (default: calib_data/held_out)",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args(arguments)

    def command(_: object) -> int:
        samples = list(read_pairs(options.pairs))
        blurred_db = np.mean([capped_psnr_db(sample.blurred, sample.sharp) for sample in samples])
        print(f"blurred input {blurred_db:.3f} dB, mean of {len(samples)} pairs")
        for name, method in METHODS.items():
            best, best_db = choose_settings(method, GRIDS[name], samples)
            settings = ", ".join(f"{field.name}={getattr(best, field.name):g}" for field in fields(best))
            remark = "" if best == method else ", differs from the settings in use"
            print(f"{name}: {settings}: {best_db:.3f} dB{remark}")
        return 0

    return run_cli(command, debug=options.debug)
