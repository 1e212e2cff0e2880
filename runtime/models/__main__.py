"""`deblur models`: list the bundled engines and your own, or add an export to yours for `--engine NAME` to find."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from runtime.cli import run_cli, say
from runtime.errors import UsageError
from runtime.model_folder import VARIABLE, models_folder
from runtime.models.adding import add_model
from runtime.models.listing import format_table, list_models
from runtime.parser import CommandParser, program_name


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = CommandParser(
        "runtime.models",
        prog="deblur models" if program_name("") == "deblur" else "python -m runtime.models",
        description=__doc__,
        epilog=f"Your models lie in {VARIABLE}, or in ~/.local/share/deblur/models. To remove one, delete its folder.",
    )
    actions = parser.add_argument_group("actions").add_argument
    actions(
        "action",
        nargs="?",
        choices=("list", "add"),
        default="list",
        help="list the models (default), or add an export to them",
    )
    actions("export", nargs="?", type=Path, metavar="DIR|FILE", help="export, or engine file, to copy after a check")
    add = parser.add_argument_group("adding").add_argument
    add("--name", help="name of the model, for --engine (default: name of DIR or FILE)")
    add("-y", dest="replace", action="store_true", help="replace a model of this name")
    parser.add_argument("--debug", action="store_true", help="print the traceback of an error")
    return parser


def run(values: argparse.Namespace) -> int:
    """Do what the command line asks for; raises DeblurError."""
    if values.action == "add":
        if values.export is None:
            raise UsageError("nothing to add", hint="give the folder of an export, or an engine file")
        target = add_model(values.export, name=values.name, replace=values.replace)
        print(f"added {target}; use it with --engine {target.name}")
        return 0
    if values.export is not None or values.name or values.replace:
        raise UsageError("these arguments are for adding", hint="write: models add DIR")
    models = list(list_models())
    print(format_table(models))
    print(f"\nyours are in {models_folder()}")
    for line in (line for model in models for line in model.broken):
        say(f"warning: {line}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    values = build_parser().parse_args(arguments)
    return run_cli(lambda _: run(values), debug=values.debug)


if __name__ == "__main__":
    sys.exit(main())
