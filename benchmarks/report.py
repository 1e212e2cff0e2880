"""`python -m benchmarks.report`: result files as one page, HTML that needs nothing else, and Markdown.

Reads the files of benchmarks/results/<device>/, or those that are named, checks each against schema.json, and tells
the machine and the command of every figure.
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
from benchmarks.harness.results import RESULTS, read_results
from benchmarks.latency import table as latency_table
from benchmarks.peers import table as peers_table
from benchmarks.quality import table as quality_table
from runtime.cli import report_error
from runtime.errors import DeblurError, InputError, UsageError
from runtime.files import unwritable

Document = Mapping[str, Any]
TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "quality": quality_table.tables,
    "latency": latency_table.tables,
    "peers": peers_table.tables,
    "scaling": scaling.table,
}
"""In the order of the page."""
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: 14px; }
th, td { border-bottom: 1px solid #8886; padding: 4px 10px; text-align: left; white-space: nowrap; }
code { overflow-wrap: anywhere; } svg { max-width: 100%; height: auto; background: #fff; }
"""


def markdown(documents: Sequence[Document]) -> str:
    """All tables with machine and command; `documents` as `benchmarks.harness.results.read_results` gives them."""
    parts = ["# Benchmarks"]
    parts += map(_machine, {each["machine"]["device"]: each["machine"] for each in documents}.values())
    for kind, tables in TABLES.items():
        for each in documents:
            if each["kind"] == kind:
                told = f"On {each['machine']['device']}, {each['made_at']}: `{each['command']}`"
                parts += [f"## {kind.capitalize()}", told, tables(each["results"])]
    return "\n\n".join(parts) + "\n"


def _machine(machine: Mapping[str, Any]) -> str:
    cpu = machine["cpu"]
    gpus = "; ".join(f"{gpu['name']}, driver {gpu['driver']}" for gpu in machine["gpus"]) or "no GPU"
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    facts = [f"{cpu['cores']} cores of {cpu['model']} ({', '.join(cpu['features'])})", gpus]
    facts += [f"{machine['memory_gib']:.0f} GiB"] if machine["memory_gib"] else []
    if machine["jetson"]:
        facts.append(f"Jetson {machine['jetson']['release']}, power mode {machine['jetson']['power_mode']}")
    facts += [machine["os"], f"kernel {machine['kernel']}", f"Python {machine['python']}", packages]
    return f"**{machine['device']}**: {'; '.join(facts)}."


def page(documents: Sequence[Document]) -> str:
    """The Markdown and the plots as one HTML file."""
    try:
        from markdown import markdown as rendered  # noqa: PLC0415 - only who wants a page has it
    except ImportError as error:
        raise UsageError("a page needs the package markdown", hint="pip install 'deblur-toolkit[bench]'") from error
    devices: dict[str, list[Document]] = {}
    for each in documents:
        devices.setdefault(each["machine"]["device"], []).append(each)
    plots = "".join(plot(own) for own in devices.values() for plot in (pareto, distributions))
    head, tables = markdown(documents).split("\n\n", 1)
    body = rendered(tables, extensions=["tables"])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Benchmarks</title><style>{_STYLE}</style></head><body>"
        f"<h1>{html.escape(head.removeprefix('# '))}</h1>{plots}{body}</body></html>\n"
    )


def pareto(documents: Sequence[Document]) -> str:
    """PSNR over milliseconds a frame as SVG, of one device, the blurred input as a line; empty without such results."""
    quality = [each["results"] for each in documents if each["kind"] == "quality"]
    points = [
        (each["host"]["p50_ms"], each["psnr_db"], each["name"])
        for results in quality
        for each in results["restored"]
        if each["host"]
    ]
    if not points:
        return ""
    figure, axes = _figure(5)
    for (milliseconds, psnr_db, name), marker in zip(points, itertools.cycle("osD^vPX*<>"), strict=False):
        axes.plot(milliseconds, psnr_db, marker, markersize=8, label=name)
    axes.axhline(quality[0]["blurred"]["psnr_db"], color="#b45309", linewidth=1, label="blurred input")
    title = f"Quality and cost, {documents[0]['machine']['device']}"
    axes.set(xscale="log", xlabel="ms a frame, median", ylabel="PSNR, dB", title=title)
    axes.margins(0.1)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), fontsize=9)
    return _svg(figure)


def distributions(documents: Sequence[Document]) -> str:
    """From the least to the largest host latency of each engine on one device as SVG; empty without such results."""
    engines = [
        (f"{each['name']}, {each['backend'].split(' (')[0]}", each["host"])
        for document in documents
        if document["kind"] == "latency"
        for each in document["results"]["engines"]
    ]
    if not engines:
        return ""
    figure, axes = _figure(1.2 + 0.5 * len(engines))
    for row, (_, host) in enumerate(engines):
        axes.hlines(row, host["min_ms"], host["max_ms"], color="#9aa4ae", linewidth=1)
        axes.hlines(row, host["min_ms"], host["p90_ms"] or host["max_ms"], color="#1668c7", linewidth=5)
        axes.plot(host["p50_ms"], row, "|", color="#000", markersize=14)
    axes.set_yticks(range(len(engines)), [name for name, _ in engines], fontsize=9)
    title = f"Latency, {documents[0]['machine']['device']}"
    axes.set(xscale="log", xlabel="ms a frame: line to the largest, bar to p90, stroke at the median", title=title)
    axes.invert_yaxis()
    return _svg(figure)


def _figure(height_in: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # noqa: PLC0415 - only who plots has it

    figure = Figure(figsize=(9, height_in), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue().partition("<svg")[1] + buffer.getvalue().partition("<svg")[2]


def found(paths: Sequence[Path]) -> list[Document]:
    """The result files among these files and folders, checked; raises InputError where there are none."""
    files = [file for path in paths for file in (sorted(path.rglob("*.json")) if path.is_dir() else [path])]
    if not files:
        raise InputError("no result files", paths[0], hint="make some with --json, or make bench")
    return [read_results(file) for file in files]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__.splitlines()[0])
    parser.add_argument(
        "results", nargs="*", type=Path, default=[RESULTS], help="files or folders (default: published)"
    )
    parser.add_argument("--out", type=Path, default=Path("out/report"), metavar="DIR", help="(default: out/report)")
    options = parser.parse_args(arguments)
    try:
        documents = found(options.results)
        texts = {"report.md": markdown(documents), "report.html": page(documents)}
        try:
            options.out.mkdir(parents=True, exist_ok=True)
            for name, text in texts.items():
                (options.out / name).write_text(text)
        except OSError as error:
            raise unwritable(options.out, error) from error
    except DeblurError as error:
        return report_error(error, debug=False)
    print(options.out / "report.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
