"""A process that runs command lines one after another, so that a case of a fuzzer takes milliseconds."""

from __future__ import annotations

import importlib
import io
import os
import re
import resource
import sys
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryFile

LIMIT_BYTES = 12 << 30
"""Address space of the worker: a case that needs more must not take the memory of the whole machine."""


@dataclass(frozen=True)
class Request:
    """A command line: the module of its `main`, its arguments and its working directory."""

    module: str
    arguments: list[str]
    folder: Path


@dataclass(frozen=True)
class Answer:
    """Exit code, standard error, and the largest memory of the process during the case."""

    code: int
    error: str
    peak_mib: int


def serve(requests: Connection, setup: str) -> None:
    """Answer requests until the connection ends; `setup` names a function of `tests.fuzz.shortcuts` to call first."""
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with Path(os.devnull).open("r+b") as null:
        os.dup2(null.fileno(), 0)
        os.dup2(null.fileno(), 1)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - as the interpreter does, for the life of the process
    os.fsync = lambda _: None
    os.environ.pop("DISPLAY", None)
    import runtime  # noqa: F401 - loads OpenCV before PyAV

    if setup:
        getattr(importlib.import_module("tests.fuzz.shortcuts"), setup)()
    while True:
        try:
            request = requests.recv()
        except EOFError:
            return
        requests.send(answer(request))


def answer(request: Request) -> Answer:
    """Run a command line and catch all that it prints, also from libraries in C."""
    main = _find_main(request.module)
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to the present value
    with ExitStack() as stack:
        stack.callback(os.chdir, Path.cwd())
        os.chdir(request.folder)
        output = stack.enter_context(TemporaryFile())
        _redirect(2, output.fileno(), stack)
        text = stack.enter_context(
            io.TextIOWrapper(os.fdopen(os.dup(output.fileno()), "wb"), errors="backslashreplace")
        )
        stack.enter_context(redirect_stderr(text))
        stack.enter_context(redirect_stdout(io.TextIOWrapper(io.BytesIO(), encoding="utf-8")))
        code = _run(main, request.arguments)
        text.flush()
        output.seek(0)
        error = output.read().decode(errors="replace")
    return Answer(code, error, _peak_mib())


def _find_main(name: str) -> Callable[[list[str]], int]:
    module = importlib.import_module(name)
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{name}.__main__")
    return module.main


def _redirect(descriptor: int, target: int, stack: ExitStack) -> None:
    before = os.dup(descriptor)
    stack.callback(os.close, before)
    stack.callback(os.dup2, before, descriptor)
    os.dup2(target, descriptor)


def _run(main: Callable[[list[str]], int], arguments: list[str]) -> int:
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - a traceback of a process that ends with code 1
        import traceback

        traceback.print_exc()
        return 1
    return code if isinstance(code, int) else 0


def _peak_mib() -> int:
    (peak_kib,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak_kib) >> 10
