"""Foreign ONNX files read into memory and checked for what the chain cannot take."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto
from onnx.inliner import inline_local_functions

from runtime.errors import EngineError

MIN_OPSET, MAX_OPSET = 11, 23
STANDARD_DOMAINS = ("", "ai.onnx")
_CONTROL_FLOW = {"If", "Loop", "Scan"}


def read_model(path: Path) -> onnx.ModelProto:
    """Return the model in an ONNX file with its external data, and functions of its own inlined.

    Raises EngineError if the file or its data cannot be read, for opsets that are not known, for operators that are
    not ONNX's, and for control flow.
    """
    model = _parse(path)
    model = inline_local_functions(model) if model.functions else model
    opset = max((imported.version for imported in model.opset_import if imported.domain in STANDARD_DOMAINS), default=1)
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise EngineError(
            f"its ONNX opset is {opset}, and {MIN_OPSET} to {MAX_OPSET} are read",
            path,
            hint="export it again with opset 17",
        )
    custom = sorted({f"{node.domain}.{node.op_type}" for node in model.graph.node if _is_custom(node)})
    if custom:
        hint = "export it again with ONNX's own operators, and before any optimiser of a runtime"
        raise EngineError(f"it needs operators that are not ONNX's ({', '.join(custom)})", path, hint=hint)
    control = sorted({node.op_type for node in model.graph.node if _has_subgraph(node)})
    if control:
        hint = "export it again for inference, so that its conditions are constants"
        raise EngineError(f"it decides while it runs ({', '.join(control)})", path, hint=hint)
    return model


def list_files(path: Path) -> list[Path]:
    """Return an ONNX file and the files of its external data; those that do not exist too.

    Raises EngineError if the file cannot be read.
    """
    model = _parse(path, with_data=False)
    names = {
        entry.value for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location"
    }
    return [path, *(path.parent / name for name in sorted(names))]


def _parse(path: Path, *, with_data: bool = True) -> onnx.ModelProto:
    if not path.is_file():
        raise EngineError("no such ONNX file", path, hint="check the path")
    try:
        model = onnx.load(path, load_external_data=with_data)
    except (DecodeError, ValueError) as error:
        raise EngineError(f"not an ONNX file ({_first_line(error)})", path, hint="export it again") from error
    except (OSError, onnx.checker.ValidationError) as error:
        hint = "keep the file that lies beside it, NAME.onnx.data, under its name"
        raise EngineError(f"its external data cannot be read ({_first_line(error)})", path, hint=hint) from error
    if not model.graph.node:
        raise EngineError("not an ONNX file with a network", path, hint="export it again")
    return model


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def _is_custom(node: onnx.NodeProto) -> bool:
    return node.domain not in STANDARD_DOMAINS


def _has_subgraph(node: onnx.NodeProto) -> bool:
    kinds = {AttributeProto.GRAPH, AttributeProto.GRAPHS}
    return node.op_type in _CONTROL_FLOW or any(attribute.type in kinds for attribute in node.attribute)
