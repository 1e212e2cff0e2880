"""Networks by name, with the engines of the toolkit: the bundled ones, or engines exported as users export them."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

import torch

from benchmarks.peers.baselines import Network
from export.__main__ import main as export
from runtime.engines import BUNDLED
from runtime.errors import EngineError
from train.checkpoint import load_generator, publish
from train.models import create_generator

BUNDLED_RUN = BUNDLED.with_name("edge-s")
"""Checkpoint from which the bundled engines were exported."""
BUNDLED_NETWORK = "edge"
WORK = Path("out/peers")
"""Default folder in which exported engines are kept for the next run."""
SEED = 0
"""Seed of random weights."""


def load_network(name: str, *, checkpoint: Path | None, work: Path = WORK) -> Network:
    """Load a generator and its engines; export the engines that do not exist.

    `checkpoint`: a published run of that generator. Without it, `edge` has the bundled weights, and other generators
    get random weights, which take the same time. Raises EngineError if the run cannot be loaded or exported.
    """
    if checkpoint is None and name == BUNDLED_NETWORK:
        return _load_bundled()
    weights = f"random, seed {SEED}" if checkpoint is None else checkpoint.name
    run = checkpoint or _publish_random_weights(name, work / f"{name}-random")
    generator, settings = load_generator(run)
    if settings["generator"] != name:
        hint = f"give --generator {settings['generator']}"
        raise EngineError(f"this run is of {settings['generator']}, not of {name}", run, hint=hint)
    folder = work / f"{name}-{'random' if checkpoint is None else checkpoint.stem}" / "engines"
    with redirect_stdout(sys.stderr):  # the export prints a report, which must not mix with the results
        code = export([str(run), "--out", str(folder), "--precision", "fp32,int8_cpu"])
    if code:
        raise EngineError("the network could not be exported, see above", run, hint="run python -m export on it")
    engines = {"fp32": folder / "deblur_fp32.onnx", "int8_cpu": folder / "deblur_int8_cpu.onnx"}
    return Network(name=name, generator=generator, weights=weights, engines=engines)  # type: ignore[arg-type]


def _load_bundled() -> Network:
    engines = {"fp32": BUNDLED.with_name("edge-s_fp32.onnx"), "int8_cpu": BUNDLED}
    generator, _ = load_generator(BUNDLED_RUN)
    return Network(name=BUNDLED_NETWORK, generator=generator, weights="bundled", engines=engines)  # type: ignore[arg-type]


def _publish_random_weights(name: str, run: Path) -> Path:
    """Write a published run of an untrained generator, the same at every call."""
    torch.manual_seed(SEED)
    run.mkdir(parents=True, exist_ok=True)
    publish(create_generator(name), json.dumps({"generator": name, "options": {}}), run)
    return run
