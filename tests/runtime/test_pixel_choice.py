"""Choice between planes and BGR: sources, options, engines beside each other, folders, and what cannot be used here."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import onnx
import pytest
from onnx import helper

from runtime.engines import find_yuv420_engine, open_engine
from runtime.engines.variants import takes_planes
from runtime.errors import EngineError, UsageError
from runtime.options import RunOptions
from runtime.pixel_choice import choose_pixels
from runtime.sources import open_source
from runtime.spec import METADATA_KEY, EngineSpec
from runtime.video import main
from tests.conftest import make_image, write_engine
from tests.standin import install_stand_in, write_plan

SHAPE = ("n", "rows", "w")
Run = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def quick_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("runtime.engines.choice.TRIAL_S", 0.1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "engines"
    folder.mkdir()
    return folder


@pytest.fixture
def engines(folder: Path) -> Path:
    """Return an engine for BGR; beside it lies one for planes."""
    write_engine(folder / "invert_yuv420.onnx", shape=SHAPE)
    return write_engine(folder / "invert.onnx")


@pytest.fixture
def run(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that restores the clip with an engine; it returns the exit code and what was printed."""

    def run(engine: Path, *arguments: str) -> tuple[int, str]:
        files = ["--source", str(clip), "--out", str(tmp_path / "out.mp4"), "-y", "--guard", "off"]
        code = main([*files, "--engine", str(engine), *arguments])
        return code, capsys.readouterr().err

    return run


def describe(path: Path, **fields: object) -> None:
    model = onnx.load(path)
    helper.set_model_props(model, {METADATA_KEY: EngineSpec(name="new", **fields).to_json()})
    onnx.save(model, path)


def choose(clip: Path, engine: Path, **options: object) -> tuple[str, str]:
    return choose_pixels(RunOptions(sources=(str(clip),), engine=engine, **options), [open_source(str(clip))])


# What a run asks for


def test_planes_are_taken_if_nothing_needs_bgr(engines: Path, clip: Path) -> None:
    assert choose(clip, engines) == ("auto", "")
    assert choose(clip, engines, show=True, tile=(64, 64)) == ("auto", "")
    assert choose(clip, engines.parent) == ("auto", "")
    assert choose(clip, engines, pixels="yuv420") == ("yuv420", "")
    assert choose(clip, engines.with_name("invert_yuv420.onnx")) == ("yuv420", "")
    assert choose(clip, engines, pixels="bgr") == ("bgr", "as requested")


def test_a_watched_engine_is_the_file_that_is_named(engines: Path, clip: Path) -> None:
    assert choose(clip, engines, watch_engine=True) == ("bgr", "the watched engine takes BGR")
    assert choose(clip, engines.with_name("invert_yuv420.onnx"), watch_engine=True) == ("yuv420", "")


def test_an_image_has_no_planes(engines: Path, tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    cv2.imwrite(str(image), make_image(64, 48))
    pixels, reason = choose(image, engines)
    assert pixels == "bgr"
    assert "does not deliver planes of 4:2:0" in reason
    with pytest.raises(UsageError, match=r"frames cannot be kept as planes: .*; leave out --pixels"):
        choose(image, engines, pixels="yuv420")
    with pytest.raises(UsageError, match="give the engine for BGR frames"):
        choose(image, engines.with_name("invert_yuv420.onnx"))


def test_an_engine_for_planes_takes_no_bgr(engines: Path, clip: Path) -> None:
    with pytest.raises(UsageError, match="engine is for planes of 4:2:0"):
        choose(clip, engines.with_name("invert_yuv420.onnx"), pixels="bgr")


# Engines beside each other


def test_the_engine_says_what_it_takes_whatever_its_name_is(engines: Path, clip: Path, run: Run) -> None:
    other = engines.with_name("other.onnx")
    shutil.copy(engines.with_name("invert_yuv420.onnx"), other)
    assert takes_planes(other)
    assert find_yuv420_engine(other) == other
    assert choose(clip, other) == ("yuv420", "")
    assert "pixels  4:2:0, as decoded" in run(other)[1]
    assert not takes_planes(engines)


def test_an_engine_of_other_weights_is_not_taken(engines: Path, clip: Path) -> None:
    assert find_yuv420_engine(engines) == engines.with_name("invert_yuv420.onnx")
    describe(engines, precision="int8", weights_sha256="new")
    assert find_yuv420_engine(engines) is None
    assert choose(clip, engines) == ("bgr", "there is no engine for planes beside the engine")
    with pytest.raises(EngineError, match="no engine for planes of 4:2:0 lies beside the engine"):
        open_engine(engines, pixels="yuv420")


def test_a_plan_for_planes_is_found_beside_its_twin(
    engines: Path, clip: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_stand_in(monkeypatch)
    plan = write_plan(engines, engines.parent)
    assert choose(clip, plan) == ("bgr", "there is no engine for planes beside the engine")
    twin = write_plan(engines.with_name("invert_yuv420.onnx"), engines.parent)
    assert find_yuv420_engine(plan) == twin
    code, lines = run(plan)
    assert code == 0
    assert "pixels  4:2:0, as decoded" in lines
    assert "tensorrt-rtx 1.7.1.116 on stand-in" in lines
    assert "pixels  BGR (as requested)" in run(plan, "--pixels", "bgr")[1]


def test_a_plan_for_planes_that_does_not_fit_gives_way_to_its_twin(
    engines: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_stand_in(monkeypatch)
    plan = write_plan(engines, engines.parent)
    write_plan(engines.with_name("invert_yuv420.onnx"), engines.parent, version="1.0")
    code, lines = run(plan)
    assert code == 0
    assert "chosen  invert.plan, because invert_yuv420.plan cannot be used (plan was built by tensorrt-rtx 1.0" in lines
    assert "pixels  BGR (the engine takes BGR)" in lines
    code, lines = run(plan, "--pixels", "yuv420")
    assert code == 4
    assert "error: plan was built by tensorrt-rtx 1.0, here is 1.7.1.116" in lines
    plan.unlink()
    engines.unlink()
    code, lines = run(plan.with_name("invert_yuv420.plan"))
    assert code == 4


def test_an_engine_that_cannot_be_opened_at_all_is_one_error(engines: Path, run: Run) -> None:
    """The twin that cannot be used either is not mentioned."""
    code, lines = run(engines, "--provider", "cuda")
    assert code == 4
    assert "chosen" not in lines
    assert "invert.onnx" in lines


# Folders


def test_a_folder_has_the_engine_for_planes_first(engines: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.engines.choice._measure_roughly", lambda *_: 1.0)
    monkeypatch.setattr("runtime.engines.choice.median_ms_per_frame", lambda *_, **__: [1.0, 1.0])
    for path in engines.parent.iterdir():
        describe(path, precision="fp32")
    code, lines = run(engines.parent)
    assert code == 0
    assert "chosen  invert_yuv420.onnx" in lines
    assert "invert.onnx " in lines
    assert "pixels  4:2:0, as decoded" in lines


def test_a_folder_falls_back_to_bgr_if_its_engines_for_planes_are_rejected(engines: Path, run: Run) -> None:
    describe(engines, precision="fp32")
    describe(engines.with_name("invert_yuv420.onnx"), precision="int8", loss_db=0.5, budget_db=0.3)
    code, lines = run(engines.parent)
    assert code == 0
    assert "invert_yuv420.onnx: loses 0.50 dB, its budget is 0.30" in lines
    assert "pixels  BGR (the engine takes BGR)" in lines
    code, lines = run(engines.parent, "--pixels", "yuv420")
    assert code == 4
    assert "no engine that can be used (invert_yuv420.onnx: loses 0.50 dB" in lines


def test_a_folder_without_engines_for_planes(engines: Path, clip: Path) -> None:
    engines.with_name("invert_yuv420.onnx").unlink()
    assert choose(clip, engines.parent) == ("bgr", "there is no engine for planes beside the engine")
