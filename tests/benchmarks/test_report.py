"""Result files as a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.latency import __main__ as latency
from benchmarks.quality import __main__ as quality
from tests.conftest import write_clip


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two of the benchmarks really write."""
    place = tmp_path_factory.mktemp("results")
    engine = ["--engine", str(write_inverter(place))]
    few = ["--min-queries", "8", "--min-duration", "0", "--warm-up", "0", "--size", "64x48", "--no-pipeline"]
    assert latency.main([*engine, *few, "--source", "synthetic", "--json", str(place / "latency.json")]) == 0
    for name in ("blurred", "sharp"):
        write_clip(place / f"{name}.mp4")
    clips = ["--blurred", str(place / "blurred.mp4"), "--sharp", str(place / "sharp.mp4")]
    assert quality.main([*clips, *engine, "--json", str(place / "quality.json")]) == 0
    return place


def write_inverter(place: Path) -> Path:
    from tests.conftest import write_engine

    return write_engine(place / "inverter.onnx")


def test_the_page_has_every_figure_and_needs_nothing_else(results: Path, tmp_path: Path) -> None:
    assert report.main([str(results), "--out", str(tmp_path)]) == 0
    page, text = ((tmp_path / f"report.{suffix}").read_text() for suffix in ("html", "md"))
    documents = report.found([results])
    assert {each["kind"] for each in documents} == {"latency", "quality"}
    for each in documents:
        assert each["command"] in text
        assert each["machine"]["device"] in text
    (measured,) = (each["results"] for each in documents if each["kind"] == "quality")
    assert f"{measured['restored'][0]['psnr_db']:.2f}" in text
    assert f"<td>{measured['restored'][0]['psnr_db']:.2f}</td>" in page
    assert page.count("<svg") == 2
    assert page.count("inverter") > 3
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    assert "src=" not in page


def test_plots_are_left_out_without_results(results: Path) -> None:
    only = report.found([results / "latency.json"])
    assert report.pareto(only) == ""
    assert report.distributions(only).startswith("<svg")
    assert report.page(only).count("<svg") == 1


def test_devices_have_plots_of_their_own(results: Path) -> None:
    here = report.found([results])
    there = [{**each, "machine": {**each["machine"], "device": "another"}} for each in here]
    page = report.page([*here, *there])
    assert page.count("<svg") == 4
    assert "<strong>another</strong>" in page


def test_what_cannot_be_shown_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(tmp_path), "--out", str(tmp_path / "out")]) == 3
    assert "error: no result files" in capsys.readouterr().err
    (tmp_path / "a.json").write_text('{"schema": 1}')
    assert report.main([str(tmp_path), "--out", str(tmp_path / "out")]) == 3
    assert capsys.readouterr().err.count("error: ") == 1
    assert not (tmp_path / "out").exists()
