"""Generate docs/cli.md from the parsers of all commands: `python docs/generate_cli.py`."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

PAGE = Path(__file__).with_name("cli.md")
SCRIPTS = {
    "runtime.video": "deblur",
    "runtime.models": "deblur models",
    "runtime.batch": "deblur-batch",
    "runtime.web": "deblur-web",
    "runtime.install": "",
    "train": "deblur-train",
    "train.evaluate": "",
    "train.prune": "",
    "train.interpolate": "",
    "train.synthetic": "",
    "train.lpips_weights": "",
    "train.exposures": "",
    "export": "deblur-export",
    "export.plan": "",
    "export.bundle": "",
    "export.triton": "",
    "benchmarks.latency": "deblur-bench latency",
    "benchmarks.quality": "deblur-bench quality",
    "benchmarks.peers": "deblur-bench peers",
    "benchmarks.peers.vs_mlrt": "deblur-bench vs-mlrt",
    "benchmarks.scaling": "deblur-bench scaling",
    "benchmarks.report": "deblur-bench report",
    "benchmarks.gpu_check": "deblur-bench gpu-check",
}
"""Modules with a `build_parser`, and the console script of each."""
_HEAD = """# Command line

Made from the parsers by `python docs/generate_cli.py`. A command that fails prints one line on standard error, which
says what is wrong and what to do. Exit codes: 0 done, 1 a bug, 2 usage, 3 source, 4 engine or model, 5 source lost,
6 output, 7 memory, 8 impossible numbers, 130 interrupted, 143 terminated. Every command has `--help` and `--version`.
"""


def load_parser(module: str) -> argparse.ArgumentParser:
    """Return the parser of a command's module."""
    package = import_module(module)
    if not hasattr(package, "build_parser"):
        package = import_module(f"{module}.__main__")
    parser: argparse.ArgumentParser = package.build_parser()
    return parser


def render_page() -> str:
    """Return the whole page as Markdown."""
    return "\n".join([_HEAD, *(_render_command(module) for module in SCRIPTS)])


def _render_command(module: str) -> str:
    parser = load_parser(module)
    script = f", or `{SCRIPTS[module]}`" if SCRIPTS[module] else ""
    description = (parser.description or "").partition(":")[2].strip() or parser.description or ""
    lines = [f"## {module}", "", f"`python -m {module}`{script}: {description}", ""]
    for group in parser._action_groups:  # noqa: SLF001 - argparse has no public way to list its groups
        actions = [action for action in group._group_actions if action.dest not in ("help", "version")]  # noqa: SLF001
        if not actions:
            continue
        if group.title not in ("options", "positional arguments"):
            lines += [f"**{(group.title or '').capitalize()}**", ""]
        lines += ["| option | meaning |", "|---|---|"]
        lines += [f"| {_render_name(parser, action)} | {_render_help(parser, action)} |" for action in actions]
        lines.append("")
    return "\n".join(lines)


def _render_name(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    formatter = parser.formatter_class(prog=parser.prog, width=200)
    if not action.option_strings:
        name = formatter._format_args(action, action.metavar or action.dest)  # noqa: SLF001 # type: ignore[arg-type]
        return f"`{name}`".replace("|", "\\|")
    value = ""
    if action.nargs != 0:
        metavar = action.metavar or (
            "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()
        )
        value = f" {metavar}"
    return ", ".join(f"`{option}{value}`" for option in action.option_strings).replace("|", "\\|")


def _render_help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    formatter = parser.formatter_class(prog=parser.prog, width=200)
    text = formatter._expand_help(action) if action.help else ""  # noqa: SLF001
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.path.insert(0, str(PAGE.parents[1]))
    PAGE.write_text(render_page())
