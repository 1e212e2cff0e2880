"""`python -m train.evaluate --checkpoint RUN --data DIR --out DIR`: measure a model and write a report.

The report, `report.md`, has the tables and figures of a paper: PSNR and SSIM of the blurred and the restored test
images, the curves of the training, and triplets of blurred, restored and sharp images. `scores.csv` has every image.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import torch

from runtime.cli import say
from runtime.errors import UsageError
from runtime.parser import CommandParser
from train.checkpoint import load_generator, load_recipe
from train.command import run_command
from train.config import Recipe
from train.data.blur import Image
from train.data.datasets import ImageDataset
from train.data.index import check_images, describe_blurred, find_samples
from train.errors import settings_checked
from train.evaluate.scoring import Restorer, choose_test_config
from train.grid_gate import MAX_IMAGES, has_discriminator, require_no_grid
from train.models import restore_frames
from train.perceptual import PerceptualMeter
from train.synthetic import choose_blur
from train.training.distributed import join_ranks
from train.training.run_log import read_log
from train.weights import weights_path


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """Options of the command line."""

    checkpoint: Path
    data: Path
    out: Path
    size: str
    blurred_folder: str | None
    blur_as: Path | None
    perceptual: str | None
    device: str
    overwrite: bool


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m train.evaluate`."""
    parser = CommandParser("train.evaluate", description=__doc__)
    group = parser.add_argument_group("input")
    group.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="C",
        help="folder that python -m train wrote, or an engine file",
    )
    group.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="folder of images as for training; test/ if it has one"
    )
    group.add_argument(
        "--size",
        default="trained",
        metavar="WxH",
        help="size that images are resized to, or full (default: as trained)",
    )
    group.add_argument(
        "--blurred-folder", metavar="NAME", help="name of the folders of blurred images (default: as trained)"
    )
    group.add_argument(
        "--blur-as",
        type=Path,
        metavar="C",
        help="checkpoint whose training blur is used for sharp images without partners (default: C of --checkpoint)",
    )
    group.add_argument(
        "--perceptual",
        nargs="?",
        const="",
        metavar="WEIGHTS",
        help="also measure LPIPS and the strength of a grid; WEIGHTS of LPIPS (default: as python -m "
        "train.lpips_weights wrote them)",
    )
    group = parser.add_argument_group("output")
    group.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the report")
    group.add_argument("-y", dest="overwrite", action="store_true", help="replace an existing report")
    group = parser.add_argument_group("device and errors")
    group.add_argument("--device", default="cpu", help="torch device for a checkpoint: cpu, cuda, ... (default: cpu)")
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exit with code 2 if it is wrong."""
    return build_parser().parse_args(arguments)


def open_model(path: Path, *, device: str) -> tuple[Restorer, Recipe | None]:
    """Return a checkpoint or an engine as a function, and the recipe of a checkpoint.

    Raises CheckpointError, EngineError, or UsageError if there is no such device.
    """
    if path.suffix in {".onnx", ".plan", ".engine"}:
        from runtime.engines import open_engine  # noqa: PLC0415 - not needed for a checkpoint

        return open_engine(path).infer, None
    generator, _ = load_generator(path)
    place = join_ranks(device).device
    generator.to(place)

    def restore(frames: Image) -> Image:
        restored: Image = restore_frames(generator, torch.from_numpy(frames).to(place)).cpu().numpy()
        return restored

    return restore, load_recipe(path)


def evaluate(options: EvaluateOptions) -> str:
    """Measure a model, write the report, and return the table of its scores.

    Raises UsageError if there is a report already, DataError, CheckpointError, and the errors of engines and files; and
    EngineError, after the report is written, if a generator that was trained with a discriminator lays a grid.
    """
    from train.evaluate.report import REPORT, Evaluation, write_report  # noqa: PLC0415 - matplotlib takes seconds

    if (options.out / REPORT).exists() and not options.overwrite:
        raise UsageError("this folder holds a report already", options.out, hint="add -y, or give another --out")
    perceptual = None if options.perceptual is None else PerceptualMeter(options.perceptual or None)
    model, recipe = open_model(options.checkpoint, device=options.device)
    with settings_checked("correct --size"):
        config = choose_test_config(options.size, recipe)
    if options.blur_as:
        config = dataclasses.replace(config, blur=choose_blur(options.blur_as))
    blurred_folder = options.blurred_folder or config.blurred_folder
    found = find_samples(options.data, blurred_folder=blurred_folder)
    if note := describe_blurred(found, blurred_folder=blurred_folder):
        say(note)
    samples = found.test or found.train
    check_images(samples, config, where=str(options.data), same_size=False)
    evaluation = Evaluation(
        model=model,
        model_name=options.checkpoint.name,
        dataset=ImageDataset(samples, config, seed=0, augment=False),
        root=options.data,
        has_test_folder=bool(found.test),
        is_validated_on_test=recipe is not None and recipe.data.validation == "test",
        log=read_log(weights_path(options.checkpoint).parent) if recipe else [],
        perceptual=perceptual,
    )
    table = write_report(evaluation, options.out)
    if recipe and perceptual:
        _check_grid(options, recipe, evaluation.dataset)
    return table


def _check_grid(options: EvaluateOptions, recipe: Recipe, dataset: ImageDataset) -> None:
    """Raise EngineError if a generator that was trained with a discriminator lays a grid over the images."""
    config = dataclasses.asdict(recipe)
    if has_discriminator(config):
        generator, _ = load_generator(options.checkpoint)
        step = -(-len(dataset) // MAX_IMAGES)
        pairs = [dataset[0, row] for row in range(0, len(dataset), step)]
        say(require_no_grid(generator, config, pairs, path=options.checkpoint))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line of `python -m train.evaluate` and return its exit code."""
    values = vars(parse(arguments))
    is_debug = values.pop("debug")
    options = EvaluateOptions(**values)

    def command(_: object) -> None:
        print(evaluate(options), end="")
        print(f"{options.out / 'report.md'} has the figures")

    return run_command(command, debug=is_debug)


if __name__ == "__main__":
    sys.exit(main())
