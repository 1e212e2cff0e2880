"""Parts of commands that a worker leaves out: they take seconds and read nothing of the mutated file."""

from __future__ import annotations

from types import SimpleNamespace

import pytest


def without_trial() -> None:
    """Measure the engines of a folder for no time, and let plans run on a stand-in for TensorRT and the GPU."""
    from runtime.engines import choice
    from tests.standin import install_stand_in

    choice.TRIAL_S = 0.0
    choice._cache_path = lambda: choice.Path("no-cache.json")
    install_stand_in(pytest.MonkeyPatch())


def without_gate() -> None:
    """Install bundles without measuring their engines."""
    from runtime.install import __main__ as installer

    installer.require_same_quality = lambda *_: {"an engine": 30.0}
    installer.require_no_worse = lambda *_: None


def without_chain() -> None:
    """End an export when its checkpoint and its pairs are loaded."""
    from export import chain
    from runtime.errors import EngineError

    def run(_: object) -> None:
        raise EngineError("checkpoint is loaded", hint="the export would begin")

    chain.Evaluator = lambda network, pairs: SimpleNamespace(pairs=pairs)
    chain.measure_blurred = lambda _: None
    chain.Chain.run = run


def all_shortcuts() -> None:
    without_trial()
    without_gate()
    without_chain()
