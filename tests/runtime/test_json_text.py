"""JSON that someone else wrote: limits of size and depth, declared types, and the errors of what reads it."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import onnx
import pytest

from runtime.batch.files import Task
from runtime.batch.journal import JOURNAL, FinishedFile, Journal
from runtime.engines import open_backend
from runtime.engines.choice import _read_cache
from runtime.errors import EngineError, UnfitPlanError
from runtime.install.bundle import Manifest
from runtime.json_text import MAX_BYTES, MAX_DEPTH, parse_json, read_json
from runtime.sidecar import Sidecar, read_sidecar, sidecar_path
from runtime.spec import METADATA_KEY, EngineSpec
from runtime.video import main
from tests.conftest import ROOT, write_engine

DEEP = ["[" * 100_000, '{"engine":' * 100_000, "[" * 900 + "]" * 900]
IDS = ["lists", "objects", "just parsed"]


def engine_with_spec(path: Path, text: str) -> Path:
    model = onnx.load(write_engine(path))
    model.metadata_props.add(key=METADATA_KEY, value=text)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("text", DEEP, ids=IDS)
def test_deep_json_is_a_value_error(text: str) -> None:
    for read in (parse_json, EngineSpec.from_json, Sidecar.from_json, Manifest.from_json):
        with pytest.raises(ValueError, match="nested deeper"):
            read(text)


def test_json_up_to_the_limit_is_read(tmp_path: Path) -> None:
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert json.dumps(parse_json(text)) == text
    with pytest.raises(ValueError, match="nested deeper"):
        parse_json(f"[{text}, 1]")
    with pytest.raises(ValueError, match="MiB"):
        parse_json(" " * (MAX_BYTES + 1))
    (tmp_path / "latin.json").write_bytes(b'"\xe4"')
    with pytest.raises(ValueError, match="utf-8"):
        read_json(tmp_path / "latin.json")


@pytest.mark.parametrize(
    "spec",
    [
        {"loss_db": "a lot"},
        {"budget_db": True},
        {"loss_db": float("nan")},
        {"name": 7},
        {"height": 5},
        {"height": [["1"], "b"]},
        {"width": [1, 2, 3]},
        {"width": [1.5, 2.5]},
        {"forced": 1},
        {"float_layers": 1.5},
        {"precision": ["fp32"]},
        {"measured_on": {}},
    ],
    ids=str,
)
def test_a_spec_with_values_of_the_wrong_kind_is_an_engine_error(spec: dict[str, object], tmp_path: Path) -> None:
    path = engine_with_spec(tmp_path / "a.onnx", json.dumps({"name": "a"} | spec))
    with pytest.raises(EngineError, match=f"{METADATA_KEY} is damaged"):
        open_backend(path, provider="cpu")


def test_a_spec_may_hold_whole_numbers_and_later_fields() -> None:
    text = '{"name": "a", "loss_db": 0, "height": [1, 2], "agreement_db": Infinity, "later": {"a": 1}}'
    assert EngineSpec.from_json(text).loss_db == 0


@pytest.mark.parametrize("text", DEEP, ids=IDS)
def test_a_deep_spec_ends_the_command_with_4(
    text: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = engine_with_spec(tmp_path / "deep.onnx", text)
    assert main(["--engine", str(engine), "--source", str(clip), "--out", "null"]) == 4
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: metadata {METADATA_KEY} is damaged (JSON is")


@pytest.mark.parametrize("text", [*DEEP, b"\xff", "{}", "[]", '{"engine": {"name": "a"}, "batch": "a"}'])
def test_a_damaged_sidecar_is_an_unfit_plan(text: str | bytes, tmp_path: Path) -> None:
    plan = tmp_path / "a.plan"
    sidecar_path(plan).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UnfitPlanError, match="sidecar cannot be read"):
        read_sidecar(plan, b"plan")


def test_a_sidecar_with_values_of_the_wrong_kind_is_an_unfit_plan(tmp_path: Path) -> None:
    plan = tmp_path / "a.plan"
    values = {
        "engine": {"name": "a"},
        "batch": [1, 1],
        "flavour": "tensorrt",
        "version": "10",
        "compute_capabilities": ["8.7"],
        "onnx": "a.onnx",
        "onnx_sha256": "",
        "plan_sha256": hashlib.sha256(b"plan").hexdigest(),
    }
    sidecar_path(plan).write_text(json.dumps(values))
    assert read_sidecar(plan, b"plan").batch == (1, 1)
    for name, wrong in {"batch": "ab", "version": 7, "compute_capabilities": [8.7], "convolutions": []}.items():
        sidecar_path(plan).write_text(json.dumps(values | {name: wrong}))
        with pytest.raises(UnfitPlanError, match=f"{name} has a value of the wrong kind"):
            read_sidecar(plan, b"plan")


@pytest.mark.parametrize(
    "values", [{"files": []}, {"files": {"a.onnx": 1}}, {"gate_psnr_db": {"a.onnx": "good"}}, {"name": 1}], ids=str
)
def test_a_manifest_with_values_of_the_wrong_kind_is_a_value_error(values: dict[str, object]) -> None:
    good = {"name": "a", "version": "1", "files": {"a.onnx": ""}, "gate_psnr_db": {"a.onnx": 30}}
    assert Manifest.from_json(json.dumps(good)).engines == ["a.onnx"]
    with pytest.raises(ValueError, match="wrong kind"):
        Manifest.from_json(json.dumps(good | values))


@pytest.mark.parametrize("text", [*DEEP, "\xff", "[]", "1"])
def test_a_damaged_cache_of_choices_is_empty(text: str, tmp_path: Path) -> None:
    (tmp_path / "engines.json").write_bytes(text.encode("latin-1"))
    assert _read_cache(tmp_path / "engines.json") == {}


def test_damaged_lines_of_a_journal_are_left_out(tmp_path: Path) -> None:
    good = FinishedFile(
        source="a", out="a.mp4", source_size=1, source_mtime_ns=1, source_sha256="", engine_sha256="", out_size=1
    )
    lines = [*DEEP, "1", "{}", json.dumps(vars(good) | {"out": []}), json.dumps(vars(good) | {"out": 5})]
    text = "\n".join([*lines, json.dumps(vars(good)), ""])
    (tmp_path / JOURNAL).write_bytes(text.encode() + b"\xff\xfe\n")
    journal = Journal(tmp_path, "")
    (tmp_path / "a.mp4").touch()
    assert journal.may_write(Task("a", str(tmp_path / "a.mp4")))
    assert list(journal._finished) == ["a.mp4"]


def test_nothing_else_in_the_runtime_parses_json_of_others() -> None:
    own = {"json_text.py", "web/settings.py", "web/worker.py", "web/worker_client.py", "sinks/publisher.py"}
    """Messages between our own processes."""
    runtime = ROOT / "runtime"
    found = {
        str(path.relative_to(runtime))
        for path in runtime.rglob("*.py")
        if re.search(r"\bjson\.loads?\b", path.read_text())
    }
    assert found == own
