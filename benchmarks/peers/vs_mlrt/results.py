"""Results of compared file jobs in the form of `file_jobs` in schema.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.harness.statistics import compare
from benchmarks.harness.transcode import HEAD_FRAMES
from benchmarks.peers.vs_mlrt.measure import Clip, Outcome, costs_ms
from runtime.frame import Size

_WALL, _CPU = 0, 1


def describe_results(
    outcomes: Sequence[Outcome],
    clip: Clip,
    *,
    size: Size,
    rounds: int,
    versions: Mapping[str, str],
    is_demo: bool,
) -> dict[str, Any]:
    """Return `file_jobs` of schema.json."""
    networks = list(dict.fromkeys(outcome.job.network for outcome in outcomes))
    return {
        "size": list(size),
        "source": "clip" if is_demo else "other",
        "frames": clip.frames,
        "head_frames": HEAD_FRAMES,
        "rounds": rounds,
        "versions": dict(versions),
        "jobs": [_describe_job(outcome) for outcome in outcomes],
        "ratios": [_compare_best(outcomes, network, kind) for network in networks for kind in (_WALL, _CPU)],
        "notes": list(_find_other_settings(outcomes)),
    }


def _describe_job(outcome: Outcome) -> dict[str, Any]:
    job, check = outcome.job, outcome.check
    facts: dict[str, Any] = {
        "name": job.name,
        "network": job.network,
        "role": job.role,
        "status": "timed" if outcome.costs else "refused" if check else "not available",
        "reason": outcome.reason or None,
        "says": _read_report(check.messages) if check else [],
        "check": None,
        "cost": None,
    }
    if check:
        facts["check"] = {name: getattr(check, name) for name in ("agreement_db", "undone_db", "psnr_db")}
    if outcome.costs:
        wall_ms, cpu_ms = (costs_ms(outcome, kind).ravel() for kind in (_WALL, _CPU))
        facts["cost"] = {
            "fps": round(1e3 / float(np.median(wall_ms)), 3),
            "rounds_fps": [round(1e3 / float(value), 3) for value in wall_ms],
            "cpu_ms": round(float(np.median(cpu_ms)), 3),
            "rounds_cpu_ms": [round(float(value), 3) for value in cpu_ms],
            "whole_s": round(float(np.median(outcome.whole_s)), 3),
        }
    return facts


def _read_report(messages: str) -> list[str]:
    """Return the lines in which `runtime.video` says what it runs and how frames travel."""
    lines = (" ".join(line.split()) for line in messages.splitlines())
    return [line for line in lines if line.startswith("pixels ") or (line.startswith("engine ") and "," in line)]


def _compare_best(outcomes: Sequence[Outcome], network: str, kind: int) -> dict[str, Any]:
    """Compare the cheapest job of the toolkit with the cheapest of vs-mlrt, by wall time or by processor time."""
    facts: dict[str, Any] = {"network": network, "of": ("wall time", "processor time")[kind]}
    timed = [outcome for outcome in outcomes if outcome.costs and outcome.job.network == network]
    sides = [[one for one in timed if one.job.role == role] for role in ("peer", "toolkit")]
    if not all(sides):
        return facts | {"not_available": "this run did not time both"}
    slower, faster = (min(side, key=lambda one: float(np.median(costs_ms(one, kind)))) for side in sides)
    comparison = compare(costs_ms(slower, kind), costs_ms(faster, kind))
    return facts | {
        "ratio": comparison.ratio,
        "low": comparison.low,
        "high": comparison.high,
        "rounds": comparison.rounds,
        "slower": slower.job.name,
        "faster": faster.job.name,
    }


def _find_other_settings(outcomes: Sequence[Outcome]) -> list[str]:
    """Return a note for every job whose output was encoded with other settings than that of the first job."""
    checks = [(outcome.job.label, outcome.check.settings) for outcome in outcomes if outcome.check]
    notes = []
    for label, settings in checks[1:]:
        expected = checks[0][1]
        names = [name for name in {**expected, **settings} if expected.get(name) != settings.get(name)]
        if names:
            notes.append(f"{label} encodes with other settings of x264 than {checks[0][0]}: {', '.join(names)}")
    return notes
