"""Plans of FP16 and INT8 engines, by the layer list of TensorRT-RTX's builder, and their table in docs/export.md."""

from __future__ import annotations

from typing import Any

import pytest

from export.plan import builder
from runtime.engines.nvidia import import_tensorrt
from tests.rig.plan_table import BUNDLED_NAMES, TABLE, UNTRAINED_NAMES, build_rows, format_row, format_table

STALE = "docs/export.md is not what the builder makes: pytest tests/export/test_plan_table.py -m '' --write-plans"


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return a list that receives the settings of every build."""
    received: list[Any] = []
    create = builder._create_settings

    def record(*arguments: Any) -> tuple[Any, Any]:
        result = create(*arguments)
        received.append(result[0])
        return result

    monkeypatch.setattr(builder, "_create_settings", record)
    return received


@pytest.mark.parametrize("name", BUNDLED_NAMES)
def test_a_bundled_engine_becomes_a_plan_without_waste(
    name: str, settings: list[Any], request: pytest.FixtureRequest
) -> None:
    scratch: dict[str, list[int]] = {"fp16": [], "int8": []}
    for precision, sizes, sidecar in build_rows(name):
        total = sum(sidecar.convolutions.values())
        expected = {"fp16": {"Half": total}, "int8": {"Half": 4, "Int8": total - 4}}
        assert sidecar.convolutions == expected[precision]
        # One kernel on either side of the network, and the pixel shuffle of the residual at half the resolution.
        assert (sidecar.pixel_kernels, sidecar.reformats) == (2, 1)
        scratch[precision].append(sidecar.scratch_bytes or 0)
        row = format_table([format_row(name, precision, sizes, sidecar)]).splitlines()[-1]
        assert request.config.getoption("--write-plans") or row in TABLE.read().splitlines(), STALE
    for one_size, several_sizes in scratch.values():
        assert 0 < several_sizes <= 1.2 * one_size
    assert scratch["int8"][0] < scratch["fp16"][0]
    flag = import_tensorrt("tensorrt-rtx").BuilderFlag.REQUIRE_USER_ALLOCATION
    assert [setting.get_flag(flag) for setting in settings] == [True] * 4


@pytest.mark.slow
def test_the_table_is_what_the_builder_makes(request: pytest.FixtureRequest) -> None:
    names = (*BUNDLED_NAMES, *UNTRAINED_NAMES)
    table = format_table([format_row(name, *row) for name in names for row in build_rows(name)])
    if request.config.getoption("--write-plans"):
        TABLE.write(table)
    assert TABLE.read() == table, STALE
