"""`python -m train.evaluate --checkpoint RUN --data DIR --out DIR`: measure one or more models and write a report.

The report, `report.md`, has the tables and figures of a paper: PSNR and SSIM of the blurred and the restored test
images, the curves of the training, and triplets of blurred, restored and sharp images. With several models it has a row
for each, and their results side by side. `scores.csv` has every image.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from runtime.cli import say
from runtime.errors import UsageError
from runtime.parser import CommandParser
from train.checkpoint import load_generator, load_recipe
from train.command import run_command
from train.config import DataConfig, Recipe
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
from train.weights import is_published, weights_path


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """Options of the command line."""

    checkpoints: list[Path]
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
        dest="checkpoints",
        type=Path,
        required=True,
        action="append",
        metavar="C",
        help="folder that python -m train wrote, engine file, or weights of a published network; repeat the option to "
        "compare several",
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
        help="also measure LPIPS, NIQE and the strength of a grid; WEIGHTS of LPIPS (default: as "
        "python -m train.lpips_weights wrote them)",
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
    """Return a checkpoint or an engine as a function, and the recipe of what `python -m train` wrote.

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

    return restore, None if is_published(path) else load_recipe(path)


def evaluate(options: EvaluateOptions) -> str:
    """Measure the models, write the report, and return the table of its scores.

    Raises UsageError if there is a report already, DataError, CheckpointError, and the errors of engines and files; and
    EngineError, after the report is written, if a generator that was trained with a discriminator lays a grid.
    """
    from train.evaluate.report import REPORT  # noqa: PLC0415 - matplotlib takes seconds

    if options.out.exists() and not options.out.is_dir():
        raise UsageError("output is a file", options.out, hint="give a folder")
    if (options.out / REPORT).exists() and not options.overwrite:
        raise UsageError("this folder holds a report already", options.out, hint="add -y, or give another --out")
    perceptual = None if options.perceptual is None else PerceptualMeter(options.perceptual or None)
    models = [open_model(path, device=options.device) for path in options.checkpoints]
    dataset, has_test_folder = _open_images(options, [recipe for _, recipe in models])
    table = _write(options, models, dataset, has_test_folder=has_test_folder, perceptual=perceptual)
    for path, (_, recipe) in zip(options.checkpoints, models, strict=True):
        if recipe and perceptual:
            _check_grid(path, recipe, dataset)
    return table


def _open_images(options: EvaluateOptions, recipes: Sequence[Recipe | None]) -> tuple[ImageDataset, bool]:
    """Return the test images as the options and the recipes of the models say, and whether they are those of `test`."""
    with settings_checked("correct --size"):
        configs = [choose_test_config(options.size, recipe) for recipe in recipes if recipe]
        config = configs[0] if configs else choose_test_config(options.size, None)
    _require_equal(configs, "view", "size_px", hint="give --size WxH or --size full")
    if options.blur_as:
        config = dataclasses.replace(config, blur=choose_blur(options.blur_as))
    if not options.blurred_folder:
        _require_equal(configs, "blurred_folder", hint="give --blurred-folder NAME")
    blurred_folder = options.blurred_folder or config.blurred_folder
    found = find_samples(options.data, blurred_folder=blurred_folder)
    if note := describe_blurred(found, blurred_folder=blurred_folder):
        say(note)
    samples = found.test or found.train
    if not options.blur_as and any(sample.blurred is None for sample in samples):
        _require_equal(configs, "blur", hint="give --blur-as C, such as one of them")
    check_images(samples, config, where=str(options.data), same_size=False)
    return ImageDataset(samples, config, seed=0, augment=False), bool(found.test)


def _require_equal(configs: Sequence[DataConfig], *names: str, hint: str) -> None:
    """Raise UsageError if the checkpoints were trained with different settings, so that none can be taken for all."""
    for name in names:
        is_used = name != "size_px" or all(config.view == "resize" for config in configs)
        values = [getattr(config, name) for config in configs]
        if is_used and any(value != values[0] for value in values):
            raise UsageError(f"the checkpoints were trained with different settings of data.{name}", hint=hint)


def _write(
    options: EvaluateOptions,
    models: Sequence[tuple[Restorer, Recipe | None]],
    dataset: ImageDataset,
    *,
    has_test_folder: bool,
    perceptual: PerceptualMeter | None,
) -> str:
    """Write the report of one or more models and return its table."""
    from train.evaluate.comparison import Comparison, name_models, write_comparison  # noqa: PLC0415 - as above
    from train.evaluate.report import Evaluation, write_report  # noqa: PLC0415

    is_validated_on_test = [recipe is not None and recipe.data.validation == "test" for _, recipe in models]
    if len(models) == 1:
        (path,), ((model, recipe),) = options.checkpoints, models
        evaluation = Evaluation(
            model=model,
            model_name=path.name,
            dataset=dataset,
            root=options.data,
            has_test_folder=has_test_folder,
            is_validated_on_test=is_validated_on_test[0],
            log=read_log(weights_path(path).parent) if recipe else [],
            perceptual=perceptual,
        )
        return write_report(evaluation, options.out)
    names = name_models(options.checkpoints)
    chosen = [name for name, is_chosen in zip(names, is_validated_on_test, strict=True) if is_chosen]
    comparison = Comparison(
        models={name: model for name, (model, _) in zip(names, models, strict=True)},
        dataset=dataset,
        root=options.data,
        has_test_folder=has_test_folder,
        validated_on_test=chosen if has_test_folder else [],
        perceptual=perceptual,
    )
    return write_comparison(comparison, options.out)


def _check_grid(path: Path, recipe: Recipe, dataset: ImageDataset) -> None:
    """Raise EngineError if a generator that was trained with a discriminator lays a grid over the images."""
    config = dataclasses.asdict(recipe)
    if has_discriminator(config):
        generator, _ = load_generator(path)
        step = -(-len(dataset) // MAX_IMAGES)
        pairs = [dataset[0, row] for row in range(0, len(dataset), step)]
        say(require_no_grid(generator, config, pairs, path=path))


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
