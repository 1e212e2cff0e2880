"""Tiles: the whole frame's picture without seams, for frames that an engine does not take whole."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.engines import BUNDLED, open_engine
from runtime.engines.base import OneAtATime
from runtime.engines.tensorrt import TensorRtEngine
from runtime.engines.tiled import TiledEngine, _Cut
from runtime.errors import OutOfMemoryError, UsageError
from runtime.frame import Pixels
from runtime.metrics import psnr_db
from runtime.spec import EngineSpec
from runtime.video import main
from tests.conftest import ROOT, picture, write_engine
from tests.standin import put_in_place, write_plan


class Noting(OneAtATime):
    """Inverts frames of its range, and notes their sizes."""

    backend = "noting"

    def __init__(self, *, least: int = 1, most: int = 65_535, memory: int = 1 << 40) -> None:
        super().__init__()
        self.spec = EngineSpec(name="noting", width=(least, most), height=(least, most))
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
def test_tiles_cover_everything_and_overlap_enough(
    length: int, side: int, overlap: int, limits: tuple[int, int]
) -> None:
    cut = _Cut.of(length, side, limits, overlap)
    assert limits[0] <= cut.side <= limits[1]
    assert cut.starts[0] == 0
    assert cut.starts[-1] + cut.side == cut.length >= length
    assert cut.starts[-1] < length  # no tile beyond the frame
    assert (cut.side - np.diff(cut.starts) >= overlap).all()
    assert all(start % 32 == 0 for start in cut.starts)


def test_weights_are_never_zero_and_full_in_the_middle() -> None:
    ramp = _Cut(64, 64, [0]).ramp(16)
    assert ramp.min() > 0
    assert (ramp[16:48] == 1).all()
    assert np.array_equal(ramp, ramp[::-1])


@pytest.mark.parametrize(("width", "height"), [(1, 1), (64, 64), (65, 300), (333, 217), (640, 64)])
@pytest.mark.parametrize("batch", [1, 3])
def test_pointwise_work_is_the_same_in_tiles(width: int, height: int, batch: int) -> None:
    engine = Noting(least=32, most=128)
    frames = np.stack([picture(width, height, seed=seed) for seed in range(batch)])
    assert np.array_equal(TiledEngine(engine).infer(frames), 255 - frames)
    assert all(32 <= side <= 128 for size in engine.sizes for side in size)


def test_frames_that_fit_go_whole_unless_tiles_are_asked_for() -> None:
    engine = Noting()
    TiledEngine(engine).infer(picture(640, 360)[None])
    assert engine.sizes == [(640, 360)]
    asked = TiledEngine(engine, tile=(256, 128), overlap_px=16)
    asked.infer(picture(640, 360)[None])
    assert set(engine.sizes[1:]) == {(256, 128)}  # engines prepare for each size anew
    assert len(engine.sizes) == 1 + 3 * 4
    assert "tiles of 256x128" in asked.backend


@pytest.mark.parametrize(("tile", "overlap"), [((63, 64), 0), ((64, 64), 33), ((128, 128), -1), (None, -1)])
def test_tiles_that_cannot_be_are_refused(tile: tuple[int, int] | None, overlap: int) -> None:
    with pytest.raises(UsageError, match="tiles must be at least 64 pixels"):
        TiledEngine(Noting(), tile=tile, overlap_px=overlap)


def test_too_little_memory_is_answered_once_with_smaller_tiles() -> None:
    said: list[str] = []
    engine = Noting(memory=640 * 360 * 3 - 1)
    tiled = TiledEngine(engine, say=said.append)
    for _ in range(2):
        assert np.array_equal(tiled.infer(picture(640, 360)[None]), 255 - picture(640, 360)[None])
    assert set(engine.sizes) == {(320, 180)}
    assert len(said) == 1
    with pytest.raises(OutOfMemoryError):
        TiledEngine(Noting(memory=1000)).infer(picture(640, 360)[None])


class Late(Noting):
    """Frames are under way together, and what is wrong with one is told when it is collected."""

    slots = 3

    def __init__(self, memory: int) -> None:
        super().__init__(memory=memory)
        self.given: deque[Pixels] = deque()

    def submit(self, batch: Pixels) -> None:
        self.given.append(batch)

    def collect(self) -> Pixels:
        return self.infer(self.given.popleft())


def test_too_little_memory_for_frames_under_way_together_loses_none_of_them() -> None:
    said: list[str] = []
    tiled = TiledEngine(Late(memory=640 * 360 * 3 - 1), say=said.append)
    frames = [picture(640, 360, seed=seed)[None] for seed in range(6)]
    for frame in frames[:3]:
        tiled.submit(frame)
    results = [tiled.collect()]
    for frame in frames[3:]:
        tiled.submit(frame)
        results.append(tiled.collect())
    results += [tiled.collect() for _ in range(2)]
    for frame, result in zip(frames, results, strict=True):
        assert np.array_equal(result, 255 - frame)
    assert len(said) == 1


def photograph() -> Pixels:
    found = cv2.imread(str(ROOT / "calib_data" / "held_out" / "blur" / "chelsea_2.jpg"))
    return cv2.resize(found, (500, 390))


def test_no_seam_shows() -> None:
    """Where tiles meet, what differs from the whole frame's picture is small, and no step.

    At the right and lower border it may differ: the last tiles see the frame continued there. The bundled engine
    sees further than the overlap, so that tiles do differ from the whole a little everywhere.
    """
    engine = open_engine(BUNDLED.with_name("edge-s_fp32.onnx"), provider="cpu")
    frame = photograph()[None]
    whole = engine.infer(frame)[0]
    tiled = TiledEngine(engine, tile=(256, 256)).infer(frame)[0]
    assert psnr_db(tiled, whole) > 45
    difference = (tiled.astype(int) - whole)[:-32, :-32]
    columns = np.abs(np.diff(difference, axis=1)).mean(axis=(0, 2))
    assert columns.max() < 1  # a step of a code along a whole column: nothing that an eye finds


def test_without_overlap_a_seam_would_show() -> None:
    """The measure above finds what it is meant to find."""
    engine = open_engine(BUNDLED.with_name("edge-s_fp32.onnx"), provider="cpu")
    frame = photograph()[None]
    whole = engine.infer(frame)[0]
    hard = TiledEngine(engine, tile=(256, 256), overlap_px=0).infer(frame)[0]
    difference = (hard.astype(int) - whole)[:-32, :-32]
    assert np.abs(np.diff(difference, axis=1)).mean(axis=(0, 2)).max() > 3


def test_a_plans_slots_are_used_through_it(invert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames that fit are under way together; one that does not fit comes back in its turn."""
    put_in_place(monkeypatch)
    small = write_engine(tmp_path / "small.onnx", shape=("n", 48, 64, 3))
    engine = TiledEngine(TensorRtEngine(write_plan(small, tmp_path), mode="throughput"))
    assert engine.slots == 3
    frames = [picture(*size, seed=seed)[None] for seed, size in enumerate([(64, 48), (64, 48), (150, 90), (64, 48)])]
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
    cv2.imwrite(str(source), picture(101, 77))
    out = tmp_path / "out.png"
    assert main(["--engine", str(fixed), "--source", str(source), "--out", str(out), "--guard=off"]) == 0
    assert np.array_equal(cv2.imread(str(out)), 255 - picture(101, 77))
    assert main(["--source", str(source), "--out", str(out), "-y", "--tile", "64x64", "--overlap", "8"]) == 0
    assert "tiles of 64x64" in capsys.readouterr().err
    assert main(["--source", str(clip), "--out", "null", "--tile", "8x8"]) == 2
    assert "tiles must be at least 64 pixels" in capsys.readouterr().err
