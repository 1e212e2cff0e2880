"""Tiles of planes: the same frames as without tiles, luma and chroma alike."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from runtime.colour import BT709
from runtime.engines import BUNDLED, open_backend, open_engine
from runtime.engines.base import SynchronousEngine, frame_size
from runtime.engines.blending import cut_tile, view_layers
from runtime.engines.tile_layout import TileLayout
from runtime.engines.tiled import TiledEngine
from runtime.errors import OutOfMemoryError
from runtime.frame import Pixels
from runtime.metrics import psnr_db
from runtime.spec import EngineSpec
from runtime.video import main
from runtime.yuv420 import Yuv420
from tests.conftest import ROOT, make_image, write_clip, write_engine
from tests.standin import install_stand_in, write_plan

SHAPE = ("n", "rows", "w")


class RecordingEngine(SynchronousEngine):
    """Engine that inverts the codes of planes in its range and records their sizes."""

    backend, provider = "recording", "cpu"

    def __init__(self, *, smallest: int = 1, largest: int = 65_535, memory: int = 1 << 40) -> None:
        super().__init__()
        sides = (smallest, largest)
        self.spec = EngineSpec(name="recording", pixels="yuv420", width=sides, height=sides)
        self.sizes: list[tuple[int, int]] = []
        self.memory = memory

    def infer(self, batch: Pixels) -> Pixels:
        width, height = frame_size(batch)
        assert self.spec.accepts(width=width, height=height)
        assert width % 2 == height % 2 == 0
        if batch.size > self.memory:
            raise OutOfMemoryError("not enough memory", hint="")
        self.sizes.append((width, height))
        return 255 - batch

    def close(self) -> None: ...


def make_planes(width: int, height: int, seed: int = 0) -> Pixels:
    return Yuv420.from_bgr(make_image(width, height, seed), BT709).planes


@pytest.mark.parametrize("length", [2, 64, 66, 100, 128, 130, 1000, 1922])
@pytest.mark.parametrize(("side", "overlap"), [(64, 0), (65, 32), (97, 15), (65_535, 32)])
@pytest.mark.parametrize("limits", [(1, 65_535), (80, 80), (15, 101)])
def test_tiles_begin_and_end_on_even_rows(length: int, side: int, overlap: int, limits: tuple[int, int]) -> None:
    layout = TileLayout.create(length, side, limits, overlap, multiple_of=2)
    assert limits[0] <= layout.side <= limits[1]
    assert layout.starts[-1] + layout.side == layout.length >= length
    assert (layout.side - np.diff(layout.starts) >= overlap).all()
    assert all(value % 2 == 0 for value in (layout.side, layout.length, *layout.starts))


def test_a_tile_has_the_chroma_of_its_luma() -> None:
    frame = Yuv420(make_planes(80, 60), BT709)
    tile = Yuv420(cut_tile(frame.planes[np.newaxis], 40, 50, 32, 64)[0], BT709)
    assert tile.size == (64, 32)
    assert np.array_equal(tile.luma[:20, :30], frame.luma[40:, 50:])
    assert np.array_equal(tile.chroma[:, :10, :15], frame.chroma[:, 20:, 25:])
    for layer in view_layers(tile.planes[np.newaxis]):  # what lies beyond the frame repeats its end
        assert (layer[:, -1] == layer[:, layer.shape[1] * 20 // 32 - 1]).all()
        assert (layer[:, :, -1] == layer[:, :, layer.shape[2] * 30 // 64 - 1]).all()


@pytest.mark.parametrize(("width", "height"), [(2, 2), (64, 64), (66, 300), (334, 218), (640, 64)])
@pytest.mark.parametrize("batch", [1, 3])
def test_tiles_of_a_pointwise_network_give_the_result_of_the_whole_frame(width: int, height: int, batch: int) -> None:
    engine = RecordingEngine(smallest=31, largest=129)
    frames = np.stack([make_planes(width, height, seed=seed) for seed in range(batch)])
    assert np.array_equal(TiledEngine(engine).infer(frames), 255 - frames)
    assert all(32 <= side <= 128 for size in engine.sizes for side in size)


def test_frames_that_fit_go_whole_unless_a_tile_size_is_given() -> None:
    engine, frames = RecordingEngine(), make_planes(640, 360)[np.newaxis]
    TiledEngine(engine).infer(frames)
    assert engine.sizes == [(640, 360)]
    tiled = TiledEngine(engine, tile=(257, 129), overlap_px=16)
    assert np.array_equal(tiled.infer(frames), 255 - frames)
    assert engine.sizes[1:] == [(256, 128)] * 12


def test_out_of_memory_changes_to_smaller_tiles_once() -> None:
    messages: list[str] = []
    frames = make_planes(642, 362)[np.newaxis]
    engine = RecordingEngine(memory=frames.size - 1)
    tiled = TiledEngine(engine, say=messages.append)
    for _ in range(2):
        assert np.array_equal(tiled.infer(frames), 255 - frames)
    assert set(engine.sizes) == {(320, 180)}
    assert messages == ["warning: not enough memory for 642x362, taken in tiles of half that size"]
    with pytest.raises(OutOfMemoryError):
        TiledEngine(RecordingEngine(memory=1000)).infer(frames)


@pytest.mark.parametrize("overlap_px", [32, 0])
def test_no_visible_seam(overlap_px: int) -> None:
    """Neither luma nor chroma has a step where tiles meet; without an overlap it has, which the measure notices."""
    engine = open_backend(BUNDLED.with_name("edge-s_int8_cpu_yuv420.onnx"), provider="cpu")
    image = cv2.imread(str(ROOT / "calib_data" / "held_out" / "blur" / "chelsea_2.jpg"))
    frame = Yuv420.from_bgr(np.asarray(cv2.resize(image, (500, 390)), np.uint8), BT709).planes[np.newaxis]
    whole = engine.infer(frame)
    tiled = TiledEngine(engine, tile=(256, 256), overlap_px=overlap_px).infer(frame)
    steps = []
    for one, other in zip(view_layers(tiled), view_layers(whole), strict=True):
        difference = (one.astype(int) - other)[0, :-32, :-32, 0]
        steps.append(np.abs(np.diff(difference, axis=1)).mean(axis=0).max())
    if overlap_px:
        assert psnr_db(tiled[0], whole[0]) > 45
        assert max(steps) < 1
    else:
        assert steps[0] > 2


def test_a_plan_for_smaller_frames_takes_larger_ones_in_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_stand_in(monkeypatch)
    small = write_engine(tmp_path / "small_yuv420.onnx", shape=("n", 72, 64))
    with open_engine(write_plan(small, tmp_path), mode="throughput") as engine:
        assert engine.spec.pixels == "yuv420"
        frames = [make_planes(*size)[np.newaxis] for size in [(64, 48), (64, 48), (150, 90), (2, 2)]]
        for frame in frames:
            assert np.array_equal(engine.infer(frame), 255 - frame)


def test_tiles_of_a_video_through_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_engine(tmp_path / "fixed.onnx", shape=(1, 32, 40, 3))
    write_engine(tmp_path / "fixed_yuv420.onnx", shape=(1, 48, 40))
    write_clip(tmp_path / "clip.mp4", size=(102, 78), pts=[0, 512])
    out = tmp_path / "out.mp4"
    arguments = ["--engine", str(tmp_path / "fixed.onnx"), "--source", str(tmp_path / "clip.mp4"), "--out", str(out)]
    assert main([*arguments, "--guard=off", "--tile", "64x64", "--overlap", "8"]) == 0
    assert "pixels  4:2:0, as decoded" in capsys.readouterr().err
    with av.open(str(tmp_path / "clip.mp4")) as source, av.open(str(out)) as result:
        for frame, restored in zip(source.decode(video=0), result.decode(video=0), strict=True):
            difference = restored.to_ndarray().astype(int) - (255 - frame.to_ndarray())
            assert np.abs(difference).mean() < 2  # x264 loses a little
