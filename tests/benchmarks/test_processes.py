"""Jobs of several processes: cost, failures, and no process left behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.harness.processes import JobError, run_job

_BUSY = "import time\nwhile time.process_time() < 0.3: pass\n"
_COPY = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_processor_time_is_that_of_all_processes() -> None:
    cost = run_job([python(_BUSY), python(_BUSY)])
    assert 0.6 <= cost.cpu_s < 5


def test_waiting_is_no_processor_time() -> None:
    cost = run_job([python("import time; time.sleep(0.5)")])
    assert cost.wall_s > 0.5 > cost.cpu_s


def test_each_command_reads_the_output_of_the_one_before(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_job([python("print('frames')"), python(_COPY), python(f"import sys; open({str(out)!r}, 'w').write(input())")])
    assert out.read_text() == "frames"


def test_messages_and_variables() -> None:
    cost = run_job([python("import os, sys; print(os.environ['ANY'], file=sys.stderr)")], environment={"ANY": "thing"})
    assert cost.messages == "thing\n"


@pytest.mark.parametrize(
    ("commands", "reason"),
    [
        ([["/no/such/program"]], "program did not start (No such file or directory)"),
        ([python("raise SystemExit('no licence')")], "failed with code 1: no licence"),
        ([python("import os; os.abort()")], "was ended by signal 6"),
        ([python("raise SystemExit('first')"), python("raise SystemExit('second')")], "first; .* code 1: second"),
        ([python("print()"), ["/no/such/program"]], "program did not start"),
    ],
)
def test_a_failure_is_one_line_with_its_reason(commands: list[list[str]], reason: str) -> None:
    with pytest.raises(JobError, match=reason.replace("(", r"\(").replace(")", r"\)")) as caught:
        run_job(commands)
    assert "\n" not in str(caught.value)


def test_a_writer_ends_when_its_reader_does() -> None:
    with pytest.raises(JobError, match=r"BrokenPipe|signal"):
        run_job([python("while True: print('x' * 1000, flush=True)"), python("pass")], limit_s=60)


def test_a_job_that_takes_too_long_is_ended() -> None:
    with pytest.raises(JobError, match="signal 9"):
        run_job([python("import time; time.sleep(600)")], limit_s=0.2)
