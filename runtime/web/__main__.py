"""`python -m runtime.web`: a page that sharpens the pictures and clips that are uploaded to it."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from runtime.cli import say
from runtime.engines import BUNDLED_NAMES, PROVIDERS, resolve_engine
from runtime.errors import DeblurError, EngineError, UsageError
from runtime.monitor import Address
from runtime.web.settings import Settings

PAGE = Path(__file__).with_name("page.py")
_DEFAULT = Address("127.0.0.1", 8501)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m runtime.web", description=__doc__)
    add = parser.add_argument
    add(
        "--engine",
        type=resolve_engine,
        action="append",
        metavar="E",
        help=f"an engine to choose from, again for each (default: {', '.join(BUNDLED_NAMES)})",
    )
    add("--provider", choices=PROVIDERS, default="auto", help="what runs an .onnx engine (default: the faster)")
    add(
        "--serve",
        type=Address.parse,
        default=_DEFAULT,
        metavar="[HOST:]PORT",
        help=f"where the page is (default: {_DEFAULT}, for this machine alone)",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Check what can be checked, and become Streamlit; returns an exit code where that is not possible."""
    options = parse(arguments)
    try:
        if find_spec("streamlit") is None:
            raise UsageError("Streamlit is not installed", hint="pip install 'deblur-toolkit[web]'")
        engines = options.engine or [resolve_engine(name) for name in BUNDLED_NAMES]
        for path in engines:
            if not path.is_file():
                raise EngineError("no such engine", path, hint=f"take one that is bundled: {', '.join(BUNDLED_NAMES)}")
        _require_free(options.serve)
    except DeblurError as error:
        say(f"error: {error}")
        return error.exit_code
    return _become_streamlit(
        options.serve, Settings(engines=tuple(str(path.resolve()) for path in engines), provider=options.provider)
    )


def _become_streamlit(address: Address, settings: Settings) -> NoReturn:
    flags = {
        "server.address": address.host,
        "server.port": address.port,
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "server.maxUploadSize": settings.limits.upload_mb,
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        "logger.level": "warning",
    }
    command = [sys.executable, "-m", "streamlit", "run", str(PAGE)]
    command += [f"--{name}={value}" for name, value in flags.items()]
    os.execv(sys.executable, [*command, "--", settings.to_json()])  # noqa: S606 - signals then reach it directly


def _require_free(address: Address) -> None:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((address.host, address.port))
    except OSError as error:
        raise UsageError(f"cannot serve ({error.strerror})", str(address), hint="give another --serve PORT") from error


if __name__ == "__main__":
    sys.exit(main())
