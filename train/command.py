"""End of every command line of training: `runtime.cli.run_cli`, with exceptions of torch and files translated."""

from __future__ import annotations

from collections.abc import Callable

from runtime.cli import run_cli, say
from runtime.errors import OutOfMemoryError, OutputError, is_out_of_memory
from runtime.interrupt import Interruption
from train.errors import InterruptedRunError

_TORCH_OUT_OF_MEMORY = ("out of memory", "can't allocate memory")
"""Texts in the RuntimeErrors that torch raises on GPUs and on CPUs."""


def run_command(command: Callable[[Interruption], None], *, debug: bool = False) -> int:
    """Run a command and return its exit code; an error becomes one line on standard error.

    In addition to what `run_cli` does, a stopped run says how to resume it, an OSError becomes an OutputError (exit
    code 6), and a lack of memory says which settings need less (exit code 7). `debug` prints the traceback too.
    """

    def run(interruption: Interruption) -> int:
        try:
            command(interruption)
        except InterruptedRunError as stop:
            say(str(stop))
            return stop.exit_code
        except (OSError, MemoryError, RuntimeError) as error:
            translated = translate_error(error)
            if translated is error:
                raise
            raise translated from error
        return 0

    return run_cli(run, debug=debug)


def translate_error(error: Exception) -> Exception:
    """Return the DeblurError for an exception of torch or of the file system; a bug is returned unchanged."""
    if is_out_of_memory(error) or any(text in str(error) for text in _TORCH_OUT_OF_MEMORY):
        return OutOfMemoryError("not enough memory", hint="give a smaller --set batch=N or data.size_px")
    if isinstance(error, OSError):
        reason = error.strerror or str(error) or type(error).__name__
        return OutputError(
            f"cannot read or write a file ({reason})", error.filename, hint="check the path, its permissions and space"
        )
    return error
