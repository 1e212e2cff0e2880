"""The process of one step: `python -m benchmarks.gpu_check.child MODULE:FUNCTION ARGUMENTS RESULT`.

`ARGUMENTS` are the keyword arguments as JSON, `RESULT` is the file for facts and outcome.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import traceback
from importlib import import_module
from pathlib import Path

from benchmarks.gpu_check.steps import CheckError, NotRunError, Report


def describe(error: BaseException) -> str:
    """Return one line for an exception: its text, with the class in front unless the text is written for people."""
    text = " ".join(str(error).split())
    is_for_people = isinstance(error, CheckError | NotRunError) or hasattr(error, "hint")  # the runtime's have a hint
    return text if is_for_people else f"{type(error).__name__}: {text or 'no message'}"


def main(words: list[str]) -> int:
    """Run one step and write its outcome; return 0 if it passed or cannot run here, else 1."""
    function, arguments, result = words
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file may have gigabytes
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(name)s %(message)s")
    report = Report(Path(result))
    module, _, name = function.partition(":")
    try:
        getattr(import_module(f"benchmarks.gpu_check.{module}"), name)(report, **json.loads(arguments))
    except NotRunError as missing:
        report.end("not run", describe(missing))
    except BaseException as error:  # noqa: BLE001 - every end of a step becomes a line
        traceback.print_exc()
        report.end("failed", describe(error))
        return 1
    else:
        report.end("passed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
