"""`python -m train.evaluate --checkpoint RUN --data DIR --out DIR`: a paper's tables and figures of a model.

Writes `report.md` with PSNR and SSIM of the blurred and the restored test pictures, the curves of
the training, and triplets blurred / restored / sharp; `scores.csv` has every picture.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, astuple, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from train.checkpoint import CheckpointError, load_generator, weights_path
from train.config import DataConfig, Recipe
from train.data.blur import Image
from train.data.datasets import Pictures
from train.data.index import Sample, check, find_samples
from train.exit_codes import to_its_end
from train.metrics import Score, psnr_db, ssim
from train.models import restore
from train.synthetic import blur_of
from train.training.distributed import join
from train.training.run_log import read_log

Restorer = Callable[[Image], Image]
"""uint8[1, H, W, 3] BGR -> the same, restored."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m train.evaluate", description=__doc__)
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, metavar="C", help="folder that python -m train wrote, or an engine")
    add("--data", type=Path, required=True, metavar="DIR", help="pictures as for training; of them `test`")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the report")
    add("--size", default="trained", metavar="WxH", help="resize pictures; full: do not (default: as trained)")
    add("--blurred-folder", metavar="NAME", help="beside sharp/ (default: as trained)")
    add("--blur-as", type=Path, metavar="C", help="blur sharp pictures as for this checkpoint (default: as its own)")
    add("--device", default="cpu", help="of a checkpoint: cpu, cuda, ... (default: cpu)")
    add("-y", dest="overwrite", action="store_true", help="replace an existing report")
    return parser.parse_args(arguments)


def open_model(path: Path, *, device: str) -> tuple[Restorer, Recipe | None]:
    """A checkpoint or an engine as a function of pictures, and a checkpoint's recipe; raises CheckpointError."""
    if path.suffix in {".onnx", ".plan", ".engine"}:
        return _open_engine(path), None
    generator, config = load_generator(path)
    place = join(device).device
    generator.to(place)
    restorer = lambda frames: restore(generator, torch.from_numpy(frames).to(place)).cpu().numpy()  # noqa: E731
    return restorer, Recipe.from_json(json.dumps(config))


def view(size: str, recipe: Recipe | None) -> DataConfig:
    """How test pictures are seen: blurred as in training, of the size given or trained at; raises ValueError."""
    trained = dataclasses.replace(recipe.data if recipe else DataConfig(), shares=(), flips=False, quarter_turns=False)
    if size == "trained" and trained.view == "resize":
        return trained
    if size in {"trained", "full"}:
        return dataclasses.replace(trained, view="whole")
    try:
        width, height = (int(part) for part in size.split("x"))
    except ValueError as error:
        raise ValueError(f"--size must be WxH, as 800x450, or full, got {size!r}") from error
    return dataclasses.replace(trained, view="resize", size_px=(width, height))


def score(model: Restorer, pair: tuple[Image, Image], picture: str) -> tuple[Score, Image]:
    """Restore one blurred picture and compare both with the sharp one; uint8[H, W, 3] BGR each."""
    blurred, sharp = pair
    restored = model(blurred[np.newaxis])[0]
    truth, *others = (_planes(each) for each in (sharp, blurred, restored))
    return Score(picture, *(measure(other, truth).item() for measure in (psnr_db, ssim) for other in others)), restored


def evaluate(model: Restorer, pictures: Pictures, *, root: Path) -> list[Score]:
    """Score every picture."""
    rows = tqdm(range(len(pictures)), desc="restoring", unit="picture")
    return [score(model, pictures[0, row], _name(pictures.samples[row], root))[0] for row in rows]


def chosen(scores: list[Score]) -> list[int]:
    """Five pictures from the least gain to the most, so that a report shows failures too."""
    order = np.argsort([each.gain_db for each in scores], kind="stable")
    return [int(order[at]) for at in sorted(set(np.linspace(0, len(order) - 1, 5).round().astype(int)))]


def write_scores(scores: list[Score], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in fields(Score))
        writer.writerows(astuple(each) for each in scores)


def table_2(scores: list[Score]) -> str:
    """Markdown, as Table 2 of the two-stage paper: means over the pictures."""
    names = [name for name in asdict(scores[0]) if name != "picture"]
    mean = {name: float(np.mean([getattr(each, name) for each in scores])) for name in names}
    return (
        "| mean of the test pictures | blurred | restored | gain |\n|---|---|---|---|\n"
        f"| PSNR (dB) | {mean['blurred_psnr_db']:.2f} | {mean['restored_psnr_db']:.2f} "
        f"| {mean['restored_psnr_db'] - mean['blurred_psnr_db']:+.2f} |\n"
        f"| SSIM | {mean['blurred_ssim']:.4f} | {mean['restored_ssim']:.4f} "
        f"| {mean['restored_ssim'] - mean['blurred_ssim']:+.4f} |\n"
    )


def table_1(log: list[dict[str, Any]]) -> str:
    """Markdown, as Table 1 of the two-stage paper: the epoch whose weights were published."""
    best = min(log, key=lambda line: line["validation/content_loss"])
    rows = {
        "Validation generator loss": ("validation/content_loss", ".6f"),
        "Validation SSIM": ("validation/ssim", ".4f"),
        "Validation PSNR (dB)": ("validation/psnr_db", ".2f"),
        "Training generator loss": ("train/generator_loss", ".6f"),
        "Training discriminator loss": ("train/discriminator_loss", ".6f"),
        "Training SSIM": ("train/ssim", ".4f"),
        "Training PSNR (dB)": ("train/psnr_db", ".2f"),
    }
    lines = [f"| {title} | {best[name]:{form}} |\n" for title, (name, form) in rows.items() if name in best]
    return f"| at the best epoch, {best['epoch']} of {log[-1]['epoch']} | |\n|---|---|\n" + "".join(lines)


def write_report(options: argparse.Namespace) -> str:
    """Evaluate and write everything; returns the table. Raises what `main` turns into exit codes."""
    from train.evaluate.figures import curves, triplet  # noqa: PLC0415 - matplotlib is needed for this alone

    if (options.out / "report.md").exists() and not options.overwrite:
        raise ValueError(f"a report is there already; add -y to replace it, or give another --out: {options.out}")
    model, recipe = open_model(options.checkpoint, device=options.device)
    seen = view(options.size, recipe)
    if options.blur_as:
        seen = dataclasses.replace(seen, blur=blur_of(options.blur_as))
    found = find_samples(options.data, blurred_folder=options.blurred_folder or seen.blurred_folder)
    samples = found.test or found.train
    check(samples, seen, where=str(options.data), same_size=False)
    pictures = Pictures(samples, seen, seed=0, augment=False)
    scores = evaluate(model, pictures, root=options.data)
    options.out.mkdir(parents=True, exist_ok=True)
    write_scores(scores, options.out / "scores.csv")
    size = "their own size" if seen.view == "whole" else f"{seen.size_px[0]}x{seen.size_px[1]}"
    parts = [f"# {options.checkpoint.name} on {options.data.name}", f"{len(scores)} pictures at {size}."]
    if any(sample.blurred is None for sample in samples):
        parts.append("The blur is synthetic: the pictures came without blurred partners.")
    if not found.test:
        parts.append("There is no folder `test`: if the model was trained on this folder, it has seen these pictures.")
    elif recipe and recipe.data.validation == "test":
        parts.append("The epoch whose weights are measured here was chosen on `test`, as the recipe says.")
    parts += ["## Test pictures", table_2(scores)]
    log = read_log(weights_path(options.checkpoint).parent) if recipe else []
    if log:
        parts += ["## Training", table_1(log)]
        parts += [f"![{caption}]({name})" for name, caption in curves(log, options.out).items()]
    parts.append("## Blurred, restored, sharp\n\nFrom the least gain to the most.")
    for row in chosen(scores):
        pair = pictures[0, row]
        one, restored = score(model, pair, scores[row].picture)
        name = f"triplet_{row:04d}.png"
        triplet(pair[0], restored, pair[1], one, options.out / name)
        parts.append(f"![{one.picture}, {one.gain_db:+.2f} dB]({name})\n\n{one.picture}: {one.gain_db:+.2f} dB")
    (options.out / "report.md").write_text("\n\n".join(parts) + "\n")
    return table_2(scores)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)

    def tell() -> None:
        print(write_report(options), end="")
        print(f"{options.out / 'report.md'} has the figures")

    return to_its_end(tell)


def _open_engine(path: Path) -> Restorer:
    from runtime.engines import open_engine  # noqa: PLC0415 - a checkpoint needs nothing of the runtime
    from runtime.errors import DeblurError  # noqa: PLC0415

    def checked(work: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return work(*arguments)
        except DeblurError as error:
            raise CheckpointError(str(error)) from error

    engine = checked(open_engine, path)
    return lambda frames: checked(engine.infer, frames)


def _planes(picture: Image) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).unsqueeze(0).float().div(255)


def _name(sample: Sample, root: Path) -> str:
    return (sample.blurred or sample.sharp).relative_to(root).as_posix()


if __name__ == "__main__":
    sys.exit(main())
