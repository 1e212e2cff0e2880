"""The network of an export, whatever its checkpoint is."""

from __future__ import annotations

from pathlib import Path

from export.config import ExportConfig
from export.foreign.load import load_foreign_network
from export.network import Network, load_network
from export.publish import is_foreign
from export.verify import read_pairs
from runtime.errors import UsageError


def load_any_network(checkpoint: Path, config: ExportConfig) -> Network:
    """Return the network of a run, of published weights, or of a foreign ONNX file.

    Raises CheckpointError or EngineError if it cannot be read or used, InputError if the pairs cannot be read, and
    UsageError if a foreign file is to work at half the resolution.
    """
    if is_foreign(checkpoint):
        if config.work_scale > 1:
            raise UsageError(
                "--work-scale is for runs and weights, not for ONNX files", checkpoint, hint="leave it out"
            )
        return load_foreign_network(checkpoint, config.foreign, list(read_pairs(config.pairs)), force=config.force)
    return load_network(checkpoint, name=config.network, options=config.network_options, work_scale=config.work_scale)
