"""The ratios that a report quotes, each of contenders that took turns in one run, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.statistics import ratio
from benchmarks.peers.baselines import Contender

Timed = tuple[Contender, NDArray[np.float64]]
"""A contender and its milliseconds, float64[rounds, queries]."""
_Pick = Callable[[Contender], bool]


def _ours(precision: str, *, network: str | None = None, backend: str | None = None) -> _Pick:
    return lambda each: (
        each.role == "toolkit"
        and each.precision == precision
        and network in (None, each.network)
        and backend in (None, each.backend)
    )


def _peer(precisions: Sequence[str], *, network: str | None = None, backend: str | None = None) -> _Pick:
    return lambda each: (
        each.role == "peer"
        and each.backend != "CUDA"
        and each.precision in precisions
        and network in (None, each.network)
        and backend in (None, each.backend)
    )


def named_ratios(timed: Sequence[Timed]) -> dict[str, dict[str, Any]]:
    """How many times as long the slower takes as the faster; of several that are meant, each time the fastest.

    `..._float32`: against peers that compute in single precision alone. OpenVINO by its defaults takes bfloat16
    where the CPU has it. What is not in this run says so.
    """
    first = timed[0][0].network if timed else ""
    toolkit = [each for each in timed if each[0].network == first]
    every, single = ("float", "reduced"), ("float",)
    two_stage, best = "two_stage_cnn", lambda each: each.role == "toolkit"
    return {
        "collapsed_vs_plain_ort": _stated(
            toolkit, _peer(single, backend="ONNX Runtime"), _ours("float", backend="ONNX Runtime")
        ),
        "int8_vs_fp32_best_cpu": _stated(toolkit, _ours("float"), _ours("int8")),
        "edge_int8_vs_fastest_plain_two_stage": _stated(
            timed, _peer(every, network=two_stage), _ours("int8", network="edge")
        ),
        "edge_int8_vs_fastest_plain_two_stage_float32": _stated(
            timed, _peer(single, network=two_stage), _ours("int8", network="edge")
        ),
        "toolkit_best_vs_best_peer": _stated(toolkit, _peer(every), best),
        "toolkit_best_vs_best_peer_float32": _stated(toolkit, _peer(single), best),
    }


def _stated(timed: Sequence[Timed], slower: _Pick, faster: _Pick) -> dict[str, Any]:
    slow, fast = _fastest(timed, slower), _fastest(timed, faster)
    if slow is None or fast is None:
        return {"not_available": "not both were timed in this run"}
    found = asdict(ratio(slow[1], fast[1]))
    return found | {"slower": slow[0].label, "faster": fast[0].label}


def _fastest(timed: Sequence[Timed], picked: _Pick) -> Timed | None:
    """By the median of all its queries."""
    return min((each for each in timed if picked(each[0])), key=lambda each: float(np.median(each[1])), default=None)
