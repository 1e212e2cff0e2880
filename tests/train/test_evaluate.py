"""The report of a model: its tables are true, its figures are there, from a checkpoint or an engine."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import SHARED
from tests.train.conftest import write_gopro
from train.config import RECIPES, overridden
from train.evaluate.__main__ import chosen, main, view
from train.training.loop import train

SMALL = ["generator=edge", "options={'widths': (8,), 'blocks': (1,)}", "data.size_px=(80, 64)", "workers=0", "epochs=2"]


@pytest.fixture(scope="module")
def run(gopro: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(overridden(RECIPES["two_stage"], SMALL), data=[gopro], run=folder)
    return folder


def scores(report: Path) -> list[dict[str, str]]:
    with (report / "scores.csv").open() as file:
        return list(csv.DictReader(file))


def psnr_db(first: np.ndarray, second: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((first.astype(float) - second) ** 2))


def test_report_of_a_checkpoint_has_tables_curves_and_triplets(
    run: Path, gopro: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--checkpoint", str(run), "--data", str(gopro), "--out", str(tmp_path)]) == 0
    rows = scores(tmp_path)
    assert [row["picture"] for row in rows] == [f"test/GOPR04/blur/{index:06d}.png" for index in range(3)]
    for row in rows:
        pair = [cv2.imread(str(gopro / row["picture"].replace("blur", kind))) for kind in ("blur", "sharp")]
        pair = [cv2.resize(picture, (80, 64), interpolation=cv2.INTER_AREA) for picture in pair]
        assert float(row["blurred_psnr_db"]) == pytest.approx(psnr_db(*pair), abs=1e-3)
    report = (tmp_path / "report.md").read_text()
    means = {name: np.mean([float(row[name]) for row in rows]) for name in rows[0] if name != "picture"}
    gain = means["restored_psnr_db"] - means["blurred_psnr_db"]
    table = f"| PSNR (dB) | {means['blurred_psnr_db']:.2f} | {means['restored_psnr_db']:.2f} | {gain:+.2f} |"
    assert table in report
    assert table in capsys.readouterr().out
    assert "3 pictures at 80x64" in report
    assert "| Training discriminator loss |" in report
    for name in ("generator_loss", "discriminator_loss", "ssim", "psnr"):
        assert f"](curve_{name}.png)" in report
        assert cv2.imread(str(tmp_path / f"curve_{name}.png")).std() > 5
    triplets = sorted(tmp_path.glob("triplet_*.png"))
    assert len(triplets) == 3
    assert cv2.imread(str(triplets[0])).shape[1] == 3 * 80
    assert all(f"]({path.name})" in report for path in triplets)


def test_report_of_an_engine_and_of_a_model_that_changes_colours(invert: Path, gopro: Path, tmp_path: Path) -> None:
    """The engine that inverts colours is scored as exactly that."""
    assert main(["--checkpoint", str(invert), "--data", str(gopro), "--out", str(tmp_path / "report")]) == 0
    row = scores(tmp_path / "report")[0]
    blurred, sharp = (cv2.imread(str(gopro / "test" / "GOPR04" / kind / "000000.png")) for kind in ("blur", "sharp"))
    assert float(row["restored_psnr_db"]) == pytest.approx(psnr_db(255 - blurred, sharp), abs=1e-3)
    report = (tmp_path / "report" / "report.md").read_text()
    assert "their own size" in report
    assert "## Training" not in report


def test_sharp_pictures_are_blurred_and_the_report_says_so(run: Path, photos: Path, tmp_path: Path) -> None:
    arguments = ["--checkpoint", str(run / "generator.safetensors"), "--data", str(photos), "--out", str(tmp_path)]
    assert main([*arguments, "--size", "64x48"]) == 0
    report = (tmp_path / "report.md").read_text()
    assert "The blur is synthetic" in report
    assert "it has seen these pictures" in report
    first = scores(tmp_path)
    assert main([*arguments, "--size", "64x48", "-y"]) == 0
    assert scores(tmp_path) == first


def test_another_checkpoint_says_how_sharp_pictures_are_blurred(run: Path, photos: Path, tmp_path: Path) -> None:
    """So that two models, or an engine that knows no recipe, are compared on the same pictures."""
    other = tmp_path / "other"
    train(
        overridden(RECIPES["two_stage"], [*SMALL, "epochs=1", "data.blur.length_px=(9.0, 9.0)"]),
        data=[photos],
        run=other,
    )
    asked = {"own": (run, []), "theirs": (run, ["--blur-as", str(other)]), "other": (other, [])}
    blurred = {}
    for name, (model, extra) in asked.items():
        report = tmp_path / name / "report"
        assert (
            main(["--checkpoint", str(model), "--data", str(photos), "--out", str(report), "--size", "full", *extra])
            == 0
        )
        blurred[name] = [row["blurred_psnr_db"] for row in scores(report)]
    assert blurred["theirs"] == blurred["other"] != blurred["own"]


def test_pictures_of_several_sizes_are_scored_one_by_one(run: Path, tmp_path: Path) -> None:
    root = write_gopro(tmp_path / "tree", sequences={"A": 1})
    write_gopro(root, sequences={"B": 1}, size=(70, 50))
    arguments = ["--checkpoint", str(run), "--data", str(root), "--out", str(tmp_path / "out"), "--size", "full"]
    assert main(arguments) == 0
    assert len(scores(tmp_path / "out")) == 2


def test_triplets_span_from_the_least_gain_to_the_most() -> None:
    class Fake:
        def __init__(self, gain_db: float) -> None:
            self.gain_db = gain_db

    assert chosen([Fake(gain) for gain in (3, 9, 1, 5, 7, 8, 0, 2, 4)]) == [6, 7, 8, 4, 1]
    assert chosen([Fake(1.0)]) == [0]


def test_sizes() -> None:
    assert view("800x450", None).size_px == (800, 450)
    assert view("trained", RECIPES["swin_mse"]).size_px == (224, 224)
    assert view("trained", RECIPES["edge-s"]).view == "whole"
    assert view("full", RECIPES["swin_mse"]).view == "whole"
    gamma = overridden(RECIPES["edge-s"], ["data.blurred_folder=blur_gamma", "data.blur.length_px=(0, 24)"])
    assert (view("full", gamma).blurred_folder, view("full", gamma).blur.length_px) == ("blur_gamma", (0, 24))


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"--checkpoint": "{tmp}/none"}, 4, "no usable config.json"),
        ({"--checkpoint": "{tmp}/none.onnx"}, 4, "no such engine"),
        ({"--data": "{tmp}/none"}, 3, "no such folder"),
        ({"--size": "big"}, 2, "--size must be WxH"),
        ({"--blurred-folder": "fog"}, 3, "no fog/ beside it"),
        ({"--device": "nonsense"}, 2, "no such device"),
    ],
)
def test_bad_input_gets_one_line_and_its_code(
    change: dict[str, str],
    code: int,
    words: str,
    run: Path,
    gopro: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = {"--checkpoint": str(run), "--data": str(gopro), "--out": str(tmp_path / "out")} | change
    assert main([text.format(tmp=tmp_path) for pair in arguments.items() for text in pair]) == code
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert words in line
    assert not (tmp_path / "out").exists()


def test_a_report_is_not_replaced_unasked(run: Path, gopro: Path, tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("mine")
    arguments = ["--checkpoint", str(run), "--data", str(gopro), "--out", str(tmp_path)]
    assert main(arguments) == 2
    assert (tmp_path / "report.md").read_text() == "mine"
    assert main([*arguments, "-y"]) == 0


@pytest.mark.needs_shared_data
def test_two_stage_recipe_on_true_pairs_from_tree_to_report(tmp_path: Path) -> None:
    """The paper's own network and recipe, end to end, on a tree laid out as GOPRO_Large; small pictures."""
    for part, source in (("train", "gopro_train"), ("test", "gopro_dev")):
        for path in sorted((SHARED / "pairs" / source / "blur").iterdir())[::3]:
            for kind in ("blur", "sharp"):
                folder = tmp_path / "data" / part / path.name[:7] / kind
                folder.mkdir(parents=True, exist_ok=True)
                picture = cv2.imread(str(path.parent.parent / kind / path.name))
                cv2.imwrite(str(folder / f"{path.stem}.png"), picture)
    overrides = ["data.size_px=(128, 72)", "batch=2", "epochs=2", "workers=1"]
    train(overridden(RECIPES["two_stage"], overrides), data=[tmp_path / "data"], run=tmp_path / "run")
    arguments = [
        "--checkpoint",
        str(tmp_path / "run"),
        "--data",
        str(tmp_path / "data"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(arguments) == 0
    rows = scores(tmp_path / "out")
    assert len(rows) == 3
    assert all(20 < float(row["blurred_psnr_db"]) < 40 for row in rows)
    assert "at the best epoch" in (tmp_path / "out" / "report.md").read_text()
