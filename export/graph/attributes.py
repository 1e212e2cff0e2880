"""Attributes of ONNX nodes."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import helper


def get_attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes of a node that are set, by name."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def get_attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return an attribute of a node, or `default` if it is not set."""
    return get_attributes(node).get(name, default)
