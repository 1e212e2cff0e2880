"""Command modules of other packages that the runtime starts in a subprocess or names in a hint.

The runtime never imports `export`, `train` or `benchmarks`, so import-linter does not see these dependencies. This
file is the only place in `runtime` that names such a module after `python -m`; a test keeps it so.
"""

from __future__ import annotations

EXPORTER = "export"
"""Exports a checkpoint or an ONNX file to engines; named in hints."""
PLAN_BUILDER = "export.plan"
"""Builds a TensorRT plan from an ONNX file; started with `--rebuild` and by `python -m runtime.install --plan`."""
TRITON_EXPORTER = "export.triton"
"""Writes a model repository for a Triton server; named in hints."""
BUNDLE_WRITER = "export.bundle"
"""Writes a bundle for `python -m runtime.install`; named in help texts."""
