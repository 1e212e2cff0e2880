"""`deblur models`: a user's own engines by name, added only if their hashes are right, listed with the bundled ones."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from runtime import open_engine
from runtime.engines import BUNDLED, resolve_engine
from runtime.engines.names import require_engine
from runtime.errors import EngineError
from runtime.model_folder import find_model, models_folder
from runtime.models.__main__ import main
from runtime.spec import METADATA_KEY, EngineSpec
from runtime.video import run_and_exit


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEBLUR_MODELS", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A folder as an export writes it, with the bundled engine under another name."""
    folder = tmp_path / "engines"
    folder.mkdir()
    for precision in ("fp16", "int8_cpu"):
        model = onnx.load(BUNDLED.with_name(f"edge-s_{precision}.onnx"))
        spec = EngineSpec.from_json(model.metadata_props[0].value).to_dict()
        spec |= {"name": f"mine_{precision}", "licence": "MIT", "macs_per_pixel": 10830.4}
        onnx.helper.set_model_props(model, {METADATA_KEY: EngineSpec(**spec).to_json()})
        onnx.save(model, folder / f"mine_{precision}.onnx")
    write_report(folder)
    (folder / "report.md").write_text("# mine\n")
    (folder / "private.txt").write_text("not of the export")
    return folder


def write_report(folder: Path) -> None:
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.onnx")}
    (folder / "report.json").write_text(json.dumps({"files": files}))


def test_an_added_export_is_found_by_its_name(export: Path, hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["add", str(export), "--name", "street"]) == 0
    assert "--engine street" in capsys.readouterr().out
    names = sorted(path.name for path in (hub / "street").iterdir())
    assert names == ["mine_fp16.onnx", "mine_int8_cpu.onnx", "report.json", "report.md"]
    frame = np.full((40, 48, 3), 90, np.uint8)
    cv2.circle(frame, (20, 20), 9, (0, 200, 30), -1)
    lines: list[str] = []
    with open_engine("street", say=lines.append) as engine, open_engine("edge-s") as bundled:
        assert np.abs(engine(frame).astype(int) - bundled(frame)).mean() < 2
    assert "mine_int8_cpu.onnx" in lines[-1]
    assert main([]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["name", "engines", "PSNR", "dB", "loss", "dB", "MAC/pixel", "MB", "licence", "network"]
    assert [row.split()[0] for row in rows[:5]] == ["edge-s", "edge-m", "edge-l", "edge-l-gan", "street"]
    for part in ("fp16, int8_cpu", "30.4", "blurred 29.43, held_out", "up to 0.02", "10,830", "MIT"):
        assert part in rows[4]
    assert "Apache-2.0" in rows[0]
    assert "23,102" in rows[1]
    assert str(hub) in rows[-1]


def test_one_engine_can_be_added_and_is_opened_directly(export: Path, hub: Path) -> None:
    assert main(["add", str(export / "mine_int8_cpu.onnx")]) == 0
    assert resolve_engine("mine_int8_cpu") == hub / "mine_int8_cpu" / "mine_int8_cpu.onnx"
    shutil.copy(export / "mine_int8_cpu.onnx", export / "lone.onnx")
    assert main(["add", str(export / "lone.onnx")]) == 0  # without a hash in the report, it must be readable
    with open_engine("lone") as engine:
        assert engine.spec.name == "mine_int8_cpu"


def test_a_file_of_the_name_and_bundled_names_come_first(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["add", str(export), "--name", "street"]) == 0
    monkeypatch.chdir(tmp_path)
    Path("street").write_bytes(b"a file")
    assert resolve_engine("street") == Path("street")
    assert resolve_engine("edge-s") == BUNDLED
    assert find_model("../engines") is None
    assert find_model("rtsp://host/street") is None


def test_a_name_that_exists_is_replaced_only_on_request(
    export: Path, hub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["add", str(export), "--name", "street"]) == 0
    (export / "mine_fp16.onnx").unlink()
    write_report(export)
    assert main(["add", str(export), "--name", "street"]) == 2
    assert "a model has this name" in capsys.readouterr().err
    assert (hub / "street" / "mine_fp16.onnx").exists()
    assert main(["add", str(export), "--name", "street", "-y"]) == 0
    assert not (hub / "street" / "mine_fp16.onnx").exists()
    assert [path.name for path in hub.iterdir()] == ["street"]  # nothing unfinished stays


def _change(folder: Path) -> None:
    content = bytearray((folder / "mine_fp16.onnx").read_bytes())
    content[-100] ^= 1
    (folder / "mine_fp16.onnx").write_bytes(content)


def _name_outside(folder: Path) -> None:
    (folder / "report.json").write_text(json.dumps({"files": {"../engines/mine_fp16.onnx": "0"}}))


@pytest.mark.parametrize(
    ("damage", "code", "line"),
    [
        (_change, 4, r"file is not the one of report.json \(other SHA-256\)"),
        (lambda folder: (folder / "mine_fp16.onnx").unlink(), 4, "a file of the export is missing"),
        (lambda folder: (folder / "report.json").write_text("{"), 3, "the report cannot be read"),
        (_name_outside, 3, "the report names files outside of its folder"),
        (lambda folder: (folder / "report.json").unlink(), 3, "the folder has no export in it"),
        (shutil.rmtree, 3, "no such export or engine"),
    ],
    ids=["changed", "missing", "report", "outside", "none", "gone"],
)
def test_a_damaged_export_is_not_added(
    damage: object, code: int, line: str, export: Path, hub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(export)
    assert main(["add", str(export), "--name", "street"]) == code
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert line.replace("\\", "") in error
    assert not hub.exists()


@pytest.mark.parametrize(
    "arguments", [["add"], ["add", ".", "--name", "a/b"], ["add", ".", "--name", "edge-s"], ["list", "x"], ["-y"]]
)
def test_wrong_arguments(
    arguments: list[str], export: Path, hub: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(export)
    assert main(arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not hub.exists()


def test_a_file_that_is_no_engine_is_not_added_and_a_broken_one_is_listed(
    export: Path, hub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (export / "other.onnx").write_bytes(b"no engine")
    assert main(["add", str(export / "other.onnx")]) == 4
    assert main(["add", str(export / "private.txt")]) == 3
    assert not hub.exists()
    assert main(["add", str(export), "--name", "street"]) == 0
    (hub / "street" / "mine_fp16.onnx").write_bytes(b"no engine")
    (hub / ".unfinished-x").mkdir()
    capsys.readouterr()
    assert main(["list"]) == 0
    said = capsys.readouterr()
    assert "warning: not an engine that ONNX Runtime can load" in said.err
    assert "unfinished" not in said.out


def test_an_unknown_name_says_which_there_are(export: Path) -> None:
    assert main(["add", str(export), "--name", "street"]) == 0
    with pytest.raises(EngineError, match="use edge-s, edge-m, edge-l, edge-l-gan or street"):
        require_engine("strete")


def test_the_folder_without_a_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DEBLUR_MODELS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert models_folder() == tmp_path / "deblur" / "models"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert models_folder() == tmp_path / ".local" / "share" / "deblur" / "models"


def test_deblur_models_is_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["deblur", "models"])
    with pytest.raises(SystemExit) as ending:
        run_and_exit()
    assert ending.value.code == 0
    assert "edge-s" in capsys.readouterr().out
