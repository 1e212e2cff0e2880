"""docs/files.md says what a run keeps of real files."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.video import main
from tests.rig import hdr_facts, image_traits, video_traits
from tests.rig.files_page import TABLES, format_table
from tests.rig.traits import Result


@pytest.mark.parametrize("kind", ["videos", "images"])
def test_the_page_says_what_is_measured(
    kind: str, invert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    rig = {"videos": video_traits, "images": image_traits}[kind]
    sources = rig.make_sources(tmp_path)

    def restore(name: str, suffix: str) -> Result:
        out = tmp_path / f"{name}_out{suffix}"
        if not out.exists():
            command = ["--source", str(sources[name]), "--out", str(out), "--engine", str(invert), "--guard", "off"]
            capsys.readouterr()
            assert main([*command, "--provider", "cpu", "--threads", "1"]) == 0
            printed[name, suffix] = capsys.readouterr().err.splitlines()
        return Result(sources[name], out, printed[name, suffix])

    printed: dict[tuple[str, str], list[str]] = {}
    table = format_table(rig.TRAITS, rig.SUFFIXES, restore)
    if request.config.getoption("--write-files"):
        TABLES[kind].write(table)
    assert TABLES[kind].read() == table, "docs/files.md is not what was measured: pytest --write-files"


def test_the_page_says_what_becomes_of_10_bits_and_hdr(
    invert: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    def restore(source: Path, codec: str) -> Path:
        out = tmp_path / f"{source.stem}_{codec}{hdr_facts.OUTPUTS[codec]}"
        command = ["--source", source, "--out", out, "--engine", invert, "--guard", "off", "--codec", codec]
        assert main([str(word) for word in (*command, "--provider", "cpu", "--threads", 1)]) == 0
        return out

    table = hdr_facts.format_table(hdr_facts.make_sources(tmp_path), restore)
    if request.config.getoption("--write-files"):
        hdr_facts.TABLE.write(table)
    assert hdr_facts.TABLE.read() == table, "docs/files.md is not what was measured: pytest --write-files"
