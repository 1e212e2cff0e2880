"""The status page in a real browser: frame, divider, figures, several streams, and a server that stops."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest

from runtime.engines import open_engine
from runtime.engines.base import SynchronousEngine
from runtime.frame import Pixels
from runtime.monitor import Access, Address, StatusServer
from runtime.spec import EngineSpec
from tests.rig import wait_until
from tests.runtime.conftest import SHOTS
from tests.runtime.test_monitor import BackgroundRun, ManualSource

selenium = pytest.importorskip("selenium.webdriver", exc_type=ImportError)
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402 - after importorskip
from selenium.webdriver.common.by import By  # noqa: E402


class InvertingEngine(SynchronousEngine):
    spec, backend, provider = EngineSpec(name="inverted"), "test", "cpu"

    def infer(self, batch: Pixels) -> Pixels:
        return 255 - batch

    def close(self) -> None: ...


def read_text(browser: selenium.Chrome, name: str) -> str:
    return browser.find_element(By.ID, name).text


def read_colour(browser: selenium.Chrome, x: float, y: float = 0.5) -> np.ndarray:
    """Return the RGB colour of the canvas at a position, given as shares of its width and height."""
    script = """const c = document.getElementById("frame");
    return Array.from(c.getContext("2d").getImageData(arguments[0] * c.width, arguments[1] * c.height, 1, 1).data)"""
    return np.array(browser.execute_script(script, x, y)[:3])


def is_loaded(browser: selenium.Chrome) -> bool:
    return browser.execute_script("return document.readyState") == "complete"


def count_drawn_frames(browser: selenium.Chrome) -> int:
    return int(browser.execute_script('return document.getElementById("frame").dataset.frame || 0'))


def test_page_shows_frames_figures_and_streams(browser: selenium.Chrome) -> None:
    with ExitStack() as stack:
        server = StatusServer(Address("127.0.0.1", 0))
        stack.callback(server.close)
        first, second = (
            ManualSource(name="front door", size=(640, 360)),
            ManualSource(name="rtsp://***@10.0.0.7/yard", size=(320, 240)),
        )
        for source in (first, second):
            run = BackgroundRun(server, source, InvertingEngine())
            stack.callback(run.stop)
            source.send_frame()
        browser.set_window_size(1280, 900)
        browser.get(server.url)
        wait_until(lambda: count_drawn_frames(browser) == 1)
        wait_until(lambda: read_text(browser, "name") == "front door")
        before, after = first.sent[0][180, 64, ::-1], 255 - first.sent[0][180, 576, ::-1]
        assert np.abs(read_colour(browser, 0.1) - before).max() < 20
        assert np.abs(read_colour(browser, 0.9) - after).max() < 20

        view, divider = browser.find_element(By.ID, "view"), browser.find_element(By.ID, "divider")
        assert divider.get_attribute("role") == "slider"
        reach = round(0.45 * view.size["width"])
        ActionChains(browser).click_and_hold(divider).move_by_offset(reach, 0).release().perform()
        assert int(divider.get_attribute("aria-valuenow")) == pytest.approx(95, abs=2)
        assert (
            np.abs(read_colour(browser, 0.9) - first.sent[0][180, 576, ::-1]).max() < 20
        )  # left of the divider: before
        divider.send_keys("\ue011")  # Home
        assert divider.get_attribute("aria-valuenow") == "0"
        assert np.abs(read_colour(browser, 0.1) - (255 - before.astype(int))).max() < 20

        def written() -> int:
            return int(read_text(browser, "numbers").split("written\n")[1].split()[0])

        for _ in range(3):
            count = len(first.sent)
            first.send_frame()
            wait_until(lambda count=count: len(first.sent) > count)
        wait_until(lambda: written() >= 3 and count_drawn_frames(browser) >= 3)
        divider.send_keys("\ue010")  # End
        for _ in range(25):
            divider.send_keys("\ue012")  # left
        assert int(divider.get_attribute("aria-valuenow")) == 50
        wait_until(lambda: browser.execute_script('return document.querySelectorAll("#curve path").length') == 2)
        browser.save_screenshot(str(SHOTS / "status_wide.png"))

        browser.find_elements(By.CSS_SELECTOR, "#streams button")[1].click()
        wait_until(lambda: read_text(browser, "name") == "rtsp://***@10.0.0.7/yard")
        wait_until(lambda: count_drawn_frames(browser) == 1)
        browser.set_window_size(500, 1000)
        browser.save_screenshot(str(SHOTS / "status_narrow.png"))
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")

        errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
        assert not errors
        server.close()
        wait_until(lambda: "does not answer" in read_text(browser, "message"))


def test_page_with_frames_of_the_bundled_engine(browser: selenium.Chrome) -> None:
    """Leave a screenshot with real frames, to be looked at."""
    from runtime.sources import open_source
    from tests.conftest import DEMO_CLIP

    with ExitStack() as stack:
        server = StatusServer(Address("127.0.0.1", 0))
        stack.callback(server.close)
        run = BackgroundRun(server, open_source(str(DEMO_CLIP)), open_engine(threads=1, provider="cpu"))
        browser.set_window_size(1280, 900)
        browser.get(server.url)
        wait_until(lambda: count_drawn_frames(browser) > 20, 60)
        browser.save_screenshot(str(SHOTS / "status_demo.png"))
        run.stop()


def test_page_with_a_token_asks_for_it_once(browser: selenium.Chrome) -> None:
    with ExitStack() as stack:
        server = StatusServer(Address("127.0.0.1", 0), Access("a-token-of-the-tests"))
        stack.callback(server.close)
        source = ManualSource(name="front door", size=(64, 48))
        stack.callback(BackgroundRun(server, source, InvertingEngine()).stop)
        source.send_frame()
        browser.get(server.url)
        for token, place in (("wrong", f"{server.url}login"), ("a-token-of-the-tests", server.url)):
            browser.find_element(By.ID, "token").send_keys(token)
            browser.find_element(By.TAG_NAME, "button").click()
            wait_until(lambda place=place: browser.current_url == place and is_loaded(browser))
        wait_until(lambda: count_drawn_frames(browser) == 1)
        browser.get(server.url)
        wait_until(lambda: count_drawn_frames(browser) == 1)
        assert read_text(browser, "name") == "front door"
