"""Pixel range, channel order, output and residual of a foreign network, by which of them restores the pairs best."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from export.foreign.options import ForeignOptions
from export.foreign.probes import Probe, list_probes
from export.foreign.ranges import CODES, RANGES, Channels
from export.foreign.session import ForeignSession, Form
from export.foreign.way import Way, from_network, list_ways, to_network
from export.verify import Pair
from runtime.errors import EngineError
from runtime.frame import Pixels
from runtime.metrics import IDENTICAL_DB, psnr_db

SIDE_PX = 192
"""Side of the parts of the pairs that are restored, in multiples of the network's own."""
_SAME_DB = 50.0
"""Agreement of two ways above which they are one: rounding."""
_UNCHANGED_DB = 46.0
"""Agreement with the blurred images above which a way does nothing: a residual of 0..1 in images of 0..255."""
_NOTHING_CODES = 0.25
"""RMS of the change, in codes and without its mean, up to which a way is never taken: another brightness at most."""
_CHOICE, _CONTRADICTION = (0.02, 2.0), (0.2, 4.0)
"""A way is chosen, or contradicts what the user states, if its mean gain in dB over another way, on the same pairs, is
the first number, and this number of standard errors of the mean, or if it gains on every pair. Between ways that differ
by chance, a wrong choice costs as little."""
_SHOWN = 6
"""Number of the next best ways whose figures are printed."""


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

    def does_nothing(self, parts: list[Pair]) -> bool:
        """Return whether the blurred images stay as they are, except for rounding and brightness."""
        changes = [image - part.blurred.astype(np.float32) for image, part in zip(self.restored, parts, strict=True)]
        return all(float(change.std(axis=(0, 1)).max()) <= _NOTHING_CODES for change in changes)

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
    _require_channels(session, form, options)
    missing = ["--range"] * (not options.range) + ["--channels"] * (not options.channels and form.channels == 3)
    search = _Search(session, form, multiple, options, force=force)
    candidates = []
    for probe in list_probes(pairs):
        found = search.run(probe)
        if found.is_restored:
            return search.choose(found)
        candidates.append(found)
    if not missing or force:
        return search.choose(candidates[0])
    best = candidates[0].describe_best()
    what = f"no way restores the pairs ({best}), nor their sharp images with motion blur or noise"
    hint = f"give --pairs of what it was made for, or {' and '.join(missing)} as its authors say"
    raise EngineError(what, session.path, hint=hint)


@dataclass(frozen=True)
class _Found:
    """All ways with what they made of a probe, the best first."""

    probe: Probe
    blurred_db: float
    trials: list[Trial]

    @property
    def is_restored(self) -> bool:
        return bool(self.trials) and self.trials[0].mean_db > self.blurred_db + self.probe.min_gain_db

    def describe_best(self) -> str:
        best = f"best {_describe(self.trials[:3])}" if self.trials else "all leave them as they are"
        return f"{best}; blurred {self.blurred_db:.2f} dB"


class _Search:
    """The search for the way to run one network."""

    def __init__(
        self, session: ForeignSession, form: Form, multiple: int, options: ForeignOptions, *, force: bool
    ) -> None:
        self._session, self._form, self._multiple = session, form, multiple
        self._options, self._force = options, force

    def run(self, probe: Probe) -> _Found:
        """Run the network on a probe in every way; ways that leave the images as they are do not count."""
        parts = [_cut(pair, self._session, self._multiple) for pair in probe.pairs]
        blurred = [min(psnr_db(_trim(part.blurred, part), part.sharp), IDENTICAL_DB) for part in parts]
        blurred_db = float(np.mean(blurred))
        trials = list(_run_trials(self._session, self._form, parts, self._options))
        trials = [
            trial
            for trial in trials
            if not trial.does_nothing(parts) and (trial.mean_db > blurred_db or not trial.keeps(parts))
        ]
        return _Found(probe, blurred_db, sorted(trials, key=lambda trial: -trial.mean_db))

    def choose(self, found: _Found) -> Finding:
        """Return the best way that the options allow; raise EngineError if it is not clear, or clearly wrong."""
        trials, path = found.trials, self._session.path
        if not trials:
            hint = "give a network that restores, or --pairs that it was made for"
            raise EngineError("it leaves the pairs as they are, whatever range it gets", path, hint=hint)
        allowed = [trial for trial in trials if _is_allowed(trial.way, self._options)]
        if not allowed:
            self._refuse_range()
        best = allowed[0]
        is_contradicted = trials[0].is_better_than(best, _CONTRADICTION) and not trials[0].is_same_as(best)
        if is_contradicted and not self._force:
            what = (
                f"{best.way.describe()} restores {found.probe.name} to {best.mean_db:.2f} dB, {_describe(trials[:1])}"
            )
            hint = f"give {self._name_options(trials)}, or add --force to keep yours"
            raise EngineError(what, path, hint=hint)
        rivals = [trial for trial in allowed if not (best.is_better_than(trial) or trial.is_same_as(best))]
        scale = f"blurred {found.blurred_db:.2f} dB"
        if rivals:
            what = f"these restore {found.probe.name} equally well: {_describe([best, *rivals[:2]])}; {scale}"
            raise EngineError(what, path, hint=_ask_for(best, rivals[0]))
        others = [trial for trial in trials if trial is not best and trial.way.has_same_result_as(best.way)]
        text = f"{_describe([best])} in the middle of {found.probe.name}, {scale}; {_describe(others[:_SHOWN])}"
        return Finding(best.way, text.removesuffix("; "))

    def _name_options(self, trials: list[Trial]) -> str:
        """Return the options that name the best way, without an order of channels that makes no clear difference."""
        best, options = trials[0], f"--range {trials[0].way.range.name}"
        turned = [trial for trial in trials if dataclasses.replace(trial.way, channels=best.way.channels) == best.way]
        if self._options.channels is None and not all(best.is_better_than(trial) for trial in turned[1:]):
            return f"{options}, and --channels rgb or bgr, which differ too little here to say which"
        return f"{options} --channels {best.way.channels}"

    def _refuse_range(self) -> NoReturn:
        kind = TensorProto.DataType.Name(self._session.image.data_type)
        stated = self._options.range.name if self._options.range else ""
        raise EngineError(f"it takes {kind}, not {stated}", self._session.path, hint="leave out the range")


def _require_channels(session: ForeignSession, form: Form, options: ForeignOptions) -> None:
    """Raise EngineError if the options state channels of which the network takes another number."""
    if options.channels and (options.channels == "gray") != (form.channels == 1):
        what = f"it takes {form.channels} channel{'s' * (form.channels > 1)}, not {options.channels}"
        hint = "leave out --channels" if form.channels == 1 else "give --channels rgb or --channels bgr"
        raise EngineError(what, session.path, hint=hint)


def _is_allowed(way: Way, options: ForeignOptions) -> bool:
    return options.range in {None, way.range} and options.channels in {None, way.channels}


def _describe(trials: list[Trial]) -> str:
    return ", ".join(f"{trial.way.describe()} {trial.mean_db:.2f} dB" for trial in trials)


def _ask_for(one: Trial, other: Trial) -> str:
    if one.way.range != other.way.range:
        return f"give --range {one.way.range.name} or --range {other.way.range.name}"
    if one.way.channels != other.way.channels:
        images = zip(one.restored, other.restored, strict=True)
        rms = np.sqrt(np.mean([np.square(image - turned.astype(np.float32)).mean() for image, turned in images]))
        return (
            "give --channels rgb, which most networks take, or --channels bgr, as OpenCV reads images "
            f"({rms:.1f} codes RMS between them), or --pairs with the blur that it was trained on"
        )
    return "export it again with the one output that is the restored image"


def _run_trials(session: ForeignSession, form: Form, parts: list[Pair], options: ForeignOptions) -> Iterator[Trial]:
    """Yield every way that the network can be run; each range and channel order is computed once."""
    known = [pixel_range for pixel_range in RANGES.values() if pixel_range.is_plain or form.channels == 3]
    known += [options.range] if options.range and options.range not in known else []
    ranges = [CODES] if session.image.data_type == TensorProto.UINT8 else known
    orders: list[Channels] = ["gray"] if form.channels == 1 else ["rgb", "bgr"]
    for pixel_range, channels in itertools.product(ranges, orders):
        results: dict[Way, list[Pixels]] = {}
        for part in parts:
            values = to_network(part.blurred, pixel_range, channels)
            outputs = session.run(values, form.layout)
            for output in form.outputs:
                result = session.arrange(outputs, form, output)
                for way in list_ways(pixel_range, known, channels, output):
                    results.setdefault(way, []).append(from_network(part.blurred, values, result, way))
        for way, restored in results.items():
            psnrs_db = [
                min(psnr_db(_trim(image, part), part.sharp), IDENTICAL_DB)
                for image, part in zip(restored, parts, strict=True)
            ]
            yield Trial(way, np.array(psnrs_db), restored)


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
