"""`python -m benchmarks.report`: combine result files into one page, as Markdown and as a self-contained HTML file.

Reads the files of benchmarks/results/<device>/, or the given files and folders, validates each against schema.json, and
states the machine and the command of every figure.
"""

from __future__ import annotations

import argparse
import html
import io
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import scaling
from benchmarks.harness.markdown import join_lines
from benchmarks.harness.results import RESULTS, read_results
from benchmarks.latency import table as latency_table
from benchmarks.peers import table as peers_table
from benchmarks.peers.vs_mlrt import table as file_jobs_table
from benchmarks.quality import table as quality_table
from runtime.cli import run_cli
from runtime.errors import InputError, UsageError
from runtime.files import output_error
from runtime.libraries import install_hint
from runtime.parser import CommandParser

Document = Mapping[str, Any]
SECTIONS: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "quality": ("Quality", quality_table.format_tables),
    "latency": ("Latency", latency_table.format_tables),
    "peers": ("Comparison with other tools", peers_table.format_tables),
    "file_jobs": ("Comparison with vs-mlrt", file_jobs_table.format_tables),
    "scaling": ("Scaling", scaling.format_tables),
}
"""Heading and formatter of each kind of result file, in the order of the page."""
_MAX_LABEL = 60
"""Largest number of characters of a label; a longer one would leave no room for the plot."""
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: 14px; }
th, td { border-bottom: 1px solid #8886; padding: 4px 10px; text-align: left; white-space: nowrap; }
code { overflow-wrap: anywhere; } svg { max-width: 100%; height: auto; background: #fff; }
"""


def render_markdown(documents: Sequence[Document]) -> str:
    """Return all tables with their machine and command; `documents` are from `read_results`."""
    parts = ["# Benchmarks"]
    parts += dict.fromkeys(_describe_machine(document["machine"]) for document in documents)
    for kind, (heading, format_tables) in SECTIONS.items():
        for document in documents:
            if document["kind"] == kind:
                command = join_lines(document["command"])
                origin = f"Device {document['machine']['device']}, {document['made_at']}: `{command}`"
                parts += [f"## {heading}", origin, format_tables(document["results"])]
    return "\n\n".join(parts) + "\n"


def _describe_machine(machine: Mapping[str, Any]) -> str:
    cpu = machine["cpu"]
    gpus = "; ".join(f"{gpu['name']}, driver {gpu['driver']}" for gpu in machine["gpus"]) or "no GPU"
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    facts = [f"{cpu['cores']} cores of {cpu['model']} ({', '.join(cpu['features'])})", gpus]
    facts += [f"{machine['memory_gib']:.0f} GiB of memory"] if machine["memory_gib"] else []
    if machine["jetson"]:
        facts.append(f"Jetson {machine['jetson']['release']}, power mode {machine['jetson']['power_mode']}")
    facts += [machine["os"], f"kernel {machine['kernel']}", f"Python {machine['python']}", packages]
    return join_lines(f"**{machine['device']}**: {'; '.join(facts)}.")


def render_html(documents: Sequence[Document]) -> str:
    """Return the Markdown and the plots as one HTML file; raise UsageError if the package markdown is missing."""
    try:
        from benchmarks.harness.plain_markdown import convert_to_html  # noqa: PLC0415 - needs an optional package
    except ImportError as error:
        raise UsageError("a page needs the package markdown", hint=install_hint("markdown")) from error
    by_device: dict[str, list[Document]] = {}
    for document in documents:
        by_device.setdefault(document["machine"]["device"], []).append(document)
    plots = "".join(plot(group) for group in by_device.values() for plot in (plot_pareto, plot_latency))
    head, tables = render_markdown(documents).split("\n\n", 1)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Benchmarks</title><style>{_STYLE}</style></head><body>"
        f"<h1>{html.escape(head.removeprefix('# '))}</h1>{plots}{convert_to_html(tables)}"
        "</body></html>\n"
    )


def plot_pareto(documents: Sequence[Document]) -> str:
    """Plot PSNR over time per frame for one device, with a line for the blurred input; return SVG.

    Returns an empty string without quality results.
    """
    qualities = [document["results"] for document in documents if document["kind"] == "quality"]
    points = [
        (restored["host"]["p50_ms"], restored["psnr_db"], restored["name"])
        for results in qualities
        for restored in results["restored"]
        if restored["host"]
    ]
    if not points:
        return ""
    figure, axes = _create_figure(5)
    for (milliseconds, psnr_db, name), marker in zip(points, itertools.cycle("osD^vPX*<>"), strict=False):
        axes.plot(milliseconds, psnr_db, marker, markersize=8, label=_format_label(name))
    axes.axhline(qualities[0]["blurred"]["psnr_db"], color="#b45309", linewidth=1, label="blurred input")
    title = f"Quality and time, {documents[0]['machine']['device']}"
    axes.set(xscale="log", xlabel="median time (ms/frame)", ylabel="PSNR (dB)", title=title)
    axes.margins(0.1)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), fontsize=9)
    return _to_svg(figure)


def plot_latency(documents: Sequence[Document]) -> str:
    """Plot the distribution of the host latency of each engine on one device; return SVG.

    Returns an empty string without latency results.
    """
    engines = [
        (f"{engine['name']}, {engine['backend'].split(' (')[0]}", engine["host"])
        for document in documents
        if document["kind"] == "latency"
        for engine in document["results"]["engines"]
    ]
    if not engines:
        return ""
    figure, axes = _create_figure(1.4 + 0.5 * len(engines))
    for row, (_, host) in enumerate(engines):
        axes.hlines(row, host["min_ms"], host["max_ms"], color="#9aa4ae", linewidth=1)
        axes.hlines(row, host["min_ms"], host["p90_ms"] or host["max_ms"], color="#1668c7", linewidth=5)
        axes.plot(host["p50_ms"], row, "|", color="#000", markersize=14)
    axes.set_yticks(range(len(engines)), [_format_label(name) for name, _ in engines], fontsize=9)
    title = f"Latency, {documents[0]['machine']['device']}"
    label = "host latency (ms/frame)\nthin line from minimum to maximum,\nbar up to p90, mark at the median"
    axes.set(xscale="log", xlabel=label, title=title)
    axes.invert_yaxis()
    return _to_svg(figure)


def _format_label(name: str) -> str:
    """Return a name on one short line for a plot, without formulas (`$`) and without the first `_` that hides it."""
    label = join_lines(name).removeprefix("_")
    short = label if len(label) <= _MAX_LABEL else f"{label[: _MAX_LABEL - 3]}..."
    return short.replace("$", r"\$")


def _create_figure(height_in: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # noqa: PLC0415 - an optional package

    figure = Figure(figsize=(9, height_in), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _to_svg(figure: Any) -> str:
    from matplotlib import rc_context  # noqa: PLC0415 - an optional package

    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "deblur"}):  # the same results give the same file
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue().partition("<svg")[1] + buffer.getvalue().partition("<svg")[2]


def read_documents(paths: Sequence[Path]) -> list[Document]:
    """Read and validate result files and all result files in folders; raise InputError without any."""
    files = [file for path in paths for file in (sorted(path.rglob("*.json")) if path.is_dir() else [path])]
    if not files:
        raise InputError("no result files", paths[0], hint="write some with --json, or run make bench")
    return [read_results(file) for file in files]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m benchmarks.report`."""
    parser = CommandParser("benchmarks.report", description=__doc__.splitlines()[0])
    parser.add_argument(
        "results",
        nargs="*",
        type=Path,
        default=[RESULTS],
        help="result files, or folders with result files (default: the published results)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/report"),
        metavar="DIR",
        help="folder for report.md and report.html (default: out/report)",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line of `python -m benchmarks.report` and return its exit code."""
    options = build_parser().parse_args(arguments)

    def command(_: object) -> int:
        documents = read_documents(options.results)
        texts = {"report.md": render_markdown(documents), "report.html": render_html(documents)}
        try:
            options.out.mkdir(parents=True, exist_ok=True)
            for name, text in texts.items():
                (options.out / name).write_text(text)
        except OSError as error:
            raise output_error(options.out, error) from error
        print(options.out / "report.html")
        return 0

    return run_cli(command, debug=options.debug)


if __name__ == "__main__":
    sys.exit(main())
