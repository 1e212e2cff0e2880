"""The worker process of the upload page: reads jobs from standard input and writes messages to standard output.

It runs until its input ends, keeps its engines loaded between jobs, and may be killed at any time. `messages` describes
the lines. It is started by the job queue, not by people, so it reports errors as messages instead of through `run_cli`.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from queue import Queue
from typing import TextIO

from runtime.engines import DEFAULT_SIZE, PROVIDERS, Engine, Provider, open_engine
from runtime.engines.timing import trial_frame
from runtime.errors import DeblurError, EngineError, OutOfMemoryError, is_out_of_memory
from runtime.parser import CommandParser
from runtime.web.job import restore_upload
from runtime.web.messages import Job, Message
from runtime.web.settings import Limits


def describe_error(error: Exception) -> Message:
    """Return the message for a visitor; the traceback of a bug goes to the log."""
    if is_out_of_memory(error) or isinstance(error, OutOfMemoryError):
        return {"refused": "not enough memory for this file", "hint": "upload a smaller file", "out_of_memory": True}
    if isinstance(error, EngineError):
        return {"refused": error.what, "hint": "choose another engine, or upload another file"}
    if isinstance(error, DeblurError):
        return {"refused": error.what, "hint": error.hint}
    traceback.print_exception(error)
    return {"refused": f"this is a bug ({type(error).__name__})", "hint": "the log of the server has details"}


def hide_folder(message: Message, folder: str) -> Message:
    """Return a message in which the files of a folder have their names only: paths of the server are not for visitors.

    Libraries name the file in their errors, and a few of those texts become part of a warning or an error.
    """
    text = json.dumps(message)
    for path in {folder, os.path.realpath(folder)}:
        text = text.replace(json.dumps(path + os.sep)[1:-1], "").replace(json.dumps(path)[1:-1], "the upload")
    hidden: Message = json.loads(text)
    return hidden


def main(arguments: list[str] | None = None) -> int:
    """Load the engines and run jobs until standard input ends; return an exit code if an engine cannot be opened."""
    parser = CommandParser("runtime.web.worker", description=__doc__)
    parser.add_argument("--engine", action="append", required=True, help="engine file; repeat it for several engines")
    parser.add_argument("--provider", choices=PROVIDERS, default="auto", help="library that runs an .onnx engine")
    parser.add_argument(
        "--limits", type=json.loads, default={}, help="fields of Limits as JSON (default: its defaults)"
    )
    options = parser.parse_args(arguments)
    limits = Limits(**options.limits)
    output = _reserve_standard_output()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server; this process ends with it

    def send(message: Message) -> None:
        print(json.dumps(message), file=output, flush=True)

    try:
        engines = {path: _open_warm_engine(path, options.provider) for path in options.engine}
    except DeblurError as error:
        send(describe_error(error))
        return error.exit_code
    memory_bytes = round(limits.memory_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    facts = {path: {"spec": engine.spec.to_dict(), "backend": engine.backend} for path, engine in engines.items()}
    send({"engines": facts})
    for job in _read_jobs():
        try:
            message = {"result": restore_upload(job, engines[job.engine], limits, send)}
        except Exception as error:  # noqa: BLE001 - the visitor gets a sentence, and the next job runs
            message = describe_error(error)
        send(hide_folder(message, job.folder))
    return 0


def _reserve_standard_output() -> TextIO:
    """Return standard output for messages only; anything that libraries print there goes to standard error."""
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return output


def _read_jobs() -> Iterator[Job]:
    """Yield jobs as they arrive. When standard input ends, remove the files of the current job and exit at once."""
    queue: Queue[Job] = Queue()
    current: list[Job] = []

    def read_input() -> None:
        for line in sys.stdin:
            queue.put(Job(**json.loads(line)))
        for job in current:
            shutil.rmtree(job.folder, ignore_errors=True)
        os._exit(0)

    threading.Thread(target=read_input, daemon=True, name="job-reader").start()
    while True:
        current[:] = [queue.get()]
        yield current[0]


def _open_warm_engine(path: str, provider: Provider) -> Engine:
    """Open an engine and run it once, so that the first visitor does not wait for its initialization."""
    engine = open_engine(path, provider=provider)
    engine.infer(trial_frame(DEFAULT_SIZE))
    return engine


if __name__ == "__main__":
    sys.exit(main())
