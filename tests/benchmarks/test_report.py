"""Report pages made from result files."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.harness.results import RESULTS
from benchmarks.latency import __main__ as latency
from benchmarks.quality import __main__ as quality
from tests.conftest import write_clip, write_engine


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with real result files of two benchmarks."""
    folder = tmp_path_factory.mktemp("results")
    engine = ["--engine", str(write_engine(folder / "inverter.onnx"))]
    load = ["--min-queries", "8", "--min-duration", "0", "--warm-up", "0", "--size", "64x48", "--no-pipeline"]
    assert latency.main([*engine, *load, "--source", "synthetic", "--json", str(folder / "latency.json")]) == 0
    for name in ("blurred", "sharp"):
        write_clip(folder / f"{name}.mp4")
    clips = ["--blurred", str(folder / "blurred.mp4"), "--sharp", str(folder / "sharp.mp4")]
    assert quality.main([*clips, *engine, "--json", str(folder / "quality.json")]) == 0
    return folder


def test_the_page_has_every_figure_and_is_self_contained(results: Path, tmp_path: Path) -> None:
    assert report.main([str(results), "--out", str(tmp_path)]) == 0
    page, text = ((tmp_path / f"report.{suffix}").read_text() for suffix in ("html", "md"))
    documents = report.read_documents([results])
    assert {document["kind"] for document in documents} == {"latency", "quality"}
    for document in documents:
        assert document["command"] in text
        assert document["machine"]["device"] in text
    (measured,) = (document["results"] for document in documents if document["kind"] == "quality")
    assert f"{measured['restored'][0]['psnr_db']:.2f}" in text
    assert f"<td>{measured['restored'][0]['psnr_db']:.2f}</td>" in page
    assert page.count("<svg") == 2
    assert page.count("inverter") > 3
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    assert "src=" not in page


def test_plots_without_results_are_omitted(results: Path) -> None:
    latency_only = report.read_documents([results / "latency.json"])
    assert report.plot_pareto(latency_only) == ""
    assert report.plot_latency(latency_only).startswith("<svg")
    assert report.render_html(latency_only).count("<svg") == 1


def test_every_device_has_its_own_plots(results: Path) -> None:
    here = report.read_documents([results])
    there = [{**document, "machine": {**document["machine"], "device": "another"}} for document in here]
    page = report.render_html([*here, *there])
    assert page.count("<svg") == 4
    assert "<strong>another</strong>" in page


def test_every_state_of_a_machine_is_named_once(results: Path) -> None:
    here = report.read_documents([results])
    later = [{**document, "machine": {**document["machine"], "kernel": "9.9.9"}} for document in here]
    text = report.render_markdown([*here, *later])
    assert text.count(f"**{here[0]['machine']['device']}**: ") == 2
    assert text.count("kernel 9.9.9") == 1


def test_missing_or_wrong_files_are_one_line_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(tmp_path), "--out", str(tmp_path / "out")]) == 3
    assert "error: no result files" in capsys.readouterr().err
    (tmp_path / "a.json").write_text('{"schema": 1}')
    assert report.main([str(tmp_path), "--out", str(tmp_path / "out")]) == 3
    assert capsys.readouterr().err.count("error: ") == 1
    assert not (tmp_path / "out").exists()


class _Elements(HTMLParser):
    """Collects the elements and the attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_text_of_a_result_file_is_shown_as_text(results: Path, tmp_path: Path) -> None:
    plain, hostile = _Elements(), _Elements()
    plain.feed(report.render_html(report.read_documents([results])))
    text = (
        "<script>alert(1)</script> --> <img src=x onerror=alert(1)> [l](javascript:alert(1)) ![i](http://a/b) "
        "<javascript:alert(1)> $a$ b$\\frac{ | c\n\n# heading\n\n<script>alert(2)</script>\n\n[r]: http://a\n"
    )
    for path in results.glob("*.json"):
        document = json.loads(path.read_text())
        document["machine"]["cpu"]["model"] = document["command"] = text
        for entry in [*document["results"].get("restored", []), *document["results"].get("engines", [])]:
            entry["name"] = f"_{text}"
        (tmp_path / path.name).write_text(json.dumps(document))
    documents = report.read_documents([tmp_path])
    page = report.render_html(documents)
    hostile.feed(page)
    assert hostile.names - plain.names <= {"code"}
    assert hostile.attributes == plain.attributes
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "# heading" not in {line.strip() for line in report.render_markdown(documents).splitlines()}


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 3_000 + "1" + "}" * 3_000, '{"schema": NaN}', "\x00"])
def test_a_file_that_is_no_result_file_is_one_line(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.json").write_text(text)
    assert report.main([str(tmp_path), "--out", str(tmp_path / "out")]) == 3
    assert capsys.readouterr().err.startswith("error: not a result file (")


@pytest.mark.parametrize(
    "folder", sorted({path.parent for path in RESULTS.rglob("*.json")}), ids=lambda path: path.name
)
def test_published_pages_are_up_to_date(folder: Path) -> None:
    """If this fails, run `python -m benchmarks.report FOLDER --out FOLDER`."""
    assert (folder / "report.md").read_text() == report.render_markdown(report.read_documents([folder]))
    assert (folder / "report.html").is_file()
