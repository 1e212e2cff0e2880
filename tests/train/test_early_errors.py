"""Mistakes on the command lines of training: found before the work, and one line each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from calib_data import CALIBRATION
from train import __main__ as command
from train.data.index import describe_blurred, find_samples
from train.evaluate.__main__ import main as evaluate
from train.recipes import RECIPES
from train.synthetic import main as synthesize
from train.training.run_log import read_log

SMALL = ["--set", "options={'widths':(8,),'blocks':(1,)}", "--set", "data.size_px=(32,32)", "--set", "data.crops=16"]
SMALL += ["--set", "batch=4", "--set", "epochs=1"]


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "run"
    assert command.main(["--data", str(photos), "--out", str(folder), *SMALL]) == 0
    return folder


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--data", "{tmp}/nodir"], 3, "error: no such folder: "),
        (["--set", "options.X=8"], 2, "error: options of edge: got an unexpected keyword argument 'X'"),
        (["--init", "{tmp}/nodir"], 4, "error: no such folder"),
        (["--teacher", "{tmp}/nodir"], 4, "error: no such folder"),
        (
            ["--set", "losses.lpips=1.0", "--set", "losses.lpips_weights={tmp}/none"],
            2,
            "error: weights of LPIPS do not load",
        ),
        (
            ["--set", "generator=resnet_unet", "--set", "options={'pretrained':'{tmp}/none'}"],
            2,
            "error: pretrained encoder ",
        ),
        (
            ["--epochs", "2", "--set", "epochs=3"],
            2,
            "error: --epochs and --set epochs=... change the same setting; give one of them",
        ),
        (["--lr", "-1"], 2, "error: learning_rate must not be negative, got -1.0"),
        (["--set", "data.size=8"], 2, "error: --set data.size=8: unknown setting data.size;"),
    ],
)
def test_mistakes_are_found_before_anything_is_printed_or_made(
    arguments: list[str], code: int, words: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    assert command.main(["--data", str(photos), "--out", str(tmp_path / "run"), *filled]) == code
    out, error = capsys.readouterr()
    assert error.startswith(words)
    assert (out, list(tmp_path.iterdir())) == ("", [])


def test_plain_options_are_short_forms_of_settings() -> None:
    options = command.parse(["--data", "x", "--out", "y", "--epochs", "3", "--batch", "2", "--lr", "1e-4"])
    recipe = command.build_recipe("edge-s", overrides=command.list_plain_overrides(options))
    assert (recipe.epochs, recipe.batch, recipe.learning_rate, recipe.max_steps) == (3, 2, 1e-4, None)


def test_a_run_from_weights_needs_no_pretrained_encoder(photos: Path, tmp_path: Path) -> None:
    network = ["--network", "resnet_unet", "--set", "data.size_px=(32,32)", "--set", "data.crops=4", "--batch", "4"]
    network += ["--max-steps", "1", "--data", str(photos)]
    options = ["--set", "options={'size': '18', 'width': 8}"]
    assert command.main([*network, *options, "--out", str(tmp_path / "first")]) == 0
    options = ["--set", "options={'size': '18', 'width': 8, 'pretrained': 'nobody/nothing'}"]
    arguments = [*network, *options, "--init", str(tmp_path / "first"), "--out", str(tmp_path / "second")]
    assert command.main(arguments) == 0
    assert command.main([*arguments, "--max-steps", "2", "--resume"]) == 0


def test_a_log_file_gets_no_progress_bars(
    photos: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--data", str(photos), "--out", str(tmp_path / "run"), *SMALL]) == 0
    assert capsys.readouterr().err == ""
    arguments = ["--data", str(photos), "--out", str(tmp_path / "report"), "--size", "40x32"]
    assert evaluate(["--checkpoint", str(run), *arguments]) == 0
    assert capsys.readouterr().err == ""


def test_blurred_frames_that_are_taken_as_sharp_are_said(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert describe_blurred(find_samples(photos)) == ""
    assert describe_blurred(find_samples(CALIBRATION.parent)) == ""  # it holds pairs, which are used
    note = f"note: 21 blurred images are taken as sharp photographs: {CALIBRATION}; give pairs"
    assert synthesize(["--source", str(CALIBRATION), "--out", str(tmp_path / "pairs")]) == 0
    assert capsys.readouterr().err.startswith(note)
    blurred = shutil.copytree(photos, tmp_path / "blur")
    assert command.main(["--data", str(blurred), "--out", str(tmp_path / "run"), *SMALL]) == 0
    assert capsys.readouterr().err.startswith("note: 4 blurred images are taken as sharp photographs: ")


def _change(path: list[str], value: Any) -> str:
    config: dict[str, Any] = json.loads(RECIPES["edge-s"].to_json())
    config["options"] = {"widths": [8], "blocks": [1]}
    part = config
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    return json.dumps(config)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (_change(["nonsense"], 1), "no recipe in config.json (unknown setting nonsense, a typo or of a later version)"),
        (_change(["data", "blur", "nonsense"], 1), "unknown setting data.blur.nonsense"),
        (_change(["options", "nonsense"], 1), "options of edge: got an unexpected keyword argument 'nonsense'"),
        (_change(["data"], "all"), "data must be an object, got str"),
        (_change(["data", "blur"], []), "data.blur must be an object, got list"),
        (_change(["options"], None), "it has no options of the generator"),
        (_change(["generator"], ["edge"]), "it names no generator"),
        (_change(["learning_rate"], float("nan")), "learning_rate must be in range, got nan"),
        (_change(["batch"], "many"), "batch must be int, got 'many'"),
        ("[" * 100_000, "JSON is nested deeper than"),
        (_change(["nonsense"], 1)[:-1] + ', "a": ' + "[" * 5_000 + "]" * 5_000 + "}", "JSON is nested deeper than"),
        ("[]", "it names no generator"),
        ("3", "it names no generator"),
        ("", "Expecting value"),
    ],
)
def test_a_damaged_config_is_one_line(
    text: str, words: str, run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("crops", "tensorboard"))
    (checkpoint / "config.json").write_text(text)
    assert evaluate(["--checkpoint", str(checkpoint), "--data", str(photos), "--out", str(tmp_path / "out")]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: no ")
    assert words in line


def test_a_config_without_later_settings_is_read(run: Path, photos: Path, tmp_path: Path) -> None:
    checkpoint = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("crops", "tensorboard"))
    config = json.loads((checkpoint / "config.json").read_text())
    del config["precision"], config["data"]["shares"]
    (checkpoint / "config.json").write_text(json.dumps(config))
    arguments = ["--data", str(photos), "--out", str(tmp_path / "out"), "--size", "40x32"]
    assert evaluate(["--checkpoint", str(checkpoint), *arguments]) == 0


def test_a_damaged_log_is_read_up_to_the_damage(tmp_path: Path) -> None:
    good = {"epoch": 1, "step": 4, "validation/content_loss": 0.5}
    for bad in ("[" * 100_000, "3", '{"epoch": 2}', json.dumps(good | {"step": "many"}), "\x00"):
        (tmp_path / "log.jsonl").write_text(f"{json.dumps(good)}\n{bad}\n{json.dumps(good)}\n")
        assert read_log(tmp_path) == [good]
