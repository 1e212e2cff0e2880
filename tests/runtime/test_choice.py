"""Choice of the fastest engine in a folder that keeps its budget."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import time
from pathlib import Path

import pytest

from runtime.engines import timing
from runtime.engines.base import Engine, SynchronousEngine
from runtime.engines.choice import choose_engine, rejection_reason
from runtime.engines.timing import median_ms_per_frame, trial_frame
from runtime.errors import EngineError
from runtime.frame import Pixels
from runtime.spec import EngineSpec
from runtime.video import main
from tests.conftest import write_engine

GOOD = EngineSpec(name="good", precision="int8", loss_db=0.1, budget_db=0.3)


class PacedEngine(SynchronousEngine):
    """Engine with a known time per frame, which records whether it was closed."""

    backend, provider = "test", "cpu"

    def __init__(self, milliseconds: float, spec: EngineSpec) -> None:
        super().__init__()
        self.spec, self.closed, self.frames = spec, False, 0
        self.milliseconds = milliseconds

    def infer(self, batch: Pixels) -> Pixels:
        assert not self.closed
        assert self.spec.accepts(width=batch.shape[2], height=batch.shape[1])
        if self.spec.name == "fails":
            raise EngineError("engine failed on a frame", hint="")
        time.sleep(self.milliseconds / 1e3)
        self.frames += 1
        return batch

    def close(self) -> None:
        self.closed = True


class EngineFolder:
    """Folder of engines given as name=(milliseconds, spec); the engine `broken` cannot be opened."""

    def __init__(self, folder: Path, **engines: tuple[float, EngineSpec]) -> None:
        self.folder, self.engines, self.opened = folder, engines, []
        for name in engines:
            (folder / f"{name}.onnx").touch()

    def open(self, path: Path) -> Engine:
        if path.stem == "broken":
            raise EngineError("not an engine", path, hint="")
        self.opened.append(PacedEngine(*self.engines[path.stem]))
        return self.opened[-1]

    def choose(self, **more: object) -> tuple[Engine, str]:
        engine, path, reason = choose_engine(self.folder, self.open, size=(64, 48), **more)
        assert reason.startswith(path.name)
        return engine, reason


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("runtime.engines.choice.TRIAL_S", 0.1)
    return tmp_path / "cache" / "deblur" / "engines.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "engines").mkdir()
    return tmp_path / "engines"


def test_fastest_engine_within_its_budget_is_chosen(folder: Path) -> None:
    poor, fails = dataclasses.replace(GOOD, loss_db=0.5), dataclasses.replace(GOOD, name="fails")
    engines = EngineFolder(
        folder, slow=(30, GOOD), fast=(10, GOOD), fastest_but_poor=(1, poor), broken=(1, GOOD), fails=(1, fails)
    )
    engine, why = engines.choose()
    assert [candidate.spec for candidate in engines.opened if not candidate.closed] == [engine.spec]
    assert not engine.closed
    assert why.index("fast.onnx") < why.index("slow.onnx")
    assert "fastest_but_poor.onnx: loses 0.50 dB, its budget is 0.30" in why
    assert "broken.onnx: not an engine" in why
    assert "fails.onnx: engine failed on a frame" in why


def test_engines_of_fixed_size_are_compared_by_the_time_of_a_frame_in_tiles(folder: Path) -> None:
    small, large = (dataclasses.replace(GOOD, width=(side, side), height=(side, side)) for side in (32, 64))
    engines = EngineFolder(folder, small=(10, small), large=(10, large))
    engine, why = engines.choose()
    assert engine.spec == large
    assert "large.onnx" in why
    EngineFolder(folder, whole=(100, GOOD))
    engines.engines["whole"] = (100, GOOD)
    assert engines.choose()[0].spec == GOOD  # a whole frame has no seams


def test_choice_is_cached_until_something_changes(folder: Path, cache: Path) -> None:
    engines = EngineFolder(folder, slow=(20, GOOD), fast=(5, GOOD))
    engines.choose()
    assert len(engines.opened) == 2
    assert list(json.loads(cache.read_text()).values()) == ["fast.onnx"]
    _, why = engines.choose()
    assert len(engines.opened) == 3
    assert "fast.onnx, as in the last trial here" in why
    engines.choose(settings=["other"])
    assert len(engines.opened) == 5
    (folder / "slow.onnx").write_bytes(b"another")
    engines.choose()
    assert len(engines.opened) == 7
    cache.write_text("junk")
    engines.choose()
    assert len(engines.opened) == 9
    assert json.loads(cache.read_text())


def test_a_copy_of_a_folder_needs_no_trial(folder: Path, tmp_path: Path) -> None:
    engines = EngineFolder(folder, slow=(20, GOOD), fast=(5, GOOD))
    lines: list[str] = []
    engines.choose(say=lines.append)
    assert lines == [f"trial   of the engines in {folder} with frames of 64x48, which may take a minute"]
    engines.folder = Path(shutil.copytree(folder, tmp_path / "copy"))
    _, why = engines.choose(say=lines.append)
    assert "as in the last trial" in why
    assert len(lines) == 1


def test_a_new_sidecar_of_a_plan_asks_for_a_new_trial(folder: Path) -> None:
    engines = EngineFolder(folder, slow=(20, GOOD), fast=(5, GOOD))
    (folder / "slow.onnx").rename(folder / "slow.plan")
    engines.choose()
    assert "as in the last trial" in engines.choose()[1]
    (folder / "slow.plan.json").write_text("{}")
    assert "as in the last trial" not in engines.choose()[1]


def test_an_engine_that_is_far_slower_is_not_measured_further(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure_roughly(engine: PacedEngine, frame: Pixels) -> float:
        engine.infer(frame)
        return engine.milliseconds

    monkeypatch.setattr("runtime.engines.choice._measure_roughly", measure_roughly)
    engines = EngineFolder(folder, fast=(10, GOOD), near=(19, GOOD), slow=(40, GOOD))
    _, why = engines.choose()
    counts = {name: engine.frames for name, engine in zip(sorted(engines.engines), engines.opened, strict=True)}
    assert counts["slow"] == 2  # the first shows that it works
    assert min(counts["fast"], counts["near"]) > 5
    assert re.fullmatch(r"fast\.onnx [\d.]+ ms, near\.onnx [\d.]+ ms; roughly slow\.onnx \d+ ms", why)


def test_cache_that_cannot_be_written_is_no_error(folder: Path, cache: Path) -> None:
    cache.parent.parent.write_text("a file where a folder should be")
    engines = EngineFolder(folder, fast=(5, GOOD))
    assert engines.choose()[0].spec == GOOD


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"precision": "fp32", "loss_db": None, "budget_db": None}, ""),
        ({"loss_db": None}, "its loss in dB was not measured"),
        ({"precision": "unknown", "budget_db": None}, "its loss in dB was not measured"),
        ({"loss_db": 0.31}, "loses 0.31 dB, its budget is 0.30"),
        ({"width": (128, 256)}, "does not accept frames of 64x48"),
    ],
)
def test_rejection_reason(changes: dict[str, object], words: str) -> None:
    assert rejection_reason(dataclasses.replace(GOOD, **changes), (64, 48)) == words


def test_folder_through_the_command_line(clip: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--engine", str(folder), "--source", str(clip), "--out", "null", "--provider", "cpu", "--guard", "off"]
    write_engine(folder / "unmeasured.onnx")
    assert main(arguments) == 4
    assert "no engine that can be used (unmeasured.onnx: its loss in dB was not measured)" in capsys.readouterr().err
    from runtime.engines import BUNDLED

    (folder / "bundled.onnx").write_bytes(BUNDLED.read_bytes())
    assert main(arguments) == 0
    assert "chosen  bundled.onnx, the only one that can be used; unmeasured.onnx: its loss" in capsys.readouterr().err
    assert main([*arguments, "--watch-engine"]) == 2
    assert "--watch-engine watches one engine" in capsys.readouterr().err


def test_spinning_threads_of_one_engine_do_not_slow_the_next_measurement() -> None:
    """Threads spin for 30 ms after a frame, as those of ONNX Runtime; an engine that runs meanwhile is half as fast."""
    until = 0.0

    class Spinning(PacedEngine):
        def infer(self, batch: Pixels) -> Pixels:
            nonlocal until
            super().infer(batch)
            until = time.perf_counter() + 0.03
            return batch

    class Disturbed(PacedEngine):
        def infer(self, batch: Pixels) -> Pixels:
            if time.perf_counter() < until:
                super().infer(batch)
            return super().infer(batch)

    spinning, disturbed = Spinning(30, GOOD), Disturbed(20, GOOD)  # apart by more than a busy machine adds
    times = median_ms_per_frame([spinning, disturbed], trial_frame((64, 48)))
    assert times[1] < times[0]


def test_a_block_of_a_slow_engine_ends_after_the_frame_that_a_second_passes_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The clock moves by 0.6 s with each frame, so that two frames are measured in a block instead of four."""
    clock_s, counts = 0.0, [0]

    class Slow(PacedEngine):
        def infer(self, batch: Pixels) -> Pixels:
            nonlocal clock_s
            clock_s += 0.6
            counts[-1] += 1
            return batch

    monkeypatch.setattr("runtime.engines.timing.perf_counter", lambda: clock_s)
    engine = Slow(0, GOOD)
    assert timing.measure_ms_per_frame(engine, trial_frame((64, 48)), 4) == pytest.approx(600)
    assert counts == [2]
    assert timing.measure_ms_per_frame(engine, trial_frame((64, 48)), 1) == pytest.approx(600)
    assert counts == [3]


@pytest.mark.parametrize(("planes_ms", "chosen"), [(12, "bgr"), (10.5, "planes"), (3, "planes")])
def test_an_engine_for_planes_unless_one_for_bgr_is_clearly_faster(
    planes_ms: float, chosen: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(engines: list[Engine], frames: list[Pixels], *, seconds: float) -> list[float]:
        shapes = {"bgr": (1, 48, 64, 3), "yuv420": (1, 72, 64)}
        assert [frame.shape for frame in frames] == [shapes[engine.spec.pixels] for engine in engines]
        return [planes_ms if engine.spec.pixels == "yuv420" else 10 for engine in engines]

    monkeypatch.setattr("runtime.engines.choice._measure_roughly", lambda *_: 1.0)
    monkeypatch.setattr("runtime.engines.choice.median_ms_per_frame", measure)
    planes = dataclasses.replace(GOOD, pixels="yuv420")
    engines = EngineFolder(folder, bgr=(0, GOOD), planes=(0, planes))
    engine, why = engines.choose(pixels="auto")
    assert why.startswith(chosen)
    assert engine.spec.pixels == ("yuv420" if chosen == "planes" else "bgr")
    assert ("engines for planes need no conversion of frames, worth 10%" in why) == (planes_ms == 10.5)
    assert engines.choose(pixels="bgr")[1].startswith("bgr")
    assert engines.choose(pixels="yuv420")[1].startswith("planes")
