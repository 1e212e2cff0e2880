"""Tiles: frames that an engine does not accept whole give the result of the whole frame, without seams."""

from __future__ import annotations

import tracemalloc
from collections import deque
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.engines import BUNDLED, open_backend
from runtime.engines.base import SynchronousEngine
from runtime.engines.tensorrt import TensorRtEngine
from runtime.engines.tile_layout import TileLayout
from runtime.engines.tiled import TiledEngine
from runtime.errors import OutOfMemoryError, UsageError
from runtime.frame import Pixels
from runtime.metrics import psnr_db
from runtime.spec import EngineSpec
from runtime.video import main
from tests.conftest import ROOT, make_image, write_engine
from tests.standin import install_stand_in, write_plan


class RecordingEngine(SynchronousEngine):
    """Engine that inverts frames of its range and records their sizes."""

    backend, provider = "recording", "cpu"

    def __init__(self, *, smallest: int = 1, largest: int = 65_535, memory: int = 1 << 40) -> None:
        super().__init__()
        self.spec = EngineSpec(name="recording", width=(smallest, largest), height=(smallest, largest))
        self.sizes: list[tuple[int, int]] = []
        self.memory = memory

    def infer(self, batch: Pixels) -> Pixels:
        height, width = batch.shape[1:3]
        assert self.spec.accepts(width=width, height=height)
        assert batch.flags.c_contiguous
        if batch.size > self.memory:
            raise OutOfMemoryError("not enough memory", hint="")
        self.sizes.append((width, height))
        return 255 - batch

    def close(self) -> None: ...


@pytest.mark.parametrize("length", [1, 63, 64, 65, 100, 127, 128, 129, 1000, 1921])
@pytest.mark.parametrize(("side", "overlap"), [(64, 0), (64, 32), (96, 16), (128, 1), (65_535, 32)])
@pytest.mark.parametrize("limits", [(1, 65_535), (80, 80), (16, 100)])
def test_tiles_cover_the_frame_and_overlap_enough(
    length: int, side: int, overlap: int, limits: tuple[int, int]
) -> None:
    layout = TileLayout.create(length, side, limits, overlap)
    assert limits[0] <= layout.side <= limits[1]
    assert layout.starts[0] == 0
    assert layout.starts[-1] + layout.side == layout.length >= length
    assert layout.starts[-1] < length  # every tile has a part of the frame
    assert (layout.side - np.diff(layout.starts) >= overlap).all()
    assert all(start % 32 == 0 for start in layout.starts)


def test_weights_are_never_zero_and_one_in_the_middle() -> None:
    weights = TileLayout(64, 64, [0]).weights(16)
    assert weights.min() > 0
    assert (weights[16:48] == 1).all()
    assert np.array_equal(weights, weights[::-1])


@pytest.mark.parametrize(("width", "height"), [(1, 1), (64, 64), (65, 300), (333, 217), (640, 64)])
@pytest.mark.parametrize("batch", [1, 3])
def test_tiles_of_a_pointwise_network_give_the_result_of_the_whole_frame(width: int, height: int, batch: int) -> None:
    engine = RecordingEngine(smallest=32, largest=128)
    frames = np.stack([make_image(width, height, seed=seed) for seed in range(batch)])
    assert np.array_equal(TiledEngine(engine).infer(frames), 255 - frames)
    assert all(32 <= side <= 128 for size in engine.sizes for side in size)


def test_frames_that_fit_go_whole_unless_a_tile_size_is_given() -> None:
    engine = RecordingEngine()
    TiledEngine(engine).infer(make_image(640, 360)[None])
    assert engine.sizes == [(640, 360)]
    tiled = TiledEngine(engine, tile=(256, 128), overlap_px=16)
    tiled.infer(make_image(640, 360)[None])
    assert set(engine.sizes[1:]) == {(256, 128)}  # all tiles have one size: engines prepare for each size anew
    assert len(engine.sizes) == 1 + 3 * 4
    assert "tiles of 256x128" in tiled.backend


@pytest.mark.parametrize(("tile", "overlap"), [((63, 64), 0), ((64, 64), 33), ((128, 128), -1), (None, -1)])
def test_tile_size_or_overlap_out_of_range_is_refused(tile: tuple[int, int] | None, overlap: int) -> None:
    with pytest.raises(UsageError, match="tiles must be at least 64 pixels"):
        TiledEngine(RecordingEngine(), tile=tile, overlap_px=overlap)


def test_out_of_memory_changes_to_smaller_tiles_once() -> None:
    messages: list[str] = []
    engine = RecordingEngine(memory=640 * 360 * 3 - 1)
    tiled = TiledEngine(engine, say=messages.append)
    for _ in range(2):
        assert np.array_equal(tiled.infer(make_image(640, 360)[None]), 255 - make_image(640, 360)[None])
    assert set(engine.sizes) == {(320, 180)}
    assert len(messages) == 1
    with pytest.raises(OutOfMemoryError):
        TiledEngine(RecordingEngine(memory=1000)).infer(make_image(640, 360)[None])


def test_tiles_take_little_memory_besides_the_frame_and_its_result() -> None:
    frame = make_image(1600, 1600)[None]
    tiled = TiledEngine(RecordingEngine(), tile=(128, 128))
    tracemalloc.start()
    result = tiled.infer(frame)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(result, 255 - frame)
    assert peak < 2 * frame.nbytes  # the result itself, and the rows of the current tiles


class LateEngine(RecordingEngine):
    """Engine with three slots that raises the error of a frame when the frame is collected."""

    slots = 3

    def __init__(self, memory: int) -> None:
        super().__init__(memory=memory)
        self.submitted: deque[Pixels] = deque()

    def submit(self, batch: Pixels) -> None:
        self.submitted.append(batch)

    def collect(self) -> Pixels:
        return self.infer(self.submitted.popleft())


def test_out_of_memory_with_all_slots_busy_loses_no_frame() -> None:
    messages: list[str] = []
    tiled = TiledEngine(LateEngine(memory=640 * 360 * 3 - 1), say=messages.append)
    frames = [make_image(640, 360, seed=seed)[None] for seed in range(6)]
    for frame in frames[:3]:
        tiled.submit(frame)
    results = [tiled.collect()]
    for frame in frames[3:]:
        tiled.submit(frame)
        results.append(tiled.collect())
    results += [tiled.collect() for _ in range(2)]
    for frame, result in zip(frames, results, strict=True):
        assert np.array_equal(result, 255 - frame)
    assert len(messages) == 1


def photograph() -> Pixels:
    image = cv2.imread(str(ROOT / "calib_data" / "held_out" / "blur" / "chelsea_2.jpg"))
    return cv2.resize(image, (500, 390))


def test_no_visible_seam() -> None:
    """The difference between tiles and the whole frame is small, and has no step where tiles meet.

    At the right and lower border it may be larger, because the last tiles extend the frame there. It is not zero
    inside either: the receptive field of the bundled engine is larger than the overlap.
    """
    engine = open_backend(BUNDLED.with_name("edge-s_fp32.onnx"), provider="cpu")
    frame = photograph()[None]
    whole = engine.infer(frame)[0]
    tiled = TiledEngine(engine, tile=(256, 256)).infer(frame)[0]
    assert psnr_db(tiled, whole) > 45
    difference = (tiled.astype(int) - whole)[:-32, :-32]
    columns = np.abs(np.diff(difference, axis=1)).mean(axis=(0, 2))
    assert columns.max() < 1  # less than one code value per column is not visible


def test_seam_without_overlap_is_detected() -> None:
    """The measure of the test above does find a seam."""
    engine = open_backend(BUNDLED.with_name("edge-s_fp32.onnx"), provider="cpu")
    frame = photograph()[None]
    whole = engine.infer(frame)[0]
    without_overlap = TiledEngine(engine, tile=(256, 256), overlap_px=0).infer(frame)[0]
    difference = (without_overlap.astype(int) - whole)[:-32, :-32]
    assert np.abs(np.diff(difference, axis=1)).mean(axis=(0, 2)).max() > 3


def test_slots_of_the_engine_are_used(invert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames that fit use all slots of the plan; a frame in tiles keeps its place in the order."""
    install_stand_in(monkeypatch)
    small = write_engine(tmp_path / "small.onnx", shape=("n", 48, 64, 3))
    engine = TiledEngine(TensorRtEngine(write_plan(small, tmp_path), mode="throughput"))
    assert engine.slots == 3
    frames = [make_image(*size, seed=seed)[None] for seed, size in enumerate([(64, 48), (64, 48), (150, 90), (64, 48)])]
    for frame in frames[:3]:
        engine.submit(frame)
    assert np.array_equal(engine.collect(), 255 - frames[0])
    engine.submit(frames[3])
    for frame in frames[1:]:
        assert np.array_equal(engine.collect(), 255 - frame)
    engine.close()


def test_tiles_through_the_command_line(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fixed = write_engine(tmp_path / "fixed.onnx", shape=(1, 32, 40, 3))
    source = tmp_path / "a.png"
    cv2.imwrite(str(source), make_image(101, 77))
    out = tmp_path / "out.png"
    assert main(["--engine", str(fixed), "--source", str(source), "--out", str(out), "--guard=off"]) == 0
    assert np.array_equal(cv2.imread(str(out)), 255 - make_image(101, 77))
    assert main(["--source", str(source), "--out", str(out), "-y", "--tile", "64x64", "--overlap", "8"]) == 0
    assert "tiles of 64x64" in capsys.readouterr().err
    assert main(["--source", str(clip), "--out", "null", "--tile", "8x8"]) == 2
    assert "tiles must be at least 64 pixels" in capsys.readouterr().err
