"""Cases of a fuzzer, run in a worker, and the rules that all of them keep."""

from __future__ import annotations

import multiprocessing
import random
import re
import shlex
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import av
import cv2
import pytest

from tests.fuzz.worker import Answer, Request, serve

LIMIT_S = 60.0
"""Seconds after which a case is a hang; cases take 20 to 100 ms."""
MAX_PEAK_MIB = 2048
_MAX_REPORTED = 12
IMAGE_SUFFIXES = (".png", ".jpg", ".webp", ".tiff", ".bmp")
SUFFIXES = (*IMAGE_SUFFIXES, ".mp4", ".mov", ".mkv")
"""Kinds of outputs that play."""

Words = dict[int, str]
"""Pattern of the last line of standard error by exit code; a code that is not here is impossible."""


@dataclass(frozen=True)
class Case:
    """A command line on mutated files."""

    module: str
    arguments: list[str]
    outputs: list[Path] = field(default_factory=list)
    """Files that play, if they exist afterwards."""
    check: Callable[[int], str] = lambda _: ""
    """Function that gets the exit code and returns what is wrong afterwards; empty if nothing is."""


MakeCase = Callable[[random.Random, Path], Case]
"""Function that writes the files of a case into a folder."""


class Worker:
    """The process that runs cases; a case that ends or hangs it is an answer, and the next one gets a new process."""

    def __init__(self, setup: str = "") -> None:
        self._setup = setup
        self._process: multiprocessing.process.BaseProcess | None = None

    def run(self, request: Request) -> Answer | str:
        """Return the answer of a command line, or what became of the process: a signal or a hang."""
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._connection, theirs = context.Pipe()
            self._process = context.Process(target=serve, args=(theirs, self._setup), daemon=True)
            self._process.start()
            theirs.close()
        try:
            self._connection.send(request)
            # The first case waits for the imports, too.
            if self._connection.poll(LIMIT_S):
                return self._connection.recv()
            end = f"no end after {LIMIT_S:g} s"
        except (EOFError, ConnectionError):
            self._process.join()
            end = f"the process ended with {self._process.exitcode}"
        self.close(wait_s=0)
        return end

    def close(self, wait_s: float = 10) -> None:
        """End the process, with a signal if it does not end by itself."""
        if self._process is not None:
            self._connection.close()
            self._process.join(wait_s)
            self._process.kill()
            self._process.join()
            self._process = None


def run_cases(
    worker: Worker, family: str, make_case: MakeCase, words: Words, *, seeds: Iterable[int], folder: Path
) -> None:
    """Run a case for each seed; fails the test with the command lines of those that break a rule.

    The files of those cases stay in `folder`, so that the command line can be typed.
    """
    broken: list[str] = []
    codes: dict[int | str, int] = {}
    for seed in seeds:
        place = folder / f"{family}-{seed}"
        place.mkdir()
        case = make_case(random.Random(f"{family} {seed}"), place)  # noqa: S311 - seeded on purpose
        answer = worker.run(Request(case.module, case.arguments, place))
        code = answer if isinstance(answer, str) else answer.code
        codes[code] = codes.get(code, 0) + 1
        if reason := answer if isinstance(answer, str) else find_broken_rule(answer, case, words):
            command = shlex.join(["python", "-m", case.module, *case.arguments])
            broken.append(f"seed {seed}: {reason}\n  cd {place} && {command}")
        else:
            shutil.rmtree(place)
    print(f"{family}: cases by exit code {dict(sorted(codes.items(), key=str))}")
    if broken:
        shown = "\n".join(broken[:_MAX_REPORTED])
        pytest.fail(f"{len(broken)} {family} cases broke a rule:\n{shown}", pytrace=False)


def find_broken_rule(answer: Answer, case: Case, words: Words) -> str:
    """Return which rule the answer breaks; empty if it breaks none."""
    lines = [
        line for line in answer.error.splitlines() if not line.startswith("  ")
    ]  # details of an error are indented
    last = lines[-1] if lines else ""
    if "Traceback (most recent" in answer.error:
        return f"a traceback: {last}"
    if answer.code not in words:
        return f"exit code {answer.code} is impossible: {last}"
    if answer.peak_mib > MAX_PEAK_MIB:
        return f"{answer.peak_mib} MiB of memory: {last}"
    errors = [line for line in lines if re.match(r"error: |.*: error: |failed  ", line)]
    if answer.code and not (errors and last == errors[-1]):
        return f"the last line is no error: {last}"
    if not re.search(words[answer.code], last):
        return f"an untrue diagnosis with code {answer.code}: {last}"
    unplayable = [f"{path.name} does not play" for path in case.outputs if not plays(path)]
    return "; ".join(filter(None, [*unplayable, case.check(answer.code)]))


def plays(path: Path) -> bool:
    """Whether an output is missing, or each of its frames can be decoded."""
    if path.is_dir():
        return all(
            plays(file) for file in path.iterdir() if file.suffix in SUFFIXES and ".partial" not in file.suffixes
        )
    if not path.is_file():
        return True
    if path.suffix in IMAGE_SUFFIXES:
        return cv2.imread(str(path)) is not None
    try:
        with av.open(str(path)) as container:
            return sum(1 for _ in container.decode(video=0)) > 0
    except av.FFmpegError:
        return False
