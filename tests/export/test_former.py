"""The output folder of an export: files of others, damaged reports, and engines that cannot be compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import pytest

from export.__main__ import main
from export.former import read_former_export
from export.publish import reserve_folder
from tests.conftest import make_image
from tests.export.conftest import write_run


def write_report(folder: Path, **changes: object) -> None:
    entry = {"spec": {"psnr_db": 30.0, "measured_on": "pairs"}}
    report = {"inputs_sha256": "i", "pairs_sha256": "p", "engines": {"fp32": entry}, "files": {"a.onnx": "0"}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report | changes))


def test_other_pairs_switch_off_the_refusal_and_this_is_said(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run", scale=0.1)
    out = tmp_path / "out"
    arguments = [str(tmp_path / "run"), "--out", str(out), "--precision", "fp32", "--pairs"]
    assert main([*arguments, str(pairs)]) == 0
    assert "note:" not in capsys.readouterr().err
    assert json.loads((out / "report.json").read_text())["not_compared"] is None
    write_run(tmp_path / "run", seed=1, scale=20)
    others = shutil.copytree(pairs, tmp_path / "others")
    cv2.imwrite(str(others / "blur" / "0.png"), cv2.blur(cv2.imread(str(others / "sharp" / "0.png")), (9, 1)))
    assert main([*arguments, str(others)]) == 0
    why = "the engines before these were measured on other pairs (pairs)"
    lines = capsys.readouterr().err.splitlines()
    assert f"note: a worse model is not refused: {why}: {out}" in lines
    assert json.loads((out / "report.json").read_text())["not_compared"] == why
    assert f"**A worse model would not have been refused: {why}.**" in (out / "report.md").read_text()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[]",
        '{"engines": 1}',
        "\x00",
        '{"inputs_sha256": "i", "pairs_sha256": "p", "engines": {"fp32": {"spec": {"psnr_db": "much"}}}, "files": {}}',
        '{"inputs_sha256": "i", "pairs_sha256": "p", "engines": {}, "files": {"../precious": "0"}}',
    ],
)
def test_a_damaged_report_is_no_crash_and_removes_nothing(
    text: str, tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.json").write_text(text)
    (tmp_path / "precious").write_text("precious")
    assert read_former_export(out).is_damaged
    write_run(tmp_path / "run")
    arguments = [str(tmp_path / "run"), "--out", str(out), "--precision", "fp32", "--pairs", str(pairs)]
    assert main(arguments) == 0
    assert "report.json of the engines before these cannot be read" in capsys.readouterr().err
    assert (tmp_path / "precious").exists()
    assert main(arguments) == 0
    assert "nothing has changed" in capsys.readouterr().out


def test_a_report_of_this_export_is_read(tmp_path: Path) -> None:
    assert read_former_export(tmp_path) == read_former_export(tmp_path)
    assert not read_former_export(tmp_path).is_damaged
    write_report(tmp_path)
    former = read_former_export(tmp_path)
    assert (former.psnr_db, former.files, former.pairs) == ({"fp32": 30.0}, {"a.onnx": "0"}, "pairs")
    assert not former.is_unchanged("i")  # a.onnx is missing


@pytest.mark.parametrize(
    ("name", "is_folder", "code", "words"),
    [
        ("deblur_fp32.onnx", False, 2, "this file exists, and no export wrote it"),
        ("report.md", False, 2, "this file exists, and no export wrote it"),
        ("deblur_fp32.onnx", True, 6, "a folder has the name of an output file"),
    ],
)
def test_files_of_others_are_found_before_the_network_is_read(
    name: str,
    is_folder: bool,
    code: int,
    words: str,
    tmp_path: Path,
    pairs: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_run(tmp_path / "run")
    out = tmp_path / "out"
    out.mkdir()
    (out / name).mkdir() if is_folder else (out / name).write_text("precious")
    arguments = [str(tmp_path / "run"), "--out", str(out), "--precision", "fp32", "--pairs", str(pairs)]
    with monkeypatch.context() as patch:
        patch.setattr("export.loading.load_any_network", lambda *_: pytest.fail("it should not have been called"))
        assert main(arguments) == code
    error = capsys.readouterr().err
    assert words in error
    assert name in error
    assert list(out.iterdir()) == [out / name]
    if not is_folder:
        assert main([*arguments, "-y"]) == 0


def test_a_worse_model_is_refused_before_the_steps_of_int8(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run", scale=0.1)
    arguments = [str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--pairs", str(pairs), "--precision"]
    assert main([*arguments, "fp32"]) == 0
    write_run(tmp_path / "run", seed=1, scale=20)
    capsys.readouterr()
    assert main([*arguments, "fp32,int8"]) == 4
    lines = capsys.readouterr().err.splitlines()
    assert "is worse than the one it would replace" in lines[-1]
    assert not any("calibrate" in line for line in lines)


def test_engines_of_other_names_and_changed_files_stay(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run")
    out = tmp_path / "out"
    arguments = [str(tmp_path / "run"), "--out", str(out), "--pairs", str(pairs), "--pixels", "bgr", "--precision"]
    assert main([*arguments, "fp32", "--name", "a"]) == 0
    assert main([*arguments, "fp32", "--name", "b"]) == 0
    assert (out / "a_fp32.onnx").exists()
    (out / "c_fp32.onnx").write_text("precious")
    assert main([*arguments, "fp32", "--name", "c"]) == 2
    assert main([*arguments, "fp16", "--name", "b"]) == 0
    assert "removed b_fp32.onnx, which the export before this one wrote" in capsys.readouterr().err
    (out / "b_fp16.onnx").write_text("precious")
    assert main([*arguments, "fp32", "--name", "b", "-y"]) == 0
    assert (out / "b_fp16.onnx").read_text() == "precious"
    (out / "report.md").unlink()
    assert main([*arguments, "fp32", "--name", "b"]) == 0
    assert (out / "report.md").exists()


def test_one_export_at_a_time_writes_into_a_folder(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run")
    (tmp_path / "out" / ".unfinished-killed").mkdir(parents=True)
    arguments = [str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--pairs", str(pairs), "--precision", "fp32"]
    with reserve_folder(tmp_path / "out"):
        assert main(arguments) == 2
    assert "another export writes into this folder" in capsys.readouterr().err
    assert main(arguments) == 0
    assert not (tmp_path / "out" / ".unfinished-killed").exists()


def test_an_input_that_cannot_be_read_is_no_output_error(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "run")

    def refuse(*_: object) -> str:
        raise PermissionError(13, "Permission denied", str(pairs / "blur" / "0.png"))

    monkeypatch.setattr("export.__main__.compute_inputs_digest", refuse)
    assert main([str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--pairs", str(pairs)]) == 3
    assert f"cannot be read (Permission denied): {pairs / 'blur' / '0.png'}" in capsys.readouterr().err


def test_pairs_that_are_too_small_for_ssim_are_refused(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run")
    for kind in ("blur", "sharp"):
        cv2.imwrite(str(pairs / kind / "0.png"), make_image(11, 40))
    assert main([str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--pairs", str(pairs)]) == 3
    assert "smaller than 12 pixels" in capsys.readouterr().err
