"""A network by its name, with the toolkit's engines of it: bundled ones, or exported on the spot as users export."""

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
from train.checkpoint import CheckpointError, load_generator, publish
from train.models import create_generator

BUNDLED_RUN = BUNDLED.with_name("edge-s")
"""The checkpoint that the bundled engines were made from."""
BUNDLED_NETWORK = "edge"
WORK = Path("out/peers")
"""Where exports are kept for the next run."""
SEED = 0


def network(name: str, *, checkpoint: Path | None, work: Path = WORK) -> Network:
    """A generator and its engines.

    `checkpoint`: a published run of that generator; without it `edge` is the bundled one, and others get random
    weights, which take as long. Raises EngineError if they cannot be loaded or exported.
    """
    if checkpoint is None and name == BUNDLED_NETWORK:
        return _bundled()
    weights = f"random, seed {SEED}" if checkpoint is None else checkpoint.name
    run = checkpoint or _random(name, work / f"{name}-random")
    try:
        generator, settings = load_generator(run)
    except CheckpointError as error:
        raise EngineError(str(error), hint="give another --checkpoint") from error
    if settings["generator"] != name:
        raise EngineError(f"this run is of {settings['generator']}, not of {name}", run, hint="give its --generator")
    folder = work / f"{name}-{'random' if checkpoint is None else checkpoint.stem}" / "engines"
    with redirect_stdout(sys.stderr):  # the export's report; ours is to stand alone
        code = export([str(run), "--out", str(folder), "--precision", "fp32,int8_cpu"])
    if code:
        raise EngineError("the network could not be exported, see above", run, hint="python -m export says more")
    engines = {"fp32": folder / "deblur_fp32.onnx", "int8_cpu": folder / "deblur_int8_cpu.onnx"}
    return Network(name=name, generator=generator, weights=weights, engines=engines)  # type: ignore[arg-type]


def _bundled() -> Network:
    engines = {"fp32": BUNDLED.with_name("edge-s_fp32.onnx"), "int8_cpu": BUNDLED}
    generator, _ = load_generator(BUNDLED_RUN)
    return Network(name=BUNDLED_NETWORK, generator=generator, weights="bundled", engines=engines)  # type: ignore[arg-type]


def _random(name: str, run: Path) -> Path:
    """A published run of an untrained generator, always the same one."""
    torch.manual_seed(SEED)
    run.mkdir(parents=True, exist_ok=True)
    publish(create_generator(name), json.dumps({"generator": name, "options": {}}), run)
    return run
