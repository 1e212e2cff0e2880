"""`python -m export --checkpoint RUN --out ENGINE.onnx`: a trained generator becomes an engine."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
from pathlib import Path

import onnx
import onnxruntime
import torch

from export.graph import OPSET, onnx_from_generator
from export.pixels import with_pixel_interface
from export.verify import agreement_db, mean_psnr_db, read_pairs, sample_frames
from runtime.engines import open_engine
from runtime.errors import DeblurError, EngineError, OutputError, UsageError
from runtime.sinks.files import unwritable
from runtime.spec import METADATA_KEY, EngineSpec
from train.checkpoint import CheckpointError, load_generator, weights_path

LEAST_AGREEMENT_DB = 60.0
"""Below this a float export differs from PyTorch by more than rounding."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m export", description=__doc__)
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, metavar="RUN", help="folder that python -m train wrote")
    add("--out", type=Path, required=True, metavar="FILE.onnx", help="engine to write")
    add("--pairs", type=Path, metavar="DIR", help="folder with blur/ and sharp/ to measure the engine on")
    add("-y", dest="overwrite", action="store_true", help="replace an existing engine")
    return parser.parse_args(arguments)


def export(checkpoint: Path, out: Path, *, pairs: Path | None) -> EngineSpec:
    """Export, check against PyTorch, measure, and publish; nothing is written if a check fails."""
    generator, config = load_generator(checkpoint)
    options = ", ".join(f"{name}={value}" for name, value in config["options"].items())
    spec = EngineSpec(
        name=out.stem,
        generator=f"{config['generator']}({options})",
        precision="fp32",
        weights_sha256=hashlib.sha256(weights_path(checkpoint).read_bytes()).hexdigest(),
        exported_with=f"torch {torch.__version__}, onnx {onnx.__version__}, opset {OPSET}",
    )
    model = with_pixel_interface(
        onnx_from_generator(generator),
        channel_order=generator.channel_order,
        pixel_range=generator.pixel_range,
        multiple_of=generator.multiple_of,
        spec=spec,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f"{out.stem}.part.onnx")
    try:
        onnx.save(model, unfinished)
        engine = open_engine(unfinished, provider="cpu")
        spec = dataclasses.replace(spec, agreement_db=round(agreement_db(engine, generator, sample_frames()), 2))
        if spec.agreement_db < LEAST_AGREEMENT_DB:
            raise EngineError(
                f"engine differs from PyTorch ({spec.agreement_db} dB, at least {LEAST_AGREEMENT_DB} expected)",
                out,
                hint="report it with the versions of torch and onnx",
            )
        if pairs:
            before, after = mean_psnr_db(engine, read_pairs(pairs))
            spec = dataclasses.replace(
                spec, blurred_psnr_db=round(before, 3), psnr_db=round(after, 3), measured_on=pairs.name
            )
        onnx.helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
        onnx.save(model, unfinished)
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)
    return spec


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        if options.out.suffix != ".onnx":
            raise UsageError("engines are .onnx files", options.out, hint="give --out NAME.onnx")
        if options.out.exists() and not options.overwrite:
            raise UsageError("engine exists", options.out, hint="add -y to replace it, or give another --out")
        spec = export(options.checkpoint, options.out, pairs=options.pairs)
    except CheckpointError as error:
        print(f"error: {error}", file=sys.stderr)
        return EngineError.exit_code
    except OSError as error:
        print(f"error: {unwritable(options.out, error)}", file=sys.stderr)
        return OutputError.exit_code
    except DeblurError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(spec.to_dict(), indent=2))
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB, ONNX Runtime {onnxruntime.__version__} agrees")
    return 0


if __name__ == "__main__":
    sys.exit(main())
