"""Pixel range, channel order, output and residual of a foreign network, by which of them restores the pairs best."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from export.foreign.options import RANGES, Channels, ForeignOptions, Range
from export.foreign.session import ForeignSession, Form
from export.verify import Pair
from runtime.errors import EngineError
from runtime.frame import Pixels
from runtime.metrics import IDENTICAL_DB, psnr_db

Residual = Literal["own", "added", "subtracted"]
"""Kind of output: the restored image (`own`), or a residual that is added to the image or subtracted from it."""
LUMA_BGR = (0.114, 0.587, 0.299)
"""Weights of blue, green and red in the gray image that a network for one channel gets (ITU-R BT.601)."""
SIDE_PX = 192
"""Side of the parts of the pairs that are restored, in multiples of the network's own."""
_SAME_DB = 50.0
"""Agreement of two ways above which they are one: rounding."""
_UNCHANGED_DB = 46.0
"""Agreement with the blurred images above which a way does nothing: a residual of 0..1 in images of 0..255."""
_CHOICE, _CONTRADICTION = (0.02, 2.0), (0.2, 4.0)
"""A way is chosen, or contradicts what the user states, if its mean gain in dB over another way, on the same pairs, is
the first number, and this number of standard errors of the mean, or if it gains on every pair. Between ways that differ
by chance, a wrong choice costs as little."""


@dataclass(frozen=True)
class Way:
    """One way to run a network on a frame."""

    range: Range
    channels: Channels
    residual: Residual
    output: str

    def has_same_result_as(self, other: Way) -> bool:
        """Return whether both take the same output for the same: an image, or a residual."""
        return (self.residual, self.output) == (other.residual, other.output)

    def describe(self) -> str:
        """Return the way as text, such as `0..1 rgb`."""
        kind = "" if self.residual == "own" else f", residual {self.residual}"
        return f"{self.range} {self.channels}{kind}"


@dataclass(frozen=True)
class Trial:
    """A way with what it made of the pairs."""

    way: Way
    psnr_db: NDArray[np.float64]
    """PSNR of each pair."""
    restored: list[Pixels]

    @property
    def mean_db(self) -> float:
        """Mean PSNR in dB."""
        return float(self.psnr_db.mean())

    def is_better_than(self, other: Trial, limits: tuple[float, float] = _CHOICE) -> bool:
        """Return whether this way is better by more than chance, on the same pairs."""
        min_gain_db, min_errors = limits
        gain_db = self.psnr_db - other.psnr_db
        error_db = gain_db.std(ddof=1) / np.sqrt(len(gain_db)) if len(gain_db) > 1 else 0.0
        gains_always = len(gain_db) > 2 and gain_db.min() > 0
        return bool(gain_db.mean() >= min_gain_db and (gains_always or gain_db.mean() >= min_errors * error_db))

    def keeps(self, parts: list[Pair]) -> bool:
        """Return whether the blurred images stay as they are, except for rounding."""
        images = zip(self.restored, parts, strict=True)
        return min(psnr_db(image, part.blurred) for image, part in images) >= _UNCHANGED_DB

    def is_same_as(self, other: Trial) -> bool:
        """Return whether both ways make the same images except for rounding."""
        images = zip(self.restored, other.restored, strict=True)
        return min(psnr_db(*pair) for pair in images) >= _SAME_DB


@dataclass(frozen=True)
class Finding:
    """The way that was chosen, and the figures that it was chosen by."""

    way: Way
    text: str


def find_way(
    session: ForeignSession,
    form: Form,
    multiple: int,
    pairs: list[Pair],
    options: ForeignOptions,
    *,
    force: bool = False,
) -> Finding:
    """Return the way that restores the pairs best, among those that the options allow.

    Raises EngineError if the options name a worse way than another one, unless `force` is set, and if two ways cannot
    be told apart.
    """
    parts = [_cut(pair, session, multiple) for pair in pairs]
    blurred_db = float(np.mean([min(psnr_db(_trim(part.blurred, part), part.sharp), IDENTICAL_DB) for part in parts]))
    trials = list(_run_trials(session, form, parts))
    trials = [trial for trial in trials if trial.mean_db > blurred_db or not trial.keeps(parts)]
    trials.sort(key=lambda trial: -trial.mean_db)
    if not trials:
        hint = "give a network that restores, or --pairs that it was made for"
        raise EngineError("it leaves the pairs as they are, whatever range it gets", session.path, hint=hint)
    allowed = [trial for trial in trials if _is_allowed(trial.way, options)]
    if not allowed:
        raise EngineError(
            f"it takes {form.channels} channel{'s' * (form.channels > 1)}, not {options.channels or options.range}",
            session.path,
            hint="leave out --channels" if options.channels else "leave out --range",
        )
    best = allowed[0]
    is_contradicted = trials[0].is_better_than(best, _CONTRADICTION) and not trials[0].is_same_as(best)
    if is_contradicted and trials[0].mean_db > blurred_db and not force:
        what = f"{best.way.describe()} restores the pairs to {best.mean_db:.2f} dB, {_describe(trials[:1])}"
        hint = f"give {_name_options(trials[0].way)}, or add --force to keep yours"
        raise EngineError(what, session.path, hint=hint)
    rivals = [trial for trial in allowed[1:] if not (best.is_better_than(trial) or trial.is_same_as(best))]
    is_stated = bool(options.range and (options.channels or form.channels == 1))
    if best.mean_db <= blurred_db and not (is_stated or force):
        what = f"no way restores the pairs (best {_describe([best])}; blurred {blurred_db:.2f} dB)"
        raise EngineError(what, session.path, hint="give --range and --channels, or --pairs that it was made for")
    if rivals:
        what = f"these restore the pairs equally well: {_describe([best, *rivals[:2]])}; blurred {blurred_db:.2f} dB"
        raise EngineError(what, session.path, hint=_ask_for(best.way, rivals[0].way))
    others = [trial for trial in trials if trial is not best and trial.way.has_same_result_as(best.way)]
    text = f"{_describe([best])} on the pairs, blurred {blurred_db:.2f} dB; {_describe(others)}"
    return Finding(best.way, text.removesuffix("; "))


def _is_allowed(way: Way, options: ForeignOptions) -> bool:
    return options.range in {None, way.range} and options.channels in {None, way.channels}


def _describe(trials: list[Trial]) -> str:
    return ", ".join(f"{trial.way.describe()} {trial.mean_db:.2f} dB" for trial in trials)


def _name_options(way: Way) -> str:
    return f"--range {way.range} --channels {way.channels}"


def _ask_for(one: Way, other: Way) -> str:
    if one.range != other.range:
        return f"give --range {one.range} or --range {other.range}"
    if one.channels != other.channels:
        return f"give --channels {one.channels} or --channels {other.channels}"
    return "export it again with the one output that is the restored image"


def _run_trials(session: ForeignSession, form: Form, parts: list[Pair]) -> Iterator[Trial]:
    """Yield every way that the network can be run; each range and channel order is computed once."""
    ranges: list[Range] = ["0..255"] if session.image.data_type == TensorProto.UINT8 else list(RANGES)
    orders: list[Channels] = ["gray"] if form.channels == 1 else ["rgb", "bgr"]
    for pixel_range, channels in itertools.product(ranges, orders):
        results: dict[Way, list[Pixels]] = {}
        for part in parts:
            values = to_network(part.blurred, pixel_range, channels)
            outputs = session.run(values, form.layout)
            for output, residual in itertools.product(form.outputs, ("own", "added", "subtracted")):
                way = Way(pixel_range, channels, residual, output)  # type: ignore[arg-type] # mypy widens the literals
                result = session.arrange(outputs, form, output)
                results.setdefault(way, []).append(from_network(part.blurred, values, result, way))
        for way, restored in results.items():
            psnrs_db = [
                min(psnr_db(_trim(image, part), part.sharp), IDENTICAL_DB)
                for image, part in zip(restored, parts, strict=True)
            ]
            yield Trial(way, np.array(psnrs_db), restored)


def to_network(frame: Pixels, pixel_range: Range, channels: Channels) -> NDArray[np.float32]:
    """Return uint8[H, W, 3] BGR as a network takes it: float32[1, C, H, W]."""
    low, high = RANGES[pixel_range]
    image = frame.astype(np.float32)
    if channels == "gray":
        image = image @ np.array(LUMA_BGR, np.float32)[:, np.newaxis]
    elif channels == "rgb":
        image = image[..., ::-1]
    values: NDArray[np.float32] = image.transpose(2, 0, 1)[np.newaxis] * np.float32((high - low) / 255)
    return np.ascontiguousarray(values + np.float32(low))


def from_network(frame: Pixels, values: NDArray[np.float32], result: NDArray[np.float32], way: Way) -> Pixels:
    """Return what a network made of a frame as uint8[H, W, 3] BGR; a gray result changes the luma alone."""
    low, high = RANGES[way.range]
    if way.residual != "own":
        result = values + result if way.residual == "added" else values - result
    scale = np.float32(255 / (high - low))
    if way.channels == "gray":
        image = frame.astype(np.float32) + ((result - values) * scale)[0, 0, :, :, np.newaxis]
    else:
        image = ((result - np.float32(low)) * scale)[0].transpose(1, 2, 0)
        image = image[..., ::-1] if way.channels == "rgb" else image
    codes: Pixels = np.rint(np.nan_to_num(image).clip(0, 255)).astype(np.uint8)
    return codes


def _cut(pair: Pair, session: ForeignSession, multiple: int) -> Pair:
    """Return the centre of a pair; the blurred image has a size that the network takes, the sharp one at most that."""
    height, width = (max(1, min(side, SIDE_PX) // multiple) * multiple for side in pair.sharp.shape[:2])
    width, height = session.image.size or (width, height)
    top, left = (max(0, (have - want) // 2) for have, want in zip(pair.sharp.shape[:2], (height, width), strict=True))
    blurred, sharp = (image[top : top + height, left : left + width] for image in (pair.blurred, pair.sharp))
    missing = ((0, height - blurred.shape[0]), (0, width - blurred.shape[1]), (0, 0))
    return Pair(pair.name, np.pad(blurred, missing, mode="edge"), sharp)


def _trim(image: Pixels, part: Pair) -> Pixels:
    return image[: part.sharp.shape[0], : part.sharp.shape[1]]
