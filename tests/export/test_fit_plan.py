"""Plans of networks for frames of one size."""

from __future__ import annotations

import pytest

from export.chain import _fit_plan_config
from export.plan.config import PlanConfig
from runtime.errors import UsageError


def test_a_plan_has_the_only_size_of_its_network() -> None:
    config = PlanConfig(flavour="tensorrt-rtx", batch=2)
    assert _fit_plan_config(config, None) == config
    fitted = _fit_plan_config(config, (256, 192))
    assert fitted.is_static
    assert fitted.opt_size == (256, 192)
    assert fitted.batch == 2
    assert _fit_plan_config(fitted, (256, 192)) == fitted
    with pytest.raises(UsageError, match="takes frames of 640x480 alone"):
        _fit_plan_config(fitted, (640, 480))
