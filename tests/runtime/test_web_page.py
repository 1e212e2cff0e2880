"""The upload page in a real browser: images, clips, refusals, reports and the command line."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("streamlit")
selenium = pytest.importorskip("selenium.webdriver", exc_type=ImportError)
from selenium.common.exceptions import StaleElementReferenceException  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from streamlit.testing.v1 import AppTest  # noqa: E402

from runtime.address import Address  # noqa: E402
from runtime.engines import BUNDLED  # noqa: E402
from runtime.spec import EngineSpec  # noqa: E402
from runtime.web.__main__ import add_benchmarks, build_parser, main  # noqa: E402
from runtime.web.reports import NO_REPORTS, find_reports  # noqa: E402
from runtime.web.server import PAGE  # noqa: E402
from runtime.web.settings import Limits, Settings  # noqa: E402
from tests.conftest import DEMO_CLIP, ROOT, make_image  # noqa: E402
from tests.rig import free_port, wait_until  # noqa: E402
from tests.runtime.conftest import SHOTS  # noqa: E402
from tests.runtime.test_web_queue import encode, png_bomb, write_clip  # noqa: E402

CANVAS = ".deblur-canvas"


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def page(temporary: Path) -> Iterator[str]:
    """Start the command line and return the address of its page."""
    port = free_port()
    command = [sys.executable, "-m", "runtime.web", "--serve", str(port), "--provider", "cpu"]
    server = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "TMPDIR": str(temporary)})
    yield f"http://127.0.0.1:{port}/"
    server.send_signal(signal.SIGINT)
    server.wait(20)
    wait_until(lambda: not list(temporary.glob("deblur-web-*")))


def open_page(browser: selenium.Chrome, page: str) -> None:
    def is_loaded() -> bool:
        try:
            browser.get(page)
        except Exception:  # noqa: BLE001 - the server is still starting
            return False
        return True

    wait_until(is_loaded, 30)
    wait_until(lambda: browser.find_elements(By.CSS_SELECTOR, "input[type=file]"), 150)


def upload(browser: selenium.Chrome, file: Path, index: int = 0) -> None:
    browser.find_elements(By.CSS_SELECTOR, "input[type=file]")[index].send_keys(str(file))


def press(browser: selenium.Chrome, label: str) -> None:
    def is_pressed() -> bool:
        try:
            for button in browser.find_elements(By.CSS_SELECTOR, "button, [role=tab], summary"):
                if label in button.text.splitlines():  # beside it may be the name of an icon
                    button.click()
                    return True
        except StaleElementReferenceException:
            pass
        return False

    wait_until(is_pressed)


def result_key(browser: selenium.Chrome) -> str | None:
    """Return the key of the result on show; None without a result."""
    return browser.execute_script(
        f"const c = document.querySelector('{CANVAS}'); "
        "return c && c.dataset.drawn ? c.closest('.deblur-view').dataset.key : null"
    )


def read_colour(browser: selenium.Chrome, x: float, y: float) -> np.ndarray:
    """Return the BGR colour of the canvas at a position, given as shares of its width and height."""
    script = f"""const c = document.querySelector('{CANVAS}');
    return Array.from(c.getContext("2d").getImageData(arguments[0] * c.width, arguments[1] * c.height, 1, 1).data)"""
    return np.array(browser.execute_script(script, x, y)[2::-1])


def read_errors(browser: selenium.Chrome) -> list[str]:
    script = """return [...document.querySelectorAll('[class*=st-key-error-]')]
        .filter(message => message.offsetParent).map(message => message.innerText)"""
    texts: list[str] = browser.execute_script(script)
    return texts


@contextmanager
def window(browser: selenium.Chrome, width: int, height: int) -> Iterator[None]:
    """Give the page a window of this size in CSS pixels; one narrower than 640 is that of a phone."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 640}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def save_shot(browser: selenium.Chrome, name: str) -> None:
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {})
    (SHOTS / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))


def list_cut_off(browser: selenium.Chrome) -> list[str]:
    """Return what is wider than the page or than its own box, and buttons that overlap."""
    script = """
    const visible = [...document.querySelectorAll("button, input, p, label, canvas, output, summary, iframe")]
      .filter(e => e.checkVisibility() && e.offsetWidth > 1 && !e.closest("[data-testid=stSkipNavigation]"))
    const isOutside = ({left, right}) => left < 0 || right > innerWidth + 1
    const wide = visible.filter(e => isOutside(e.getBoundingClientRect())
      || (e.matches("button, p, label, summary") && e.scrollWidth > e.clientWidth + 1 && e.clientWidth))
    const boxes = visible.filter(e => e.matches("button, input[type=range], summary"))
      .map(e => [e, e.getBoundingClientRect()])
    const overlaps = boxes.filter(([a, p]) => boxes.some(([b, q]) => a !== b && !a.contains(b) && !b.contains(a)
      && p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 1 && q.top < p.bottom - 1))
    return [...wide, ...overlaps.map(([e]) => e)].map(e => `${e.tagName} ${e.innerText} ${e.className}`)"""
    texts: list[str] = browser.execute_script(script)
    return texts


def lowest_edge(browser: selenium.Chrome, selectors: str) -> float:
    """Return the bottom of the lowest of these elements in CSS pixels from the top of the window."""
    script = """return Math.max(...[...document.querySelectorAll(arguments[0])].filter(e => e.offsetParent)
        .map(e => e.getBoundingClientRect().bottom))"""
    return float(browser.execute_script(script, selectors))


def read_text(browser: selenium.Chrome) -> str:
    return str(browser.execute_script("return document.body.innerText"))


@pytest.fixture
def halves(tmp_path: Path) -> Path:
    """Write an image with a dark blue left half and a light green right half."""
    pixels = np.zeros((360, 640, 3), np.uint8)
    pixels[:, :320], pixels[:, 320:] = (120, 40, 20), (90, 220, 160)
    path = tmp_path / "halves.png"
    path.write_bytes(encode(pixels))
    return path


def test_divider_zoom_and_pan_of_an_image(browser: selenium.Chrome, page: str, halves: Path) -> None:
    browser.set_window_size(1280, 900)
    open_page(browser, page)
    assert read_text(browser).partition("Deblur")[0].strip() == "Skip to main content"  # a hidden link of Streamlit
    upload(browser, halves)
    wait_until(lambda: result_key(browser))
    assert np.abs(read_colour(browser, 0.1, 0.5) - (120, 40, 20)).max() < 12
    assert np.abs(read_colour(browser, 0.9, 0.5) - (90, 220, 160)).max() < 12

    line, stage = browser.find_element(By.CSS_SELECTOR, ".deblur-line"), browser.find_element(By.CSS_SELECTOR, CANVAS)
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
    near = read_colour(browser, 0.3, 0.5)  # at zoom 4 this shows the point that was at 0.45
    assert np.abs(near - (120, 40, 20)).max() < 12
    grip = ActionChains(browser).move_to_element_with_offset(stage, -reach, 0)
    grip.click_and_hold().move_by_offset(-reach // 4, 0).release().perform()  # moves the image, not the divider
    assert int(line.get_attribute("aria-valuenow")) == 50
    browser.find_element(By.CSS_SELECTOR, "[data-do=fit]").click()
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not severe


def test_sample_image_and_its_downloads(browser: selenium.Chrome, page: str, tmp_path: Path) -> None:
    open_page(browser, page)
    press(browser, "Image 1")
    wait_until(lambda: result_key(browser))
    wait_until(lambda: "PSNR" in read_text(browser))
    assert "SSIM" in read_text(browser)
    browser.set_window_size(1440, 1000)
    browser.save_screenshot(str(SHOTS / "web_picture_wide.png"))
    folder = tmp_path / "downloads"
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    press(browser, "Download the result (PNG)")
    press(browser, "Download before and after (JPG)")
    wait_until(lambda: len(list(folder.glob("*.[pj][np]g"))) == 2)
    restored = cv2.imread(str(folder / "sample image 1_restored.png"))
    beside = cv2.imread(str(folder / "sample image 1_side_by_side.jpg"))
    assert restored.shape == (360, 640, 3)
    assert cv2.PSNR(beside[:, 640:], restored) > 35


def test_uploaded_reference(browser: selenium.Chrome, page: str, halves: Path) -> None:
    open_page(browser, page)
    press(browser, "Measure the quality")
    upload(browser, halves, 1)
    upload(browser, halves, 0)
    wait_until(lambda: result_key(browser))
    wait_until(lambda: "PSNR" in read_text(browser))
    assert "-" in read_text(browser).split("PSNR")[1][:60]  # a sharp image can only lose quality
    press(browser, "Network details")
    wait_until(lambda: "held_out" in read_text(browser))


def test_clip_plays_on_both_sides(browser: selenium.Chrome, page: str, tmp_path: Path) -> None:
    open_page(browser, page)
    shutil.copy(DEMO_CLIP, tmp_path / "clip.mp4")
    upload(browser, tmp_path / "clip.mp4")
    wait_until(lambda: "Frame " in read_text(browser), 150)
    wait_until(lambda: result_key(browser), 150)
    drawn = f"return Number(document.querySelector('{CANVAS}').dataset.drawn)"
    before = browser.execute_script(drawn)
    wait_until(lambda: browser.execute_script(drawn) > before + 5)
    browser.find_element(By.CSS_SELECTOR, "[data-do=play]").click()
    browser.save_screenshot(str(SHOTS / "web_clip_wide.png"))
    assert "Speed" in read_text(browser)


def test_empty_page_says_what_it_does_and_takes(browser: selenium.Chrome, page: str) -> None:
    with window(browser, 1400, 900):
        open_page(browser, page)
        wait_until(lambda: len(browser.find_elements(By.CSS_SELECTOR, ".st-key-samples button")) == 3)
        text = read_text(browser)
        for words in ("removes motion blur", "JPEG", "MP4", "50 MB", "20 seconds", "40 million pixels", "deletes them"):
            assert words in text
        script = "return getComputedStyle(arguments[0]).backgroundImage.slice(0, 30)"
        thumbnails = browser.find_elements(By.CSS_SELECTOR, ".st-key-samples button")
        assert all("data:image/jpeg" in browser.execute_script(script, button) for button in thumbnails)
        assert len({tuple(button.size.items()) for button in thumbnails}) == 1
        assert not list_cut_off(browser)
        save_shot(browser, "web_empty_wide")


@pytest.mark.parametrize("size", [(1400, 900), (390, 844)])
@pytest.mark.parametrize("sample", ["Image 2", "Video"])
def test_result_fits_the_window(browser: selenium.Chrome, page: str, sample: str, size: tuple[int, int]) -> None:
    """Comparison, zoom and downloads are visible without scrolling; on a phone, one download is."""
    with window(browser, *size):
        open_page(browser, page)
        press(browser, sample)
        wait_until(lambda: result_key(browser), 150)
        wait_until(lambda: "SSIM" in read_text(browser))
        everything = f"{CANVAS}, .deblur-controls, .stDownloadButton, .st-key-figures"
        wanted = everything if size[0] > 640 else f"{CANVAS}, .deblur-controls"
        wait_until(lambda: lowest_edge(browser, wanted) <= size[1])
        save_shot(browser, f"web_{sample.replace(' ', '_').lower()}_{size[0]}")
        assert not list_cut_off(browser)
        canvas = browser.find_element(By.CSS_SELECTOR, CANVAS)
        assert canvas.size["width"] > 0.6 * size[0]


def test_file_names_are_shown_as_they_are(browser: selenium.Chrome, page: str, tmp_path: Path) -> None:
    name = (
        "**b** <img src=x onerror=alert(1)> $x$ :smile: :red[r] [l](x) `c` www.evil.example a@b.cd -> :streamlit:.png"
    )
    (tmp_path / name).write_bytes(b"not an image")
    open_page(browser, page)
    upload(browser, tmp_path / name)
    wait_until(lambda: read_errors(browser))
    assert name in read_errors(browser)[0]
    message = browser.find_element(By.CSS_SELECTOR, "[class*=st-key-error]")
    assert not message.find_elements(By.CSS_SELECTOR, "img, a, strong, code, .katex")


def test_a_very_wide_image_is_shown(browser: selenium.Chrome, page: str, tmp_path: Path) -> None:
    open_page(browser, page)
    pixels = np.zeros((30, 33_000, 3), np.uint8)
    pixels[:, :16_500], pixels[:, 16_500:] = (120, 40, 20), (90, 220, 160)
    (tmp_path / "wide.png").write_bytes(encode(pixels))
    upload(browser, tmp_path / "wide.png")
    wait_until(lambda: result_key(browser))
    wait_until(lambda: "is scaled from 66000x30" in read_text(browser))
    assert browser.find_element(By.CSS_SELECTOR, CANVAS).size["height"] >= 100
    for _ in range(6):
        browser.find_element(By.CSS_SELECTOR, "[data-do=in]").click()
    assert np.abs(read_colour(browser, 0.3, 0.5) - (120, 40, 20)).max() < 12
    assert np.abs(read_colour(browser, 0.7, 0.5) - (90, 220, 160)).max() < 12


def test_an_upload_above_the_quota_is_not_stored(browser: selenium.Chrome, tmp_path: Path) -> None:
    port = free_port()
    limits = Limits(session_mb=1)
    settings = Settings(engines=(str(BUNDLED),), provider="cpu", limits=limits, address=Address("127.0.0.1", port))
    server = subprocess.Popen([sys.executable, "-m", "runtime.web.server", settings.to_json()], cwd=ROOT)
    try:
        open_page(browser, f"http://127.0.0.1:{port}/")
        noise = np.random.default_rng(0).integers(0, 256, (500, 500, 3), np.uint8)
        (tmp_path / "noise.png").write_bytes(encode(noise))
        press(browser, "Measure the quality")
        upload(browser, tmp_path / "noise.png")
        wait_until(lambda: result_key(browser))
        upload(browser, tmp_path / "noise.png", 1)
        wait_until(lambda: read_errors(browser))
        assert read_errors(browser) == [
            "The upload is not stored: a visitor may store 1 MB; remove another upload first."
        ]
        assert len(browser.find_elements(By.CSS_SELECTOR, "[data-testid=stMetric]")) == 2  # without PSNR and SSIM
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 128 + signal.SIGINT


def test_refusals_are_sentences_without_paths(browser: selenium.Chrome, page: str, tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png_bomb(20_000, 20_000))
    (tmp_path / "list.mp4").write_bytes(b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")
    (tmp_path / "cut.jpg").write_bytes(encode(make_image(640, 480), ".jpg")[:-1000])
    write_clip(tmp_path / "long.mp4", frames=22 * 5, fps=5)
    write_clip(tmp_path / "large.mp4", size=(2048, 1152), frames=2)
    (tmp_path / "..%2f..%2fetc.png").write_bytes(b"not an image")
    for name, words in [
        ("bomb.png", "40.0 million pixels"),
        ("list.mp4", "neither an image nor a video"),
        ("cut.jpg", "cut off"),
        ("long.mp4", "longer than 20 seconds"),
        ("large.mp4", "2.1 million pixels"),
        ("..%2f..%2fetc.png", "neither an image nor a video"),
    ]:
        open_page(browser, page)
        upload(browser, tmp_path / name)
        wait_until(lambda: read_errors(browser))
        assert words in read_errors(browser)[0]
        assert name in read_errors(browser)[0]
        assert tempfile.gettempdir() not in read_errors(browser)[0]
        assert result_key(browser) is None
    browser.save_screenshot(str(SHOTS / "web_refused.png"))
    with (tmp_path / "huge.mp4").open("wb") as file:
        file.truncate(60_000_000)
    open_page(browser, page)
    upload(browser, tmp_path / "huge.mp4")
    wait_until(lambda: "must be 50.0MB or smaller" in read_text(browser))


def test_closing_the_tab_ends_the_job(browser: selenium.Chrome, page: str, temporary: Path, tmp_path: Path) -> None:
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    open_page(browser, page)
    write_clip(tmp_path / "clip.mp4", size=(640, 360), frames=480)
    upload(browser, tmp_path / "clip.mp4")
    wait_until(lambda: "Frame " in read_text(browser), 150)
    assert list(temporary.glob("deblur-web-*"))
    browser.close()
    browser.switch_to.window(first)
    wait_until(lambda: not list(temporary.glob("deblur-web-*")), 5)
    open_page(browser, page)
    press(browser, "Image 1")
    wait_until(lambda: result_key(browser))


def test_reports_tab(browser: selenium.Chrome, page: str) -> None:
    for size in ((1400, 900), (390, 844)):
        with window(browser, *size):
            open_page(browser, page)
            press(browser, "Benchmarks")
            wait_until(lambda: browser.find_elements(By.CSS_SELECTOR, "iframe"))
            assert "with the networks of this page" in read_text(browser)
            browser.switch_to.frame(browser.find_element(By.CSS_SELECTOR, "iframe"))
            wait_until(lambda: "PSNR" in read_text(browser))
            browser.switch_to.default_content()
            save_shot(browser, f"web_benchmarks_{size[0]}")
            assert lowest_edge(browser, "iframe") <= size[1]
            assert not list_cut_off(browser)


def test_reports_of_the_engines_on_the_page_come_first(tmp_path: Path) -> None:
    assert find_reports(tmp_path, frozenset()) == []
    for name, date, engine in (("a", "2026-02-01", "old"), ("b", "2026-01-01", "new"), ("c", "2026-01-02", "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.html").touch()
        results = {"restored": [{"name": "wiener"}, {"name": "edge", "engine": {"sha256": engine}}]}
        document = {"made_at": f"{date}T10:00:00Z", "results": results}
        (tmp_path / name / "quality.json").write_text(json.dumps(document))
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "report.html").touch()
    (tmp_path / "d" / "quality.json").write_text('["no object"]')
    reports = find_reports(tmp_path, frozenset({"new"}))
    assert [(report.page.parent.name, report.date, report.is_current) for report in reports] == [
        ("c", "2026-01-02", True),
        ("b", "2026-01-01", True),
        ("a", "2026-02-01", False),
        ("d", "", False),
    ]


def test_errors_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--engine", str(tmp_path / "none.onnx")]) == 4
    assert "no such engine" in capsys.readouterr().err
    import socket

    with socket.create_server(("127.0.0.1", 0)) as other:
        assert main(["--serve", str(other.getsockname()[1])]) == 2
    assert "cannot serve" in capsys.readouterr().err
    assert build_parser().parse_args([]).serve == Address("127.0.0.1", 8501)
    assert build_parser().parse_args(["--engine", "edge-s"]).engine == [BUNDLED]
    with pytest.raises(SystemExit, match="2"):
        build_parser().parse_args(["--allow-host", "https://deblur.example.org:443/"])
    assert "expected a host name" in capsys.readouterr().err


def test_settings_survive_json(tmp_path: Path) -> None:
    settings = Settings(engines=("a.onnx",), provider="cpu", address=Address("::1", 1), other_names=("a", "b"))
    assert Settings.from_json(settings.to_json()) == settings
    settings = add_benchmarks(settings)
    assert Path(settings.sample_blurred or "") == DEMO_CLIP
    assert Settings.from_json(settings.to_json()) == settings


def test_page_without_the_benchmarks_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """No samples are shown, and the tab of the benchmarks says that there are none."""
    settings = Settings(engines=(str(BUNDLED),), provider="cpu")
    monkeypatch.setattr("runtime.web.__main__.find_spec", lambda _: None)
    assert add_benchmarks(settings) == settings
    facts = {"spec": EngineSpec(name="test").to_dict(), "backend": "test"}
    queue = SimpleNamespace(limits=Limits(), engines={str(BUNDLED): facts})
    monkeypatch.setattr("runtime.web.job_queue.JobQueue", lambda *_, **__: queue)
    monkeypatch.setattr(sys, "argv", ["page.py", settings.to_json()])
    page = AppTest.from_file(str(PAGE), default_timeout=60).run()
    assert not page.exception
    assert not page.button
    assert [info.value for info in page.info] == [NO_REPORTS]
