"""Parts that tests of the runtime share: options without the guard, and a real browser for the tests of pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runtime.options import RunOptions
from runtime.spec import PIXEL_FORMATS
from tests.conftest import write_engine

if TYPE_CHECKING:
    from selenium import webdriver

UNGUARDED = RunOptions(guard=False)
"""For test engines such as `invert`, whose results the guard would reject."""
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
)
SHOTS = Path(os.environ.get("DEBLUR_SCREENSHOTS", "out/screenshots"))
"""Folder for screenshots of the pages."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the tests a cache of their own: they leave no choice of an engine in the user's, and find none there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session", params=PIXEL_FORMATS)
def invert_in_form(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine that inverts BGR, and one that inverts the codes of planes: the tests run with both."""
    folder = tmp_path_factory.mktemp("engine")
    if request.param == "bgr":
        return write_engine(folder / "invert.onnx")
    return write_engine(folder / "invert_yuv420.onnx", shape=("n", "rows", "w"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    selenium = pytest.importorskip("selenium.webdriver", exc_type=ImportError)
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        assert not os.environ.get("CI"), "CI installs chromium and chromium-driver"
        pytest.skip("no browser: apt install chromium chromium-driver")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    made = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    SHOTS.mkdir(parents=True, exist_ok=True)
    yield made
    made.quit()
