"""`python -m export NETWORK --out DIR`: turn a trained network or an ONNX file into verified engines."""

from __future__ import annotations

import json
import platform
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from export.foreign.options import join_range
from export.former import FormerExport, read_former_export
from export.options import ExportOptions, build_parser, read_options
from export.publish import (
    PARETO,
    REPORT_JSON,
    REPORT_MARKDOWN,
    STEPS,
    compute_inputs_digest,
    compute_tools_digest,
    list_input_files,
    publish,
    refuse_other_files,
    reserve_folder,
)
from export.step_cache import StepCache
from runtime.cli import run_cli, say
from runtime.errors import InputError
from runtime.files import output_error

if TYPE_CHECKING:
    from export.network import Network


def export(network: Network, options: ExportOptions, former: FormerExport, *, inputs_sha256: str) -> str:
    """Make, verify and publish engines in place of those of `former`; return the text of `report.md`.

    `inputs_sha256`: digest of everything that the export depends on. Nothing is published if a check fails. Raises
    EngineError or InputError.
    """
    from export.chain import Chain  # noqa: PLC0415
    from export.report import build_report, draw_pareto, format_markdown  # noqa: PLC0415

    out, config = options.out, options.config
    cache = StepCache(out / STEPS, base=compute_tools_digest())
    chain = Chain(network, config, cache, former=former)
    not_compared = "" if config.force else former.explain_missing_comparison(chain.pairs_sha256)
    if not_compared:
        say(f"note: a worse model is not refused: {not_compared}: {out}")
    result = chain.run()
    report = build_report(
        result, inputs_sha256=inputs_sha256, pairs_sha256=chain.pairs_sha256, not_compared=not_compared
    )
    cpu = platform.processor() or platform.machine()
    text = format_markdown(result, cpu=cpu, not_compared=not_compared)
    engines = result.list_files()
    with tempfile.TemporaryDirectory() as folder:
        pareto = Path(folder) / PARETO
        draw_pareto(result, pareto)
        files = engines | {PARETO: pareto.read_bytes(), REPORT_MARKDOWN: text.encode()}
    files[REPORT_JSON] = f"{json.dumps(report, indent=1)}\n".encode()
    publish(out, files, obsolete=former.list_obsolete(config.name, engines))
    cache.remove_unused()
    return text


def run(options: ExportOptions) -> int:
    """Export unless the output is up to date, and print the report; raises DeblurError."""
    checkpoint = options.checkpoint
    former = read_former_export(options.out)
    try:
        has_files = all(path.exists() for path in list_input_files(checkpoint))
        inputs_sha256 = compute_inputs_digest(checkpoint, options.config) if has_files else ""
    except OSError as error:
        hint = "check its permissions"
        raise InputError(f"cannot be read ({error.strerror})", error.filename, hint=hint) from error
    if has_files and former.is_unchanged(inputs_sha256):
        print(f"nothing has changed: {options.out}")
        return 0
    config = options.config
    try:
        refuse_other_files(options.out, config, former=set(former.files), overwrite=options.overwrite)
        # Importing torch takes seconds, which an export with unchanged inputs does not need.
        from export.loading import load_any_network  # noqa: PLC0415

        network = load_any_network(checkpoint, config)
        with reserve_folder(options.out):
            print(export(network, options, read_former_export(options.out), inputs_sha256=inputs_sha256))
        engine = shlex.quote(str(options.out))
        say(f"engines {options.out}; to restore a clip: deblur --engine {engine} --source CLIP --out sharp.mp4")
    except OSError as error:
        raise output_error(options.out, error) from error
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    namespace = build_parser().parse_args(join_range(sys.argv[1:] if arguments is None else arguments))
    return run_cli(lambda _: run(read_options(namespace)), debug=namespace.debug)


if __name__ == "__main__":
    sys.exit(main())
