"""The end of every command line: one line on standard error and an exit code."""

from __future__ import annotations

import errno
import io
import sys
import traceback
from collections.abc import Callable

from runtime.errors import DeblurError, OutOfMemoryError, UsageError, is_out_of_memory
from runtime.interrupt import Interruption
from runtime.libraries import explain_import_error
from runtime.redaction import redact


def run_cli(command: Callable[[Interruption], int], *, debug: bool = False) -> int:
    """Run a command line and return its exit code; no exception escapes.

    `command` gets the `Interruption` of this run and returns its exit code. A `DeblurError` becomes its one line and
    its code, any other exception becomes a bug report with code 1, Ctrl-C and SIGTERM become 130 and 143. `debug`
    also prints the traceback.
    """
    _allow_any_name()
    with Interruption() as interruption:
        try:
            return command(interruption) or interruption.exit_code
        except KeyboardInterrupt:
            say("interrupted")
        except Exception as error:  # noqa: BLE001 - the user gets one line, whatever it is
            return report_error(error, debug=debug)
    return interruption.exit_code


def _allow_any_name() -> None:
    """Let standard output take names of files that are not UTF-8, as standard error does."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def report_error(error: Exception, *, debug: bool = False) -> int:
    """Print an error as one line and return its exit code; `debug` prints the traceback before it."""
    if debug:
        say(redact("".join(traceback.format_exception(error))).rstrip())
    line, code = describe_error(error)
    say(f"error: {line}")
    return code


def describe_error(error: Exception) -> tuple[str, int]:
    """Return one line for the user, and the exit code, for an exception of any kind."""
    if is_out_of_memory(error) and not isinstance(error, OutOfMemoryError):
        error = OutOfMemoryError("not enough memory", hint="use smaller frames, or a machine with more")
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:  # every check of a path may raise it
        error = UsageError("file name is too long", error.filename, hint="give a shorter one")
    error = explain_import_error(error) or error
    if isinstance(error, DeblurError):
        return str(error), error.exit_code
    reason = redact(" ".join(str(error).split())) or "no reason given"
    return f"this is a bug ({type(error).__name__}: {reason}); report it with the output of --debug", 1


def say(line: str) -> None:
    """Print a line for people on standard error; standard output is kept for frames."""
    print(line, file=sys.stderr, flush=True)
