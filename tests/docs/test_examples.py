"""Every example in README.md and docs/ runs.

The fenced `sh` and `python` blocks of a page run in order, in one folder that holds `clip.mp4`, `photo.jpg` and
`photos/`. A block with `title="NAME"` is written to that file. A block after
`<!-- not run: REASON -->` is not run; its commands must still parse.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import cv2
import pytest

from tests.conftest import ROOT, make_image, write_clip
from train.models import GENERATORS

_FENCE = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?"
    r"^```(?P<language>sh|python)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    code: str
    line: int
    reason: str | None
    """Why it is not run; None if it is."""
    title: str | None
    """File that it is written to; None for a block that is run."""


def find_blocks(page: Path) -> list[Block]:
    """Return the `sh` and `python` blocks of a page in order."""
    text = page.read_text()
    return [
        Block(
            language=match["language"],
            code=match["code"],
            line=1 + text.count("\n", 0, match.start("code")),
            reason=match["reason"],
            title=match["title"],
        )
        for match in _FENCE.finditer(text)
    ]


def _load_generator() -> object:
    spec = importlib.util.spec_from_file_location("generate_cli", ROOT / "docs" / "generate_cli.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate_cli"] = module
    spec.loader.exec_module(module)
    return module


GENERATOR = _load_generator()
MODULES = {script: module for module, script in GENERATOR.SCRIPTS.items() if script}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the files that examples name, and the commands of the package first on the path."""
    work, commands = tmp_path / "work", tmp_path / "bin"
    (work / "photos").mkdir(parents=True)
    commands.mkdir()
    write_clip(work / "clip.mp4", audio="aac")
    for index, path in enumerate([work / "photo.jpg", work / "photos" / "a.jpg", work / "photos" / "b.jpg"]):
        cv2.imwrite(str(path), make_image(96, 64, seed=index))
    for name, module in {
        "python": "",
        **{name: f"-m {module}" for name, module in MODULES.items() if " " not in name},
    }.items():
        script = commands / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("DEBLUR_MODELS", str(tmp_path / "models"))
    (work / "runtime" / "models").mkdir(parents=True)
    (work / "runtime" / "models" / "edge-s").symlink_to(ROOT / "runtime" / "models" / "edge-s")
    monkeypatch.chdir(work)
    monkeypatch.syspath_prepend(work)
    with patch.dict(GENERATORS):  # a page adds a network
        yield work


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_run(page: Path, folder: Path) -> None:
    names: dict[str, object] = {"__name__": "__main__"}
    for block in find_blocks(page):
        if block.reason is not None:
            continue
        if block.title:
            path = folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.code)
        elif block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), names)  # noqa: S102 - our own pages
        elif code := "\n".join(_runnable(block.code)):
            result = subprocess.run(
                ["/bin/bash", "-euo", "pipefail", "-c", code], capture_output=True, text=True, check=False
            )
            assert result.returncode == 0, f"{page.name}:{block.line}\n{code}\n{result.stdout}{result.stderr}"


def _runnable(code: str) -> Iterator[str]:
    """Yield the lines of a shell block without `.venv/bin/`; `make TARGET` is only looked up, as CI runs those."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in code.splitlines():
        words = line.split()
        if words[:1] == ["make"]:
            assert words[1] in targets, line
        else:
            yield line.replace(".venv/bin/", "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_are_not_run_parse(page: Path) -> None:
    for block in find_blocks(page):
        if block.language == "sh" and block.reason is not None:
            for line in block.code.replace("\\\n", " ").splitlines():
                _require_parses(line, f"{page.name}:{block.line}")


def _require_parses(line: str, place: str) -> None:
    """Parse each command of a line that is one of ours."""
    words = shlex.split(line, comments=True)
    ends = [index for index, word in enumerate(words) if word in {"|", "&&"}]
    for start, end in zip([0, *(end + 1 for end in ends)], [*ends, len(words)], strict=True):
        _require_command_parses(words[start:end], place)


def _require_command_parses(words: list[str], place: str) -> None:
    redirections = [index for index, word in enumerate(words) if word in {">", "2>"}]
    words = words[: min(redirections, default=len(words))]
    if words[:1] == ["sudo"]:
        words = words[3:] if words[1:2] == ["-u"] else words[1:]
    if words[:1] and Path(words[0]).name in {"python", "python3"} and words[1:2] == ["-m"]:
        module, arguments = words[2], words[3:]
    elif words[:1] and words[0].removeprefix(".venv/bin/") in MODULES:
        module, arguments = MODULES[words[0].removeprefix(".venv/bin/")], words[1:]
    else:
        return
    if module not in GENERATOR.SCRIPTS:
        return
    try:
        GENERATOR.load_parser(module).parse_args(arguments)
    except SystemExit as error:
        pytest.fail(f"{place}: does not parse ({error}): {shlex.join(words)}")


def test_the_page_of_the_command_line_is_current() -> None:
    assert GENERATOR.PAGE.read_text() == GENERATOR.render_page(), "run `python docs/generate_cli.py`"
