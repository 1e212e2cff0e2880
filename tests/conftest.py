"""Small real media files and engines for all tests."""

from __future__ import annotations

import runtime  # noqa: F401 - loads OpenCV before PyAV, which windows need

# isort: split
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from runtime.engines.cuda import probe
from runtime.errors import EngineError
from tests.rig import reliability


def _has_gpu() -> bool:
    try:
        probe()
    except EngineError:
        return False
    return True


ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"
HAS_GPU = _has_gpu()
without_gpu = pytest.mark.skipif(HAS_GPU, reason="this machine has an NVIDIA driver")
DEMO_CLIP = ROOT / "benchmarks" / "clips" / "demo_blurred.mp4"


_OUTCOMES = pytest.StashKey[dict[reliability.Row, reliability.Outcome]]()
_UNPROVED = pytest.StashKey[list[str]]()
Survived = Callable[..., None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-reliability", action="store_true", help="write the table in docs/reliability.md")
    parser.addoption("--fuzz-seeds", metavar="FIRST[:LAST]", help="seeds of the fuzzers (default: a hundred)")
    parser.addoption("--write-files", action="store_true", help="write the tables in docs/files.md")
    parser.addoption("--write-plans", action="store_true", help="write the table of plans in docs/export.md")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_OUTCOMES], config.stash[_UNPROVED] = {}, []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if item.get_closest_marker("fault") and report.outcome != "passed":
        item.config.stash[_UNPROVED].append(f"{item.nodeid} {report.outcome}")
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the tables of docs/reliability.md; if that is not possible, print the reason and fail."""
    if not session.config.getoption("--write-reliability"):
        return
    why = "; ".join(session.config.stash[_UNPROVED]) or reliability.write_page(session.config.stash[_OUTCOMES])
    if why:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print(f"\nerror: {reliability.PAGE.name} was left as it is; {why}")


@pytest.fixture
def survived(request: pytest.FixtureRequest) -> Survived:
    """Return a function that records the result of the fault in the marker of this test, for docs/reliability.md."""
    marker = request.node.get_closest_marker("fault")
    row = reliability.Row(*marker.args, **marker.kwargs)

    def record(happened: str, *, code: int | None = None, lost: int | str | None = None) -> None:
        request.config.stash[_OUTCOMES].setdefault(row, reliability.Outcome()).add(happened, code, lost)

    return record


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that this machine cannot run; on CI only the tests that need a GPU may be skipped."""
    if not (HAS_GPU or os.environ.get("DEBLUR_REQUIRE_GPU") == "1"):
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU; DEBLUR_REQUIRE_GPU=1 makes this a failure"))
    if os.environ.get("CI"):
        return
    for item in items:
        if item.get_closest_marker("needs_shared_data") and not SHARED.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"no photographs and clips at {SHARED}"))
        if item.get_closest_marker("needs_screen") and not os.environ.get("DISPLAY"):
            item.add_marker(pytest.mark.skip(reason="no screen; try under xvfb-run"))


def make_image(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Return a smooth colourful image uint8[height, width, 3] that codecs keep well."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def write_clip(
    path: Path,
    *,
    size: tuple[int, int] = (64, 48),
    pts: list[int] | None = None,
    time_base: Fraction = Fraction(1, 12_800),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    audio: str | None = None,
    options: dict[str, str] | None = None,
) -> list[Fraction]:
    """Write a clip with the given time stamps (ten at 25 fps by default) and return them in seconds."""
    pts = pts if pts is not None else [512 * index for index in range(10)]
    with av.open(str(path), "w", options=options or {}) as container:
        video = container.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = *size, pix_fmt
        video.codec_context.time_base = time_base
        sound = container.add_stream(audio, rate=48_000, layout="mono") if audio else None
        for index, stamp in enumerate(pts):
            frame = av.VideoFrame.from_ndarray(make_image(*size, seed=index), format="bgr24")
            frame.pts, frame.time_base = stamp, time_base
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound is not None:
            samples = np.zeros((1, 48_000), np.float32 if sound.format.name.startswith("flt") else np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format=sound.format.name, layout="mono")
            frame.sample_rate, frame.pts = 48_000, 0
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return [stamp * time_base for stamp in pts]


def zero_packet(path: Path, index: int) -> None:
    """Overwrite a packet of a video with zeros."""
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        target = [packet for packet in container.demux(video=0) if packet.size][index]
    content[target.pos : target.pos + target.size] = bytes(target.size)
    path.write_bytes(content)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Ten frames of 64x48 at 25 fps, with a second of silence."""
    path = tmp_path / "clip.mp4"
    write_clip(path, audio="aac")
    return path


def write_engine(
    path: Path,
    *,
    nodes: list[onnx.NodeProto] | None = None,
    shape: tuple[object, ...] = ("n", "h", "w", 3),
    kind: int = TensorProto.UINT8,
    inputs: int = 1,
) -> Path:
    """Write an engine that inverts colours, or one of `nodes` that compute `y` from `x0`, and return its path."""
    white = helper.make_tensor("white", kind, [], [255])
    nodes = nodes or [helper.make_node("Sub", ["white", "x0"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(f"x{i}", kind, shape) for i in range(inputs)],
        [helper.make_tensor_value_info("y", kind, shape)],
        [white],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.fixture(scope="session")
def invert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine whose output is 255 minus its input: easy to recognise, fast to run."""
    return write_engine(tmp_path_factory.mktemp("engine") / "invert.onnx")


@pytest.fixture
def disk(tmp_path: Path) -> Callable[[int], Path]:
    """Return a function that mounts a disk of a size in kilobytes; skips the test without the permission."""
    import subprocess

    mounted: list[Path] = []

    def mount(kilobytes: int) -> Path:
        place = tmp_path / "disk"
        place.mkdir()
        options = ["-o", f"size={kilobytes}k", "tmpfs"]
        if subprocess.run(["mount", "-t", "tmpfs", *options, place], capture_output=True, check=False).returncode:  # noqa: S607
            pytest.skip("mounting a small disk needs root")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", place], check=True)  # noqa: S607
