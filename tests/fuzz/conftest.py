"""Workers and seeds of the fuzzers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzz.rig import Worker

FEW, MANY = range(100), range(100, 3000)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each fuzzer with a hundred seeds, and with thousands as a slow test; --fuzz-seeds replaces both."""
    if "seeds" not in metafunc.fixturenames:
        return
    long = pytest.mark.timeout(3600)
    if chosen := metafunc.config.getoption("--fuzz-seeds"):
        first, _, last = chosen.partition(":")
        seeds = range(int(first), int(last or int(first) + 1))
        metafunc.parametrize("seeds", [pytest.param(seeds, marks=long, id=chosen)])
        return
    many = pytest.param(MANY, marks=[pytest.mark.slow, long], id="many")
    metafunc.parametrize("seeds", [pytest.param(FEW, id="few"), many])


def _run_worker(setup: str) -> Iterator[Worker]:
    worker = Worker(setup)
    yield worker
    worker.close()


@pytest.fixture(scope="session")
def worker() -> Iterator[Worker]:
    yield from _run_worker("all_shortcuts")
