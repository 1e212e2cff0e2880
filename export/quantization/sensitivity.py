"""Which layers may not be quantised: measured one by one, given back to float until the budget holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx

Build = Callable[[frozenset[str]], onnx.ModelProto]
"""An engine with these layers quantised."""
Measure = Callable[[onnx.ModelProto], float]
"""What an engine loses against the float one, in dB; negative where it happens to be better."""


@dataclass(frozen=True)
class Fitted:
    """An engine, the layers that it quantises, and what it loses in dB."""

    model: onnx.ModelProto
    quantised: frozenset[str]
    loss_db: float


def losses_db(layers: list[str], build: Build, measure: Measure) -> dict[str, float]:
    """What each layer costs when it alone is quantised, the costliest first."""
    alone = {layer: measure(build(frozenset({layer}))) for layer in layers}
    return dict(sorted(alone.items(), key=lambda item: -item[1]))


def fitted(costs_db: dict[str, float], build: Build, measure: Measure, *, budget_db: float) -> Fitted:
    """The engine with most layers quantised that loses no more than the budget.

    Layers go back to float in the order of `costs_db`. If even the last one costs too much, the
    result quantises nothing and its loss says so.
    """
    layers = list(costs_db)
    for given_back in range(len(layers) + 1):
        quantised = frozenset(layers[given_back:])
        model = build(quantised)
        result = Fitted(model, quantised, measure(model))
        if result.loss_db <= budget_db:
            break
    return result
