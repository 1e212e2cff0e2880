"""`deblur-bench`: the names, the help, and what a command gets."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

from benchmarks.__main__ import COMMANDS, main

WITHOUT_OPTIONS = [name for name, command in COMMANDS.items() if not command.has_options]


@pytest.fixture(autouse=True)
def _console_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/deblur-bench"])


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    shown = capsys.readouterr().out
    assert shown.startswith("usage: deblur-bench [-h] NAME ...\n")
    for name, command in COMMANDS.items():
        assert [line.split(maxsplit=1) for line in shown.splitlines()].count([name, command.summary]) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_module(name: str) -> None:
    assert find_spec(COMMANDS[name].module) is not None


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_prints_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: deblur-bench {name} ")


def test_a_command_gets_the_arguments_after_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["scaling", "--no-such-option"])
    assert "unrecognized arguments: --no-such-option" in capsys.readouterr().err


@pytest.mark.parametrize("name", WITHOUT_OPTIONS)
def test_a_command_without_options_accepts_none(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([name, "--no-such-option"])
    assert f"see deblur-bench {name} --help" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["no-such-command"]])
def test_a_missing_or_unknown_name_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "NAME" in capsys.readouterr().err


def test_as_a_module_it_prints_the_facts_of_this_machine() -> None:
    command = [sys.executable, "-m", "benchmarks", "machine"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)
