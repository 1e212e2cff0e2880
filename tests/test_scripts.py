"""The console scripts of pyproject.toml: each has a target, and its usage line shows the name that was typed."""

from __future__ import annotations

import re
import sys
from collections import Counter
from importlib import import_module

import pytest

from tests.conftest import ROOT

PROJECT = (ROOT / "pyproject.toml").read_text()
TABLE = PROJECT.partition("[project.scripts]\n")[2].partition("\n[")[0]
SCRIPTS = dict(re.findall(r'^([\w-]+) = "(.+)"$', TABLE, re.MULTILINE))
VERSION = re.findall(r'^version = "(.+)"$', PROJECT, re.MULTILINE)[0]


def run_script(script: str, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, _, function = SCRIPTS[script].partition(":")
    monkeypatch.setattr(sys, "argv", list(arguments))
    getattr(import_module(module), function)()


def test_the_scripts_are_those_of_the_documentation() -> None:
    assert set(SCRIPTS) == {"deblur", *(f"deblur-{name}" for name in ("batch", "web", "export", "train", "bench"))}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_prints_its_help_under_its_own_name(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        run_script(script, f"/usr/bin/{script}", "--help", monkeypatch=monkeypatch)
    assert capsys.readouterr().out.startswith(f"usage: {script} ")


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_module_prints_its_help_under_the_name_of_the_module(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        run_script(script, "/src/package/__main__.py", "--help", monkeypatch=monkeypatch)
    module = SCRIPTS[script].partition(":")[0].removesuffix(".__main__")
    assert capsys.readouterr().out.startswith(f"usage: python -m {module} ")


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_tells_its_version(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        run_script(script, f"/usr/bin/{script}", "--version", monkeypatch=monkeypatch)
    assert capsys.readouterr().out == f"deblur-toolkit {VERSION}\n"


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_typo_is_one_line(script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_script(script, f"/usr/bin/{script}", "--no-such-option", monkeypatch=monkeypatch)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith(f"; see {script} --help")


def test_a_typo_shows_no_password(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_script("deblur", "deblur", "--sauce", "rtsp://me:secret@host/live", monkeypatch=monkeypatch)
    assert "secret" not in capsys.readouterr().err


ELSEWHERE = {"benchmarks/peers/vs_mlrt/script.py"}
"""Scripts that run in an environment without the toolkit."""


def test_every_parser_is_the_one_of_the_toolkit() -> None:
    places = [
        str(path.relative_to(ROOT))
        for package in ("runtime", "train", "export", "benchmarks")
        for path in sorted((ROOT / package).rglob("*.py"))
        if "argparse.ArgumentParser(" in path.read_text().replace("class CommandParser(argparse.ArgumentParser)", "")
    ]
    assert set(places) == ELSEWHERE


def test_one_command_collects_all_tests() -> None:
    """Pytest refuses two files of a name in folders that are no packages."""
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if not (path.parent / "__init__.py").exists()]
    assert [name for name, count in Counter(path.name for path in files).items() if count > 1] == []
