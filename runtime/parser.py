"""The parser of every command line: short errors, `--version`, and the name that the user typed."""

from __future__ import annotations

import argparse
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn

from runtime.redaction import redact

DISTRIBUTION = "deblur-toolkit"
_PROJECT = Path(__file__).parents[1] / "pyproject.toml"


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors are one line with exit code 2 instead of the usage of all options.

    `module` is what comes after `python -m`; the usage line shows the console script instead if that was typed.
    """

    def __init__(self, module: str, **settings: Any) -> None:
        super().__init__(**{"prog": program_name(module)} | settings)
        self.add_argument(
            "--version",
            action="version",
            version=f"{DISTRIBUTION} {toolkit_version()}",
            help="show the version of the toolkit and exit",
        )

    def error(self, message: str) -> NoReturn:
        """Print the error as one line and end the process with code 2."""
        self.exit(2, f"error: {redact(' '.join(message.split()))}; see {self.prog} --help\n")


def program_name(module: str) -> str:
    """Return the name for a usage line: the console script that was typed, or `python -m MODULE`."""
    typed = Path(sys.argv[0]).name
    return typed if typed.startswith("deblur") else f"python -m {module}"


def toolkit_version() -> str:
    """Return the version of the toolkit: of its checkout, or of the installed package."""
    if _PROJECT.is_file():
        text = _PROJECT.read_text(encoding="utf-8")
        found = re.search(rf'^name = "{DISTRIBUTION}"\nversion = "([^"]+)"$', text, re.MULTILINE)
        if found:
            return found[1]
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "of an unknown version"
