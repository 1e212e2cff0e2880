"""Result files are validated and written completely or not at all, and do not identify a user."""

from __future__ import annotations

import builtins
import getpass
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from benchmarks.harness import results as results_module
from benchmarks.harness.results import (
    find_schema_error,
    format_command,
    read_results,
    require_writable,
    write_results,
)
from benchmarks.harness.statistics import summarize
from benchmarks.harness.system_info import count_cores
from runtime.errors import InputError, OutputError, UsageError

POINT = {"size": [64, 48], "megapixels": 0.003, "host": vars(summarize([1.0, 2.0]))}
SCALING: dict[str, Any] = {
    "engine": {"name": "a.onnx", "sha256": "0" * 64, "precision": "fp32", "backend": "CPU", "slots": 1},
    "source": "clip",
    "size": [64, 48],
    "cores": 2,
    "load": {"min_queries": 1, "min_duration_s": 0.5, "warm_up_s": 0},
    "resolution": {"points": [POINT], "line": None},
    "threads": None,
    "streams": None,
}


def write(path: Path, results: dict[str, Any] = SCALING, **changes: Any) -> Path:
    write_results(path, **{"kind": "scaling", "results": results, "command": "python -m x"} | changes)
    return path


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    document = read_results(write(tmp_path / "new" / "folder" / "a.json"))
    assert document["kind"] == "scaling"
    assert document["results"] == json.loads(json.dumps(SCALING))
    assert document["machine"]["cpu"]["cores"] == count_cores()
    assert list(tmp_path.glob("**/*.part")) == []


def test_the_schema_is_valid() -> None:
    Draft202012Validator.check_schema(json.loads(Path(results_module.__file__).with_name("schema.json").read_text()))


def test_every_published_result_matches_the_schema() -> None:
    for path in sorted(results_module.RESULTS.rglob("*.json")):
        assert path.parent.name == read_results(path)["machine"]["device"]


def change_results(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    results: dict[str, Any] = json.loads(json.dumps(SCALING))
    change(results)
    return results


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda r: r.update(extra=1), "$.results"),
        (lambda r: r.pop("cores"), "$.results"),
        (lambda r: r["resolution"]["points"][0]["host"].update(p50_ms=0), "p50_ms"),
        (lambda r: r["resolution"]["points"][0]["host"].update(p42_ms=1), "host"),
        (lambda r: r["engine"].update(sha256="none"), "sha256"),
        (lambda r: r.update(source="/somewhere/clip.mp4"), "source"),
    ],
)
def test_results_that_do_not_match_the_schema_are_not_written(
    change: Callable[[dict[str, Any]], None], where: str, tmp_path: Path
) -> None:
    with pytest.raises(OutputError) as caught:
        write(tmp_path / "a.json", change_results(change))
    assert where in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_nan_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="not JSON"):
        write(tmp_path / "a.json", change_results(lambda r: r.update(cores=float("nan"))))


def test_a_rejected_result_leaves_the_existing_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json")
    before = path.read_bytes()
    with pytest.raises(OutputError):
        write(path, change_results(lambda r: r.clear()))
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema": 2}'])
def test_other_files_are_rejected(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(InputError, match="not a result file"):
        read_results(path)


def test_the_schema_rejects_power_of_zero() -> None:
    definitions = json.loads(Path(results_module.__file__).with_name("schema.json").read_text())["$defs"]
    power = Draft202012Validator({"$ref": "#/$defs/power", "$defs": definitions})
    meter = {"name": "NVML", "covers": "GPU board", "samples": 2, "seconds": 1, "joules": 5, "mean_w": 5}
    meter |= {"joules_per_frame": 0.1, "gpu_mhz": None, "max_temperature_c": None, "throttled": None}
    assert power.is_valid({"meters": [meter]})
    assert power.is_valid({"not_available": "no meter"})
    for wrong in ({"meters": [meter | {"joules": 0}]}, {"meters": []}, {"not_available": ""}, {}):
        assert not power.is_valid(wrong)


@pytest.mark.parametrize(
    ("argument", "kept"),
    [
        ("{cwd}/models/a.onnx@cpu", "models/a.onnx@cpu"),
        ("/home/somebody/secret/a.onnx@cpu", "a.onnx@cpu"),
        ("--json=/home/somebody/out.json", "--json=out.json"),
        ("../../somebody/a.onnx", "a.onnx"),
        ("@/run/secrets/camera", "camera"),
        ("rtsp://user:word@10.0.0.7/live", "rtsp://"),
        ("models/a.onnx", "models/a.onnx"),
        ("640x360", "640x360"),
    ],
)
def test_the_command_contains_no_absolute_path_or_address(
    argument: str, kept: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        format_command("benchmarks.latency", [argument.format(cwd=tmp_path)]) == f"python -m benchmarks.latency {kept}"
    )


@pytest.mark.parametrize("command", ["/usr/bin/python -m x", "python -m x --json=/out", "python '/a b'"])
def test_a_command_with_an_absolute_path_is_rejected(command: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="command"):
        write(tmp_path / "a.json", command=command)


def test_machine_facts_match_the_schema_and_identify_nobody(tmp_path: Path) -> None:
    text = write(tmp_path / "a.json").read_text()
    assert find_schema_error(json.loads(text)) == ""
    facts = json.loads(text)["machine"]
    words = set(text.replace('"', " ").replace(",", " ").split())
    assert not words & {socket.gethostname(), getpass.getuser()} - {"localhost", "linux"}
    assert str(Path.cwd()) not in text
    assert facts["packages"]["onnxruntime"]


def test_missing_jsonschema_is_an_error_before_the_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def import_without_jsonschema(name: str, *rest: Any) -> Any:
        if name == "jsonschema":
            raise ImportError(name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", import_without_jsonschema)
    require_writable(None)
    with pytest.raises(UsageError, match="jsonschema, which is not installed; pip install"):
        require_writable(tmp_path / "a.json")


def test_an_unwritable_file_is_an_error_before_the_measurement(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        require_writable(tmp_path / "file" / "a.json")
