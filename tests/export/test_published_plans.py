"""Networks with published checkpoints become TensorRT-RTX plans in every precision, for one size and for several."""

from __future__ import annotations

import pytest

from export.plan.builder import build_plan
from export.plan.config import PlanConfig
from runtime.spec import EngineSpec
from tests.export.test_fuse import REDUCED
from tests.rig.plan_table import make_untrained_engines
from train.weights import PUBLISHED_NETWORKS

TYPES = {"fp32": "Float", "fp16": "Half", "int8": "Int8"}
"""Type in which a plan computes most convolutions of an engine, by its precision."""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", PUBLISHED_NETWORKS)
def test_plans_are_built_in_every_precision(name: str) -> None:
    for precision, model in make_untrained_engines(name, **REDUCED[name]).items():
        total = sum(node.op_type == "Conv" for node in model.graph.node)
        for smallest in ((256, 128), (128, 128)):
            config = PlanConfig(flavour="tensorrt-rtx", min_size=smallest, opt_size=(256, 128), max_size=(256, 128))
            plan, sidecar = build_plan(model.SerializeToString(), EngineSpec(name=name), config, name="x.onnx")
            print(name, precision, smallest, len(plan), total, sidecar.convolutions, sidecar.pixel_kernels)
            assert len(plan) > 0
            assert sidecar.convolutions.get(
                "Half" if precision == "fp16" else "Float" if precision == "fp32" else "Int8"
            )
