"""The fastest engine of a folder that is good enough."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import pytest

from runtime.engines.base import Engine, OneAtATime
from runtime.engines.choice import choose, unfit
from runtime.engines.trial import median_ms, trial_frame
from runtime.errors import EngineError
from runtime.frame import Pixels
from runtime.spec import EngineSpec
from runtime.video import main
from tests.conftest import write_engine

GOOD = EngineSpec(name="good", precision="int8", loss_db=0.1, budget_db=0.3)


class Paced(OneAtATime):
    """An engine that takes so long, and knows whether it was closed."""

    backend = "test"

    def __init__(self, milliseconds: float, spec: EngineSpec) -> None:
        super().__init__()
        self.spec, self.closed = spec, False
        self._seconds = milliseconds / 1e3

    def infer(self, batch: Pixels) -> Pixels:
        assert not self.closed
        if self.spec.name == "fails":
            raise EngineError("engine failed on a frame", hint="")
        time.sleep(self._seconds)
        return batch

    def close(self) -> None:
        self.closed = True


class Shelf:
    """A folder of engines by name; what is not one is refused."""

    def __init__(self, folder: Path, **engines: tuple[float, EngineSpec]) -> None:
        self.folder, self.kinds, self.opened = folder, engines, []
        for name in engines:
            (folder / f"{name}.onnx").touch()

    def open(self, path: Path) -> Engine:
        if path.stem == "broken":
            raise EngineError("not an engine", path, hint="")
        self.opened.append(Paced(*self.kinds[path.stem]))
        return self.opened[-1]

    def choose(self, **more: object) -> tuple[Engine, str]:
        return choose(self.folder, self.open, size=(64, 48), **more)


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("runtime.engines.choice.TRIAL_S", 0.1)
    return tmp_path / "cache" / "deblur" / "engines.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "engines").mkdir()
    return tmp_path / "engines"


def test_the_fastest_within_its_budget_is_taken(folder: Path) -> None:
    poor, fails = dataclasses.replace(GOOD, loss_db=0.5), dataclasses.replace(GOOD, name="fails")
    shelf = Shelf(
        folder, slow=(30, GOOD), fast=(10, GOOD), fastest_but_poor=(1, poor), broken=(1, GOOD), fails=(1, fails)
    )
    engine, why = shelf.choose()
    assert [each.spec for each in shelf.opened if not each.closed] == [engine.spec]
    assert not engine.closed
    assert why.index("fast.onnx") < why.index("slow.onnx")
    assert "fastest_but_poor.onnx: loses 0.50 dB, its budget is 0.30" in why
    assert "broken.onnx: not an engine" in why
    assert "fails.onnx: engine failed on a frame" in why


def test_the_choice_is_remembered_until_something_changes(folder: Path, memory: Path) -> None:
    shelf = Shelf(folder, slow=(20, GOOD), fast=(5, GOOD))
    shelf.choose()
    assert len(shelf.opened) == 2
    assert list(json.loads(memory.read_text()).values()) == ["fast.onnx"]
    _, why = shelf.choose()
    assert len(shelf.opened) == 3
    assert "fast.onnx, the fastest here when it was last tried" in why
    shelf.choose(settings=["other"])
    assert len(shelf.opened) == 5
    (folder / "slow.onnx").write_bytes(b"another")
    shelf.choose()
    assert len(shelf.opened) == 7
    memory.write_text("junk")
    shelf.choose()
    assert len(shelf.opened) == 9
    assert json.loads(memory.read_text())


def test_a_memory_that_cannot_be_written_does_no_harm(folder: Path, memory: Path) -> None:
    memory.parent.parent.write_text("a file where a folder should be")
    shelf = Shelf(folder, fast=(5, GOOD))
    assert shelf.choose()[0].spec == GOOD


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"precision": "fp32", "loss_db": None, "budget_db": None}, ""),
        ({"loss_db": None}, "what it loses was not measured"),
        ({"precision": "unknown", "budget_db": None}, "what it loses was not measured"),
        ({"loss_db": 0.31}, "loses 0.31 dB, its budget is 0.30"),
        ({"width": (128, 256)}, "not for frames of 64x48"),
    ],
)
def test_what_is_good_enough(changes: dict[str, object], words: str) -> None:
    assert unfit(dataclasses.replace(GOOD, **changes), (64, 48)) == words


def test_by_the_command_line(clip: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--engine", str(folder), "--source", str(clip), "--out", "null", "--provider", "cpu", "--guard", "off"]
    write_engine(folder / "unmeasured.onnx")
    assert main(arguments) == 4
    assert "no engine that can be used (unmeasured.onnx: what it loses was not measured)" in capsys.readouterr().err
    from runtime.engines import BUNDLED

    (folder / "bundled.onnx").write_bytes(BUNDLED.read_bytes())
    assert main(arguments) == 0
    assert "chosen  bundled.onnx " in capsys.readouterr().err
    assert main([*arguments, "--watch-engine"]) == 2
    assert "--watch-engine watches one engine" in capsys.readouterr().err


def test_an_engine_is_not_blamed_for_the_threads_of_the_one_before() -> None:
    """As those of ONNX Runtime, they spin for 30 ms after a frame; whoever runs meanwhile takes twice as long."""
    until = 0.0

    class Spinning(Paced):
        def infer(self, batch: Pixels) -> Pixels:
            nonlocal until
            super().infer(batch)
            until = time.perf_counter() + 0.03
            return batch

    class Disturbed(Paced):
        def infer(self, batch: Pixels) -> Pixels:
            if time.perf_counter() < until:
                super().infer(batch)
            return super().infer(batch)

    spinning, disturbed = Spinning(30, GOOD), Disturbed(20, GOOD)  # apart by more than a busy machine adds
    times = median_ms([spinning, disturbed], trial_frame((64, 48)))
    assert times[1] < times[0]
