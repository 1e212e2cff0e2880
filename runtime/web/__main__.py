"""`python -m runtime.web`: serve the upload page, which restores uploaded images and clips."""

from __future__ import annotations

import argparse
import os
import re
import socket
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from runtime.address import LOOPBACK, Address
from runtime.cli import run_cli
from runtime.engines import BUNDLED_NAMES, PROVIDERS, Provider, resolve_engine
from runtime.errors import EngineError, UsageError
from runtime.libraries import install_hint
from runtime.parser import CommandParser
from runtime.web.settings import Settings

_DEFAULT = Address(LOOPBACK, 8501)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = CommandParser("runtime.web", description=__doc__)
    add = parser.add_argument
    add(
        "--engine",
        type=resolve_engine,
        action="append",
        metavar="E",
        help="bundled engine or engine file that a visitor can choose; repeat it for several engines "
        f"(default: all of {', '.join(BUNDLED_NAMES)})",
    )
    add("--provider", choices=PROVIDERS, default="auto", help="library that runs an .onnx engine (default: the faster)")
    add(
        "--serve",
        type=Address.parse,
        default=_DEFAULT,
        metavar="[HOST:]PORT",
        help=f"address of the upload page (default: {_DEFAULT}; default host: loopback)",
    )
    add(
        "--allow-host",
        type=_parse_host_name,
        action="append",
        default=[],
        metavar="NAME",
        help="another host name of the page, such as that of a proxy; repeat it for several names "
        "(default: the host of --serve and localhost; IP addresses are always allowed)",
    )
    add("--debug", action="store_true", help="print the traceback of an error")
    return parser


def _parse_host_name(text: str) -> str:
    if not re.fullmatch(r"[\w.-]+", text, re.ASCII):
        raise argparse.ArgumentTypeError(
            f"expected a host name such as deblur.example.org, without a port, got {text!r}"
        )
    return text


def main(arguments: list[str] | None = None) -> int:
    """Check the options and replace this process with Streamlit; return an exit code if that is not possible."""
    options = build_parser().parse_args(arguments)
    engines: list[Path] = options.engine or [resolve_engine(name) for name in BUNDLED_NAMES]
    return run_cli(
        lambda _: serve(options.serve, engines, options.provider, tuple(options.allow_host)), debug=options.debug
    )


def serve(address: Address, engines: list[Path], provider: Provider, other_names: tuple[str, ...] = ()) -> NoReturn:
    """Replace this process with Streamlit; raises UsageError or EngineError before that."""
    if find_spec("streamlit") is None:
        raise UsageError("Streamlit is not installed", hint=install_hint("streamlit", "PIL"))
    for path in engines:
        if not os.path.isfile(path):  # noqa: PTH113 - False for names that are too long
            raise EngineError("no such engine", path, hint=f"give a file, or one of {', '.join(BUNDLED_NAMES)}")
    _require_free(address)
    paths = tuple(str(path.resolve()) for path in engines)
    settings = add_benchmarks(Settings(engines=paths, provider=provider, address=address, other_names=other_names))
    # exec instead of a child process, so that signals reach Streamlit directly.
    os.execv(sys.executable, [sys.executable, "-m", "runtime.web.server", settings.to_json()])  # noqa: S606


def add_benchmarks(settings: Settings) -> Settings:
    """Return the settings with the sample clips and reports of the `benchmarks` package, as far as they exist.

    The runtime does not depend on `benchmarks`, which is not installed on every machine. So this command line is the
    only place that looks for the package; the page gets paths, or None and then shows neither samples nor reports.
    """
    spec = find_spec("benchmarks")
    for folder in spec.submodule_search_locations or [] if spec else []:
        blurred, sharp = Path(folder, "clips/demo_blurred.mp4"), Path(folder, "clips/demo_sharp.mp4")
        if blurred.is_file() and sharp.is_file():
            settings = replace(settings, sample_blurred=str(blurred), sample_sharp=str(sharp))
        reports = Path(folder, "results")
        if reports.is_dir():
            settings = replace(settings, reports=str(reports))
    return settings


def _require_free(address: Address) -> None:
    """Raise UsageError if the address cannot be bound."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((address.host, address.port))
    except OSError as error:
        raise UsageError(f"cannot serve ({error.strerror})", str(address), hint="give another --serve PORT") from error


if __name__ == "__main__":
    sys.exit(main())
