"""Result files: written whole and checked, or not at all; nothing in them that tells whose machine it was."""

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

from benchmarks.harness import results as schema
from benchmarks.harness import system_info as machine
from benchmarks.harness.results import command_line, complaint, prepare, read_results, write_results
from benchmarks.harness.statistics import summary
from runtime.errors import InputError, OutputError, UsageError

POINT = {"size": [64, 48], "megapixels": 0.003, "host": vars(summary([1.0, 2.0]))}
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


def written(path: Path, results: dict[str, Any] = SCALING, **changes: Any) -> Path:
    write_results(path, **{"kind": "scaling", "results": results, "command": "python -m x"} | changes)
    return path


def test_there_and_back(tmp_path: Path) -> None:
    document = read_results(written(tmp_path / "new" / "folder" / "a.json"))
    assert document["kind"] == "scaling"
    assert document["results"] == json.loads(json.dumps(SCALING))
    assert document["machine"]["cpu"]["cores"] == machine.cores()
    assert list(tmp_path.glob("**/*.part")) == []


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(json.loads(Path(schema.__file__).with_name("schema.json").read_text()))


def test_every_published_result_fits() -> None:
    for path in sorted(schema.RESULTS.rglob("*.json")):
        assert path.parent.name == read_results(path)["machine"]["device"]


def damaged(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
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
def test_what_does_not_fit_is_not_written(change: Callable[[dict[str, Any]], None], where: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        written(tmp_path / "a.json", damaged(change))
    assert where in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_number_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="not JSON"):
        written(tmp_path / "a.json", damaged(lambda r: r.update(cores=float("nan"))))


def test_a_bad_result_leaves_the_one_before(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json")
    before = path.read_bytes()
    with pytest.raises(OutputError):
        written(path, damaged(lambda r: r.clear()))
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema": 2}'])
def test_what_is_no_result_file_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(InputError, match="not a result file"):
        read_results(path)


def test_power_that_is_zero_is_no_answer() -> None:
    """It is refused by the schema itself, whatever wrote it."""
    definitions = json.loads(Path(schema.__file__).with_name("schema.json").read_text())["$defs"]
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
def test_the_command_holds_no_place_of_the_machine(
    argument: str, kept: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command_line("benchmarks.latency", [argument.format(cwd=tmp_path)]) == f"python -m benchmarks.latency {kept}"


@pytest.mark.parametrize("command", ["/usr/bin/python -m x", "python -m x --json=/out", "python '/a b'"])
def test_a_command_with_a_place_in_it_is_refused(command: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="command"):
        written(tmp_path / "a.json", command=command)


def test_facts_about_the_machine_fit_and_name_nobody(tmp_path: Path) -> None:
    text = written(tmp_path / "a.json").read_text()
    assert complaint(json.loads(text)) == ""
    told = json.loads(text)["machine"]
    words = set(text.replace('"', " ").replace(",", " ").split())
    assert not words & {socket.gethostname(), getpass.getuser()} - {"localhost", "linux"}
    assert str(Path.cwd()) not in text
    assert told["packages"]["onnxruntime"]


def test_without_jsonschema_one_line_says_so_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = builtins.__import__

    def importing(name: str, *rest: Any) -> Any:
        if name == "jsonschema":
            raise ImportError(name)
        return really(name, *rest)

    monkeypatch.setattr(builtins, "__import__", importing)
    prepare(None)
    with pytest.raises(UsageError, match="jsonschema, which is not installed; pip install"):
        prepare(tmp_path / "a.json")


def test_a_place_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        prepare(tmp_path / "file" / "a.json")
