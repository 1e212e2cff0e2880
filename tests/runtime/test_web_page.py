"""The upload page in a real browser: a picture, a clip, each refusal, and what it looks like."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("streamlit")
selenium = pytest.importorskip("selenium.webdriver", exc_type=ImportError)
from selenium.common.exceptions import StaleElementReferenceException  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402

from runtime.engines import BUNDLED  # noqa: E402
from runtime.monitor import Address  # noqa: E402
from runtime.web.__main__ import main, parse  # noqa: E402
from tests.conftest import DEMO_CLIP, ROOT, picture  # noqa: E402
from tests.rig import free_port, wait_until  # noqa: E402
from tests.runtime.conftest import SHOTS  # noqa: E402
from tests.runtime.test_web_desk import bomb, clip, packed  # noqa: E402

PICTURE = ".deblur-picture"


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def page(temporary: Path) -> Iterator[str]:
    """The address of a server of its own, as the command line starts it."""
    port = free_port()
    command = [sys.executable, "-m", "runtime.web", "--serve", str(port), "--provider", "cpu"]
    server = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "TMPDIR": str(temporary)})
    yield f"http://127.0.0.1:{port}/"
    server.send_signal(signal.SIGINT)
    server.wait(20)
    wait_until(lambda: not list(temporary.glob("deblur-web-*")))


def opened(browser: selenium.Chrome, page: str) -> None:
    def there() -> bool:
        try:
            browser.get(page)
        except Exception:  # noqa: BLE001 - it is still starting
            return False
        return True

    wait_until(there, 30)
    wait_until(lambda: browser.find_elements(By.CSS_SELECTOR, "input[type=file]"), 60)


def upload(browser: selenium.Chrome, file: Path, index: int = 0) -> None:
    browser.find_elements(By.CSS_SELECTOR, "input[type=file]")[index].send_keys(str(file))


def press(browser: selenium.Chrome, label: str) -> None:
    def pressed() -> bool:
        try:
            for button in browser.find_elements(By.CSS_SELECTOR, "button, [role=tab]"):
                if button.text.strip() == label:
                    button.click()
                    return True
        except StaleElementReferenceException:
            pass
        return False

    wait_until(pressed)


def key(browser: selenium.Chrome) -> str | None:
    """Which result is shown."""
    return browser.execute_script(
        f"const c = document.querySelector('{PICTURE}'); "
        "return c && c.dataset.drawn ? c.closest('.deblur-view').dataset.key : null"
    )


def colour(browser: selenium.Chrome, x: float, y: float) -> np.ndarray:
    """What the canvas shows there, BGR."""
    script = f"""const c = document.querySelector('{PICTURE}');
    return Array.from(c.getContext("2d").getImageData(arguments[0] * c.width, arguments[1] * c.height, 1, 1).data)"""
    return np.array(browser.execute_script(script, x, y)[2::-1])


def errors(browser: selenium.Chrome) -> list[str]:
    script = """return [...document.querySelectorAll('[data-testid=stAlert]')]
        .filter(each => each.offsetParent).map(each => each.innerText)"""
    found: list[str] = browser.execute_script(script)
    return found


def text(browser: selenium.Chrome) -> str:
    return str(browser.execute_script("return document.body.innerText"))


@pytest.fixture
def halves(tmp_path: Path) -> Path:
    """Left half dark blue, right half light green, so that it is known where which colour must be."""
    pixels = np.zeros((360, 640, 3), np.uint8)
    pixels[:, :320], pixels[:, 320:] = (120, 40, 20), (90, 220, 160)
    path = tmp_path / "halves.png"
    path.write_bytes(packed(pixels))
    return path


def test_a_picture_under_the_divider(browser: selenium.Chrome, page: str, halves: Path) -> None:
    browser.set_window_size(1280, 900)
    opened(browser, page)
    upload(browser, halves)
    wait_until(lambda: key(browser))
    assert np.abs(colour(browser, 0.1, 0.5) - (120, 40, 20)).max() < 12
    assert np.abs(colour(browser, 0.9, 0.5) - (90, 220, 160)).max() < 12

    line, stage = browser.find_element(By.CSS_SELECTOR, ".deblur-line"), browser.find_element(By.CSS_SELECTOR, PICTURE)
    reach = round(0.4 * stage.size["width"])
    ActionChains(browser).move_to_element(stage).click_and_hold().move_by_offset(reach, 0).release().perform()
    assert int(line.get_attribute("aria-valuenow")) == pytest.approx(90, abs=2)
    line.send_keys("\ue011")  # Home
    assert line.get_attribute("aria-valuenow") == "0"
    for _ in range(25):
        line.send_keys("\ue014")  # right
    assert int(line.get_attribute("aria-valuenow")) == 50

    for _ in range(2):
        browser.find_element(By.CSS_SELECTOR, "[data-do=in]").click()
    near = colour(browser, 0.3, 0.5)  # at four times the size this is where 0.45 was
    assert np.abs(near - (120, 40, 20)).max() < 12
    grip = ActionChains(browser).move_to_element_with_offset(stage, -reach, 0)
    grip.click_and_hold().move_by_offset(-reach // 4, 0).release().perform()  # the picture itself is moved
    assert int(line.get_attribute("aria-valuenow")) == 50
    browser.find_element(By.CSS_SELECTOR, "[data-do=fit]").click()
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not severe


def test_before_and_after_are_the_pictures_that_the_engine_took_and_gave(
    browser: selenium.Chrome, page: str, tmp_path: Path
) -> None:
    opened(browser, page)
    press(browser, "Sample picture 1")
    wait_until(lambda: key(browser))
    wait_until(lambda: "PSNR" in text(browser))
    assert "SSIM" in text(browser)
    browser.set_window_size(1440, 1000)
    browser.save_screenshot(str(SHOTS / "web_picture_wide.png"))
    folder = tmp_path / "downloads"
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    press(browser, "Download")
    press(browser, "Side by side")
    wait_until(lambda: len(list(folder.glob("*.[pj][np]g"))) == 2)
    restored = cv2.imread(str(folder / "Sample picture 1_restored.png"))
    beside = cv2.imread(str(folder / "Sample picture 1_side_by_side.jpg"))
    assert restored.shape == (360, 640, 3)
    assert cv2.PSNR(beside[:, 640:], restored) > 35


def test_a_reference_of_ones_own(browser: selenium.Chrome, page: str, halves: Path) -> None:
    opened(browser, page)
    browser.find_element(By.CSS_SELECTOR, "summary").click()
    upload(browser, halves, 1)
    upload(browser, halves, 0)
    wait_until(lambda: key(browser))
    wait_until(lambda: "PSNR" in text(browser))
    assert "-" in text(browser).split("PSNR")[1][:60]  # what is sharp already can only lose
    assert "held_out" in text(browser)


def test_a_clip_plays_on_both_sides(browser: selenium.Chrome, page: str, tmp_path: Path) -> None:
    opened(browser, page)
    shutil.copy(DEMO_CLIP, tmp_path / "clip.mp4")
    upload(browser, tmp_path / "clip.mp4")
    wait_until(lambda: "Frame " in text(browser), 60)
    wait_until(lambda: key(browser), 60)
    drawn = f"return Number(document.querySelector('{PICTURE}').dataset.drawn)"
    before = browser.execute_script(drawn)
    wait_until(lambda: browser.execute_script(drawn) > before + 5)
    browser.find_element(By.CSS_SELECTOR, "[data-do=play]").click()
    browser.save_screenshot(str(SHOTS / "web_clip_wide.png"))
    assert "Frames a second" in text(browser)


def test_on_a_phone(browser: selenium.Chrome, page: str) -> None:
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        opened(browser, page)
        press(browser, "Sample picture 2")
        wait_until(lambda: key(browser))
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        shot = browser.execute_cdp_cmd("Page.captureScreenshot", {})
        (SHOTS / "web_phone.png").write_bytes(base64.b64decode(shot["data"]))
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_each_refusal_is_a_sentence(browser: selenium.Chrome, page: str, tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb(20_000, 20_000))
    (tmp_path / "list.mp4").write_bytes(b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")
    (tmp_path / "cut.jpg").write_bytes(packed(picture(640, 480), ".jpg")[:-1000])
    clip(tmp_path / "long.mp4", frames=22 * 5, fps=5)
    clip(tmp_path / "large.mp4", size=(2048, 1152), frames=2)
    (tmp_path / "..%2f..%2fetc.png").write_bytes(b"not an image")
    for name, words in [
        ("bomb.png", "40.0 million pixels"),
        ("list.mp4", "neither a picture nor a video"),
        ("cut.jpg", "cut off"),
        ("long.mp4", "longer than 20 seconds"),
        ("large.mp4", "2.1 million pixels"),
        ("..%2f..%2fetc.png", "neither a picture nor a video"),
    ]:
        opened(browser, page)
        upload(browser, tmp_path / name)
        wait_until(lambda: errors(browser))
        assert words in errors(browser)[0]
        assert name in errors(browser)[0]
        assert tempfile.gettempdir() not in errors(browser)[0]
        assert key(browser) is None
    browser.save_screenshot(str(SHOTS / "web_refused.png"))
    with (tmp_path / "huge.mp4").open("wb") as file:
        file.truncate(60_000_000)
    opened(browser, page)
    upload(browser, tmp_path / "huge.mp4")
    wait_until(lambda: "must be 50.0MB or smaller" in text(browser))


def test_a_closed_tab_gives_its_job_up(browser: selenium.Chrome, page: str, temporary: Path, tmp_path: Path) -> None:
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    opened(browser, page)
    clip(tmp_path / "clip.mp4", size=(640, 360), frames=480)
    upload(browser, tmp_path / "clip.mp4")
    wait_until(lambda: "Frame " in text(browser), 60)
    assert list(temporary.glob("deblur-web-*"))
    browser.close()
    browser.switch_to.window(first)
    wait_until(lambda: not list(temporary.glob("deblur-web-*")), 5)
    opened(browser, page)
    press(browser, "Sample picture 1")
    wait_until(lambda: key(browser))


def test_the_reports_tab(browser: selenium.Chrome, page: str) -> None:
    opened(browser, page)
    press(browser, "Benchmarks")
    wait_until(lambda: browser.find_elements(By.CSS_SELECTOR, "iframe"))
    browser.switch_to.frame(browser.find_element(By.CSS_SELECTOR, "iframe"))
    wait_until(lambda: "PSNR" in text(browser))
    browser.switch_to.default_content()
    browser.save_screenshot(str(SHOTS / "web_benchmarks.png"))


def test_the_command_line_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--engine", str(tmp_path / "none.onnx")]) == 4
    assert "no such engine" in capsys.readouterr().err
    import socket

    with socket.create_server(("127.0.0.1", 0)) as other:
        assert main(["--serve", str(other.getsockname()[1])]) == 2
    assert "cannot serve" in capsys.readouterr().err
    assert parse([]).serve == Address("127.0.0.1", 8501)
    assert parse(["--engine", "edge-s"]).engine == [BUNDLED]
