"""Search for the layers that must stay in float: each layer is measured alone, the worst ones are left out."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import onnx

BuildCore = Callable[[frozenset[str]], onnx.ModelProto]
"""Names of layers -> a core in which exactly these layers are quantised."""
MeasureLoss = Callable[[onnx.ModelProto], float]
"""Core -> PSNR in dB that it loses against the float core; negative if it happens to be better."""
Count = Callable[[int, int], None]
"""Receives the number of measurements that are done, and of all; a search may end before the last one."""


@dataclass(frozen=True)
class QuantizedCore:
    """A core, the layers of it that are quantised, and the PSNR in dB that it loses."""

    model: onnx.ModelProto
    layers: frozenset[str]
    loss_db: float


def measure_layer_losses(
    layers: list[str], build: BuildCore, measure: MeasureLoss, *, count: Count = lambda _done, _all: None
) -> dict[str, float]:
    """Return the loss in dB of each layer when only that layer is quantised, the largest loss first."""
    losses = {}
    for index, layer in enumerate(layers):
        losses[layer] = measure(build(frozenset({layer})))
        count(index + 1, len(layers))
    return dict(sorted(losses.items(), key=lambda item: -item[1]))


def quantize_within_budget(
    layers: Collection[str],
    rank: Callable[[], list[str]],
    build: BuildCore,
    measure: MeasureLoss,
    *,
    budget_db: float,
    count: Count = lambda _done, _all: None,
) -> QuantizedCore:
    """Return the core with the most quantised layers whose loss is within the budget.

    If all `layers` together exceed the budget, they return to float in the order of `rank()`, which is not called
    otherwise. Their number is found by bisection, as networks may have hundreds of layers: more layers in float are
    taken to lose no more. If the last quantised layer alone still exceeds the budget, the result has no quantised
    layer, and its loss is the one measured without any.
    """
    attempts = 0

    def attempt(quantized: frozenset[str]) -> QuantizedCore:
        nonlocal attempts
        model = build(quantized)
        result = QuantizedCore(model, quantized, measure(model))
        attempts += 1
        count(attempts, 1 + len(layers).bit_length())
        return result

    result = attempt(frozenset(layers))
    if result.loss_db <= budget_db or not layers:
        return result
    ranked = rank()
    best: QuantizedCore | None = None
    too_few, enough = 0, len(ranked)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        result = attempt(frozenset(ranked[middle:]))
        if result.loss_db <= budget_db:
            best, enough = result, middle
        else:
            too_few = middle
    return best or attempt(frozenset())
