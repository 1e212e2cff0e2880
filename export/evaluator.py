"""Scores of cores on held-out pairs."""

from __future__ import annotations

import numpy as np
import onnx

from export.network import Network
from export.verify import Pair, Restorer, Score, create_restorer, measure_score


class Evaluator:
    """Measures engines of one network against sharp references and against the float network in PyTorch.

    `pairs`: images in BGR, from which the frames for the engines are made.
    """

    def __init__(self, network: Network, pairs: list[Pair]) -> None:
        self._network = network
        self.pairs = pairs
        self._frames = [network.adapt(pair.blurred) for pair in pairs]
        self._float_outputs = [network.restore(frame) for frame in self._frames]

    def score_core(self, core: onnx.ModelProto, *, keep_bytes: bool = False) -> Score:
        """Return the score of a core with the pixel interface added."""
        return self.score(create_restorer(self._network.wrap(core, keep_bytes=keep_bytes)))

    def score(self, restore: Restorer) -> Score:
        """Return the score of a complete engine."""
        outputs = [restore(frame[np.newaxis])[0] for frame in self._frames]
        return measure_score(outputs, self._float_outputs, self.pairs, to_bgr=self._network.to_bgr)
