"""Scores of cores on held-out pairs."""

from __future__ import annotations

import onnx

from export.network import Network
from export.verify import Pair, Restorer, Score, create_restorer, measure_score


class Evaluator:
    """Measures engines of one network against sharp references and against the float network in PyTorch."""

    def __init__(self, network: Network, pairs: list[Pair]) -> None:
        self._network = network
        self.pairs = pairs
        self._float_outputs = [network.restore(pair.blurred) for pair in pairs]

    def score_core(self, core: onnx.ModelProto, *, keep_bytes: bool = False) -> Score:
        """Return the score of a core with the pixel interface added."""
        return self.score(create_restorer(self._network.wrap(core, keep_bytes=keep_bytes)))

    def score(self, restore: Restorer) -> Score:
        """Return the score of a complete engine."""
        return measure_score(restore, self.pairs, self._float_outputs)
