"""Colour bars of every matrix and range, on their whole way as planes, and where planes become BGR."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from export.graph.pixel_interface import View
from runtime.colour import ColourTags, bgr_from_video_frame
from runtime.frame import Pixels
from runtime.monitor.stream import _encode_pair
from runtime.spec import EngineSpec
from runtime.video import main
from runtime.yuv420 import Yuv420
from tests.export.test_yuv420_graph import make_engine, make_scaling_core

MATRICES = {6: (0.299, 0.114), 1: (0.2126, 0.0722), 9: (0.2627, 0.0593)}
"""Weights of red and blue in luma: ITU-R BT.601, BT.709 and BT.2020, by the code points of ITU-T H.273."""
BAR_PX = 32
COLOURS = [(blue, green, red) for blue in (16, 235) for green in (16, 235) for red in (16, 235)]
BARS = np.repeat(np.array(COLOURS, np.uint8), BAR_PX, axis=0)[np.newaxis].repeat(32, axis=0)
INNER = np.arange(BARS.shape[1]).reshape(-1, BAR_PX)[:, 8:-8].ravel()
"""Columns away from the edges of bars, where chroma is of two colours."""

each_meaning = pytest.mark.parametrize(
    "colour",
    [
        pytest.param(ColourTags(matrix=matrix, is_full_range=full), id=f"{matrix}-{'full' if full else 'limited'}")
        for matrix in MATRICES
        for full in (False, True)
    ],
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an engine for planes of a network that changes nothing: its residual is zero."""
    model = make_engine(make_scaling_core(1.0), View((0.0, 1.0), 1))
    model.metadata_props[0].value = EngineSpec(name="zero", pixels="yuv420").to_json()
    path = tmp_path_factory.mktemp("engine") / "zero_yuv420.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def compute_codes(colour: ColourTags) -> np.ndarray:
    """Return Y, U and V of each bar by the formulas of the recommendations, rounded: float64[8, 3]."""
    kr, kb = MATRICES[colour.matrix]
    blue, green, red = np.array(COLOURS).T / 255
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = [(blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))]
    black, luma_codes, chroma_codes = (0, 255, 255) if colour.is_full_range else (16, 219, 224)
    return np.rint(np.stack([black + luma_codes * luma, *(128 + chroma_codes * plane for plane in chroma)], axis=1))


def write_bars(path: Path, colour: ColourTags) -> Yuv420:
    """Write three frames of bars without loss, tagged, and return their planes."""
    planes = Yuv420.from_bgr(BARS, colour)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *planes.size, "yuv420p"
        stream.codec_context.options = {"qp": "0"}
        colour.tag(stream.codec_context)
        for index in range(3):
            frame = planes.to_video_frame()
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return planes


def decode(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def restore(source: Path, out: Path | str, engine: Path, *arguments: str) -> None:
    assert (
        main(["--source", str(source), "--out", str(out), "--engine", str(engine), "--provider", "cpu", *arguments])
        == 0
    )


def difference(image: Pixels, other: Pixels) -> int:
    return int(np.abs(image[:, INNER].astype(int) - other[:, INNER]).max())


@each_meaning
def test_planes_of_bars_are_those_of_the_recommendations(colour: ColourTags) -> None:
    planes, codes = Yuv420.from_bgr(BARS, colour), compute_codes(colour)
    middle = np.arange(8) * BAR_PX + BAR_PX // 2
    assert np.abs(planes.luma[10, middle] - codes[:, 0]).max() <= 1
    assert np.abs(planes.chroma[:, 10, middle // 2].T - codes[:, 1:]).max() <= 1
    assert difference(planes.bgr, BARS) <= 2


@each_meaning
def test_bars_go_from_decoder_to_encoder_unchanged(colour: ColourTags, engine: Path, tmp_path: Path) -> None:
    planes = write_bars(tmp_path / "in.mp4", colour)
    restore(tmp_path / "in.mp4", tmp_path / "out.mp4", engine, "--crf", "0", "--side-by-side")
    (source, *_), frames = decode(tmp_path / "in.mp4"), decode(tmp_path / "out.mp4")
    assert np.array_equal(Yuv420.from_video_frame(source).planes, planes.planes)
    assert len(frames) == 3
    for frame in frames:
        assert (frame.colorspace, frame.color_range) == (colour.matrix, colour.range)
        both = Yuv420.from_video_frame(frame)
        width = planes.size[0]
        for half in (slice(None, width), slice(width, None)):
            assert np.array_equal(both.luma[:, half], planes.luma)
        for half in (slice(None, width // 2), slice(width // 2, None)):
            assert np.array_equal(both.chroma[:, :, half], planes.chroma)
        shown = bgr_from_video_frame(frame)
        assert difference(shown[:, :width], bgr_from_video_frame(source)) <= 1
        assert difference(shown[:, :width], BARS) <= 2


@each_meaning
def test_images_out_of_planes_have_the_colours_of_libswscale(colour: ColourTags, engine: Path, tmp_path: Path) -> None:
    write_bars(tmp_path / "in.mp4", colour)
    restore(tmp_path / "in.mp4", f"{tmp_path / 'frames'}/", engine, "--pixels", "yuv420")
    expected = bgr_from_video_frame(decode(tmp_path / "in.mp4")[0])
    paths = sorted((tmp_path / "frames").iterdir())
    assert len(paths) == 3
    for path in paths:
        assert difference(np.asarray(cv2.imread(str(path)), np.uint8), expected) <= 1


@each_meaning
def test_the_status_page_shows_the_colours_of_planes(colour: ColourTags) -> None:
    planes = Yuv420.from_bgr(BARS, colour)
    shown, expected = (
        np.asarray(cv2.imdecode(np.frombuffer(pair.jpeg, np.uint8), cv2.IMREAD_COLOR), np.uint8)
        for pair in (_encode_pair((image, image), 0, BARS.shape[1]) for image in (planes, BARS))
    )
    assert shown.shape == expected.shape
    for half in (slice(None, BARS.shape[1]), slice(-BARS.shape[1], None)):
        # JPEG spreads the edges of bars, which 4:2:0 has blurred; another matrix differs by 21 and more.
        assert difference(shown[:, half], expected[:, half]) <= 12


@each_meaning
def test_planes_and_bgr_give_the_same_colours(colour: ColourTags, engine: Path, invert: Path, tmp_path: Path) -> None:
    """The engine for BGR inverts, and is applied twice."""
    write_bars(tmp_path / "in.mp4", colour)
    restore(tmp_path / "in.mp4", tmp_path / "planes.mp4", engine, "--crf", "0")
    for source, out in (("in", "once"), ("once", "bgr")):
        restore(tmp_path / f"{source}.mp4", tmp_path / f"{out}.mp4", invert, "--crf", "0", "--guard", "off")
    one, other = (bgr_from_video_frame(decode(tmp_path / f"{name}.mp4")[0]) for name in ("planes", "bgr"))
    assert difference(one, other) <= 2
