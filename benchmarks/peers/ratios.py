"""Named speed-ups of interleaved implementations on the CPU, as documentation quotes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.statistics import compare
from benchmarks.peers.baselines import Implementation

TimedImplementation = tuple[Implementation, NDArray[np.float64]]
"""An implementation and its times in milliseconds, float64[rounds, queries]."""
_Filter = Callable[[Implementation], bool]
TITLES = {
    "collapsed_vs_plain_ort": "FP32 engine of the toolkit over plain export (ONNX Runtime)",
    "int8_vs_fp32_best_cpu": "INT8 engine over FP32 engine (toolkit, fastest backend)",
    "edge_int8_vs_fastest_plain_two_stage": "edge INT8 engine over the fastest baseline of two_stage_cnn",
    "edge_int8_vs_fastest_plain_two_stage_float32": (
        "edge INT8 engine over the fastest float32 baseline of two_stage_cnn"
    ),
    "toolkit_best_vs_best_peer": "fastest engine of the toolkit over the fastest baseline",
    "toolkit_best_vs_best_peer_float32": "fastest engine of the toolkit over the fastest float32 baseline",
}
"""Title of each speed-up by its key in result files."""


def compute_speedups(timed: Sequence[TimedImplementation]) -> dict[str, dict[str, Any]]:
    """Return the speed-ups of TITLES: the time of the slower side divided by that of the faster, expected side.

    Each side is the fastest implementation that matches. `..._float32` compares with baselines that compute in single
    precision only, because OpenVINO computes in bfloat16 by default if the CPU supports it. A speed-up whose sides were
    not both timed is `not_available`.
    """
    network = timed[0][0].network if timed else ""
    same_network = [pair for pair in timed if pair[0].network == network]
    any_float, float32 = ("float", "reduced"), ("float",)
    edge_int8 = _match_toolkit("int8", network="edge")
    return {
        "collapsed_vs_plain_ort": _compare_fastest(
            same_network,
            slower=_match_baseline(float32, backend="ONNX Runtime"),
            faster=_match_toolkit("float", backend="ONNX Runtime"),
        ),
        "int8_vs_fp32_best_cpu": _compare_fastest(
            same_network, slower=_match_toolkit("float"), faster=_match_toolkit("int8")
        ),
        "edge_int8_vs_fastest_plain_two_stage": _compare_fastest(
            timed, slower=_match_baseline(any_float, network="two_stage_cnn"), faster=edge_int8
        ),
        "edge_int8_vs_fastest_plain_two_stage_float32": _compare_fastest(
            timed, slower=_match_baseline(float32, network="two_stage_cnn"), faster=edge_int8
        ),
        "toolkit_best_vs_best_peer": _compare_fastest(
            same_network, slower=_match_baseline(any_float), faster=_is_toolkit
        ),
        "toolkit_best_vs_best_peer_float32": _compare_fastest(
            same_network, slower=_match_baseline(float32), faster=_is_toolkit
        ),
    }


def _is_toolkit(implementation: Implementation) -> bool:
    return implementation.role == "toolkit"


def _match_toolkit(precision: str, *, network: str | None = None, backend: str | None = None) -> _Filter:
    return lambda implementation: (
        implementation.role == "toolkit"
        and implementation.precision == precision
        and network in (None, implementation.network)
        and backend in (None, implementation.backend)
    )


def _match_baseline(precisions: Sequence[str], *, network: str | None = None, backend: str | None = None) -> _Filter:
    return lambda implementation: (
        implementation.role == "peer"
        and implementation.backend != "CUDA"
        and implementation.precision in precisions
        and network in (None, implementation.network)
        and backend in (None, implementation.backend)
    )


def _compare_fastest(timed: Sequence[TimedImplementation], *, slower: _Filter, faster: _Filter) -> dict[str, Any]:
    slow, fast = _find_fastest(timed, slower), _find_fastest(timed, faster)
    if slow is None or fast is None:
        return {"not_available": "this run did not time both"}
    comparison = asdict(compare(slow[1], fast[1]))
    return comparison | {"slower": slow[0].label, "faster": fast[0].label}


def _find_fastest(timed: Sequence[TimedImplementation], is_match: _Filter) -> TimedImplementation | None:
    """Return the matching implementation with the smallest median of all its queries."""
    matches = (pair for pair in timed if is_match(pair[0]))
    return min(matches, key=lambda pair: float(np.median(pair[1])), default=None)
