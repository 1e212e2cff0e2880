"""The table of `deblur models`: bundled engines and the user's own, with quality, cost and licence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runtime.engines.names import BUNDLED_NAMES, MODELS
from runtime.engines.onnx import inspect
from runtime.errors import DeblurError
from runtime.model_folder import list_model_folders
from runtime.sidecar import read_sidecar
from runtime.spec import FLOAT_NCHW, EngineSpec

_CARD_MACS = re.compile(r"([\d,]+) MAC per pixel")
_CARD_LICENCE = re.compile(r"^\| licence \| (.+?) \|$", re.MULTILINE)
_HEAD = ("name", "engines", "PSNR dB", "loss dB", "MAC/pixel", "MB", "licence", "network")


@dataclass(frozen=True, kw_only=True)
class Model:
    """One network with its engines."""

    name: str
    specs: dict[Path, EngineSpec]
    """Specs of the engines that can be read, by file."""
    macs_per_pixel: float | None
    licence: str | None
    broken: tuple[str, ...] = ()
    """A line for each file that cannot be read."""


def list_models() -> Iterator[Model]:
    """Yield the bundled models, then those of the user by name; a file that cannot be read becomes a line."""
    for name in BUNDLED_NAMES:
        card = (MODELS / f"{name}.md").read_text(encoding="utf-8")
        macs, licence = _CARD_MACS.search(card), _CARD_LICENCE.search(card)
        files = sorted(path for path in MODELS.glob(f"{name}_*.onnx"))
        yield Model(
            name=name,
            specs={path: inspect(path) for path in files},
            macs_per_pixel=float(macs[1].replace(",", "")) if macs else None,
            licence=licence[1] if licence else None,
        )
    for folder in list_model_folders():
        yield _read_folder(folder)


def _read_folder(folder: Path) -> Model:
    specs: dict[Path, EngineSpec] = {}
    broken = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in {".onnx", ".plan"} or path.stem.endswith(FLOAT_NCHW):
            continue
        try:
            specs[path] = read_spec(path)
        except DeblurError as error:
            broken.append(str(error))
    first = next(iter(specs.values()), None)
    return Model(
        name=folder.name,
        specs=specs,
        macs_per_pixel=first.macs_per_pixel if first else None,
        licence=first.licence if first else None,
        broken=tuple(broken),
    )


def read_spec(path: Path) -> EngineSpec:
    """Return the spec of an engine file; a plan's sidecar is checked against it. Raises EngineError."""
    if path.suffix.lower() == ".plan":
        return read_sidecar(path, path.read_bytes()).engine
    return inspect(path)


def format_table(models: list[Model]) -> str:
    """Return the models as a table for a terminal; losses and sizes are those of the engines, in their order."""
    rows = [_HEAD, *(_format_row(model) for model in models)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def _format_row(model: Model) -> tuple[str, ...]:
    specs = list(model.specs.values())
    best = max((spec for spec in specs if spec.psnr_db is not None), key=lambda spec: spec.psnr_db or 0, default=None)
    quality = f"{best.psnr_db:.2f} (blurred {best.blurred_psnr_db or 0:.2f}, {best.measured_on})" if best else "unknown"
    losses = [spec.loss_db for spec in specs if spec.loss_db is not None]
    sizes = [path.stat().st_size / 1e6 for path in model.specs]
    return (
        model.name,
        ", ".join(dict.fromkeys(_describe_file(path, spec) for path, spec in model.specs.items())) or "none",
        quality,
        f"up to {max(losses):.2f}" if losses else "unknown",
        f"{model.macs_per_pixel:,.0f}" if model.macs_per_pixel else "unknown",
        f"{min(sizes):.1f} to {max(sizes):.1f}" if sizes else "",
        model.licence or "unknown",
        specs[0].generator if specs else "",
    )


def _describe_file(path: Path, spec: EngineSpec) -> str:
    return f"{spec.precision} plan" if path.suffix.lower() == ".plan" else spec.precision
