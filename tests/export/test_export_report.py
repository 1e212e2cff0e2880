"""Plot of latency against PSNR."""

from __future__ import annotations

import numpy as np
from matplotlib import pyplot as plt

from export.report import draw_figure
from export.result import Engine, ExportResult
from export.verify import Quality, Score
from runtime.spec import EngineSpec


def test_the_plot_has_no_negative_times_and_shows_the_blurred_input() -> None:
    engines = {}
    for precision, psnr_db, latency_ms in (("fp32", 32.4, 66.0), ("int8_cpu", 32.3, 5.6)):
        score = Score(psnr_db=psnr_db, ssim=0.9, agreement_db=50.0, worst_image="a", worst_agreement_db=40.0)
        engines[precision] = Engine(b"", EngineSpec(name="deblur", precision=precision), score, latency_ms)
    result = ExportResult(
        engines=engines,
        plans={},
        blurred=Quality(psnr_db=31.5, ssim=0.8),
        macs_before=1.0,
        macs_after=1.0,
        tile_losses_db={},
        calibration=None,
        computed_steps=[],
    )
    figure = draw_figure(result)
    (axes,) = figure.axes
    assert axes.get_xlim()[0] == 0
    points = {str(line.get_label()): tuple(np.ravel(line.get_data())) for line in axes.lines}
    assert points == {"blurred input": (0.0, 31.5), "fp32": (66.0, 32.4), "int8_cpu": (5.6, 32.3)}
    low, high = axes.get_ylim()
    assert low < 31.5
    assert high > 32.4
    plt.close(figure)
