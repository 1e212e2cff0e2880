"""Reports of checkpoints and of engines: tables, figures and scores."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmarks.quality.__main__ import main as measure_quality
from tests.conftest import SHARED
from tests.train.conftest import lpips_file, write_gopro
from train.config import apply_overrides
from train.evaluate.__main__ import main
from train.evaluate.comparison import name_models
from train.evaluate.scoring import choose_test_config, select_examples
from train.models import create_generator
from train.perceptual import PerceptualMeter
from train.recipes import RECIPES
from train.training.loop import train

SMALL = ["generator=edge", "options={'widths': (8,), 'blocks': (1,)}", "data.size_px=(80, 64)", "workers=0", "epochs=2"]


@pytest.fixture(scope="module")
def run(gopro: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(apply_overrides(RECIPES["two_stage"], SMALL), data=[gopro], run=folder)
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
    assert "3 images at 80x64" in report
    assert "| Training discriminator loss |" in report
    for name in ("generator_loss", "discriminator_loss", "ssim", "psnr"):
        assert f"](curve_{name}.png)" in report
        assert cv2.imread(str(tmp_path / f"curve_{name}.png")).std() > 5
    triplets = sorted(tmp_path.glob("triplet_*.png"))
    assert len(triplets) == 3
    assert cv2.imread(str(triplets[0])).shape[1] == 3 * 80
    assert all(f"]({path.name})" in report for path in triplets)


def test_perceptual_scores_are_reported_if_they_are_asked_for(run: Path, gopro: Path, tmp_path: Path) -> None:
    lpips_file(tmp_path / "lpips.safetensors")
    arguments = ["--checkpoint", str(run), "--data", str(gopro), "--perceptual", str(tmp_path / "lpips.safetensors")]
    # So short a training with a discriminator may lay a grid, which fails after the report is written.
    assert main([*arguments, "--out", str(tmp_path / "report")]) in {0, 4}
    rows = scores(tmp_path / "report")
    pair = [cv2.imread(str(gopro / rows[0]["picture"].replace("blur", kind))) for kind in ("blur", "sharp")]
    pair = [cv2.resize(picture, (80, 64), interpolation=cv2.INTER_AREA) for picture in pair]
    score = PerceptualMeter(tmp_path / "lpips.safetensors").measure(*pair)
    assert float(rows[0]["blurred_lpips"]) == pytest.approx(score.lpips)
    assert float(rows[0]["blurred_grid_codes"]) == pytest.approx(score.grid_codes)
    report = (tmp_path / "report" / "report.md").read_text()
    assert "| LPIPS (less is better) |" in report
    assert "| Grid of 4 pixels (codes, less is better) |" in report
    assert "NIQE" not in report  # for images of two squares of 96 pixels or more
    assert main([*arguments, "--size", "192x96", "--out", str(tmp_path / "large")]) in {0, 4}
    assert "| NIQE (less is better) |" in (tmp_path / "large" / "report.md").read_text()
    assert float(scores(tmp_path / "large")[0]["restored_niqe"]) > 1
    arguments += ["--size", "63x63", "--out", str(tmp_path / "small")]
    assert main(arguments) == 2


def test_report_of_an_engine(invert: Path, gopro: Path, tmp_path: Path) -> None:
    """An engine that inverts colours gets the scores of inverted images."""
    assert main(["--checkpoint", str(invert), "--data", str(gopro), "--out", str(tmp_path / "report")]) == 0
    row = scores(tmp_path / "report")[0]
    blurred, sharp = (cv2.imread(str(gopro / "test" / "GOPR04" / kind / "000000.png")) for kind in ("blur", "sharp"))
    assert float(row["restored_psnr_db"]) == pytest.approx(psnr_db(255 - blurred, sharp), abs=1e-3)
    report = (tmp_path / "report" / "report.md").read_text()
    assert "their own size" in report
    assert "## Training" not in report


def test_scores_of_an_engine_are_those_of_benchmarks_quality(invert: Path, gopro: Path, tmp_path: Path) -> None:
    pairs = gopro / "test" / "GOPR04"
    assert main(["--checkpoint", str(invert), "--data", str(pairs), "--out", str(tmp_path / "report")]) == 0
    arguments = ["--pairs", str(pairs), "--engine", str(invert), "--json", str(tmp_path / "quality.json")]
    assert measure_quality(arguments) == 0
    quality = json.loads((tmp_path / "quality.json").read_text())["results"]
    rows = scores(tmp_path / "report")
    for kind, numbers in (("blurred", quality["blurred"]), ("restored", quality["restored"][0])):
        for name in ("psnr_db", "ssim"):
            mean = np.mean([float(row[f"{kind}_{name}"]) for row in rows])
            assert numbers[name] == round(float(mean), 4)


def test_several_models_are_compared_in_one_report(
    run: Path, invert: Path, gopro: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run, an engine and weights of a published network on the same images: a row and a column of images each."""
    torch.manual_seed(0)
    network = create_generator("nafnet", width=8, encoder_blocks=(1,), decoder_blocks=(1,))
    torch.save(network.state_dict(), tmp_path / "naf.pth")
    models = [run, invert, tmp_path / "naf.pth"]
    arguments = [text for path in models for text in ("--checkpoint", str(path))]
    assert main([*arguments, "--data", str(gopro), "--out", str(tmp_path / "all"), "--size", "full"]) == 0
    rows = scores(tmp_path / "all")
    names = [run.name, invert.name, "naf.pth"]
    assert [row["model"] for row in rows] == [name for name in names for _ in range(3)]
    report = (tmp_path / "all" / "report.md").read_text()
    printed = capsys.readouterr().out
    for path, name in zip(models, names, strict=True):
        alone = tmp_path / "alone" / name
        assert main(["--checkpoint", str(path), "--data", str(gopro), "--out", str(alone), "--size", "full"]) == 0
        expected = [row["restored_psnr_db"] for row in scores(alone)]
        assert [row["restored_psnr_db"] for row in rows if row["model"] == name] == expected
        gains = [float(row["restored_psnr_db"]) - float(row["blurred_psnr_db"]) for row in scores(alone)]
        (line,) = [line for line in report.splitlines() if line.startswith(f"| {name} |")]
        assert line.endswith(f"| {np.mean(gains):+.2f} | {min(gains):+.2f} |")
        assert line in printed
    images = sorted((tmp_path / "all").glob("row_*.png"))
    assert len(images) == 3
    assert cv2.imread(str(images[0])).shape[1] == 5 * 96  # blurred, three models, sharp
    last = cv2.imread(str(images[0]))[28:, 2 * 96 : 3 * 96]
    assert np.array_equal(last, 255 - cv2.imread(str(images[0]))[28:, :96])  # the engine inverts


def test_models_of_one_name_are_named_by_their_folders(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "run", tmp_path / "b" / "run", tmp_path / "b" / "best"]
    assert name_models(paths) == ["a/run", "b/run", "b/best"]
    assert name_models([paths[0], paths[0]]) == ["run (1)", "run (2)"]
    assert name_models([paths[0], paths[2]]) == ["run", "best"]


def test_models_of_different_training_need_a_common_size_and_blur(
    run: Path, gopro: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    overrides = [*SMALL, "epochs=1", "data.size_px=(96, 64)", "data.blur.length_px=(1.0, 9.0)"]
    train(apply_overrides(RECIPES["two_stage"], overrides), data=[gopro], run=other)
    arguments = ["--checkpoint", str(run), "--checkpoint", str(other), "--out", str(tmp_path / "out")]
    for data, extra, words in (
        (gopro, [], "different settings of data.size_px; give --size WxH or --size full"),
        (photos, ["--size", "64x48"], "different settings of data.blur; give --blur-as C"),
    ):
        assert main([*arguments, "--data", str(data), *extra]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--data", str(photos), "--size", "64x48", "--blur-as", str(other)]) == 0


def test_sharp_images_are_blurred_and_the_report_says_so(run: Path, photos: Path, tmp_path: Path) -> None:
    arguments = ["--checkpoint", str(run / "generator.safetensors"), "--data", str(photos), "--out", str(tmp_path)]
    assert main([*arguments, "--size", "64x48"]) == 0
    report = (tmp_path / "report.md").read_text()
    assert "The blur is synthetic" in report
    assert "has seen these images" in report
    first = scores(tmp_path)
    assert main([*arguments, "--size", "64x48", "-y"]) == 0
    assert scores(tmp_path) == first


def test_blur_as_takes_the_blur_of_another_checkpoint(run: Path, photos: Path, tmp_path: Path) -> None:
    """Two models, or an engine without a recipe, can be compared on the same images."""
    other = tmp_path / "other"
    train(
        apply_overrides(RECIPES["two_stage"], [*SMALL, "epochs=1", "data.blur.length_px=(9.0, 9.0)"]),
        data=[photos],
        run=other,
    )
    runs = {"own": (run, []), "theirs": (run, ["--blur-as", str(other)]), "other": (other, [])}
    blurred = {}
    for name, (model, extra) in runs.items():
        report = tmp_path / name / "report"
        assert (
            main(["--checkpoint", str(model), "--data", str(photos), "--out", str(report), "--size", "full", *extra])
            == 0
        )
        blurred[name] = [row["blurred_psnr_db"] for row in scores(report)]
    assert blurred["theirs"] == blurred["other"] != blurred["own"]


def test_images_of_several_sizes_are_scored_one_by_one(run: Path, tmp_path: Path) -> None:
    root = write_gopro(tmp_path / "tree", sequences={"A": 1})
    write_gopro(root, sequences={"B": 1}, size=(70, 50))
    arguments = ["--checkpoint", str(run), "--data", str(root), "--out", str(tmp_path / "out"), "--size", "full"]
    assert main(arguments) == 0
    assert len(scores(tmp_path / "out")) == 2


def test_examples_span_from_the_smallest_gain_to_the_largest() -> None:
    class Fake:
        def __init__(self, gain_db: float) -> None:
            self.gain_db = gain_db

    assert select_examples([Fake(gain) for gain in (3, 9, 1, 5, 7, 8, 0, 2, 4)]) == [6, 7, 8, 4, 1]
    assert select_examples([Fake(1.0)]) == [0]


def test_test_images_have_the_size_of_the_option_or_of_the_training() -> None:
    assert choose_test_config("800x450", None).size_px == (800, 450)
    assert choose_test_config("trained", RECIPES["swin_mse"]).size_px == (224, 224)
    assert choose_test_config("trained", RECIPES["edge-s"]).view == "whole"
    assert choose_test_config("full", RECIPES["swin_mse"]).view == "whole"
    gamma = apply_overrides(RECIPES["edge-s"], ["data.blurred_folder=blur_gamma", "data.blur.length_px=(0, 24)"])
    config = choose_test_config("full", gamma)
    assert (config.blurred_folder, config.blur.length_px) == ("blur_gamma", (0, 24))


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"--checkpoint": "{tmp}/none"}, 4, "no such folder"),
        ({"--checkpoint": "{tmp}/none.onnx"}, 4, "no such engine"),
        ({"--data": "{tmp}/none"}, 3, "no such folder"),
        ({"--size": "big"}, 2, "--size must be WxH"),
        ({"--blurred-folder": "fog"}, 3, "but no fog/"),
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


def test_a_report_is_replaced_only_with_y(run: Path, gopro: Path, tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("mine")
    assert main(["--checkpoint", str(run), "--data", str(gopro), "--out", str(tmp_path / "report.md")]) == 2
    arguments = ["--checkpoint", str(run), "--data", str(gopro), "--out", str(tmp_path)]
    assert main(arguments) == 2
    assert (tmp_path / "report.md").read_text() == "mine"
    assert main([*arguments, "-y"]) == 0


@pytest.mark.needs_shared_data
def test_two_stage_recipe_on_true_pairs_from_tree_to_report(tmp_path: Path) -> None:
    """The network and recipe of the paper, end to end, on small images in a tree like GOPRO_Large's."""
    for part, source in (("train", "gopro_train"), ("test", "gopro_dev")):
        for path in sorted((SHARED / "pairs" / source / "blur").iterdir())[::3]:
            for kind in ("blur", "sharp"):
                folder = tmp_path / "data" / part / path.name[:7] / kind
                folder.mkdir(parents=True, exist_ok=True)
                picture = cv2.imread(str(path.parent.parent / kind / path.name))
                cv2.imwrite(str(folder / f"{path.stem}.png"), picture)
    overrides = ["data.size_px=(128, 72)", "batch=2", "epochs=2", "workers=1"]
    train(apply_overrides(RECIPES["two_stage"], overrides), data=[tmp_path / "data"], run=tmp_path / "run")
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
    assert "at the published epoch" in (tmp_path / "out" / "report.md").read_text()
