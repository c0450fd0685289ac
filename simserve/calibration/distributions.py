"""Measured and predicted latencies as two curves: how many requests had at most so much."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simserve.calibration.compare import PER_REQUEST, Comparison
from simserve.errors import ConfigError
from simserve.metrics.records import FINISHED


def draw_distributions(comparison: Comparison, path: Path) -> None:
    """Draw one panel per latency that the run gives per request, into ``path`` (.png, .svg or .pdf).

    Raises :class:`ConfigError` if the run gives totals only, or the file cannot be written.
    """
    import matplotlib.pyplot as plt

    measured = comparison.run.latencies_s
    if not measured:
        raise ConfigError(f"{comparison.run.name} has no figures per request, so there is no distribution to draw")
    records = comparison.result.records
    done = records.status == FINISHED
    figure, panels = plt.subplots(1, len(measured), figsize=(4 * len(measured), 3.2), squeeze=False, layout="tight")
    for panel, (metric, values_s) in zip(panels[0], measured.items(), strict=True):
        predicted_s = PER_REQUEST[metric](records)[done]
        for label, seconds, style in (("measured", values_s, "-"), ("predicted", predicted_s, "--")):
            ordered = np.sort(seconds[~np.isnan(seconds)]) * 1e3
            panel.plot(ordered, (np.arange(len(ordered)) + 1) / len(ordered), style, label=label)
        panel.set(xlabel=f"{metric}, ms", ylabel="share of requests", ylim=(0, 1))
        panel.legend()
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be drawn ({error}); give a .png, .svg or .pdf") from None
    finally:
        plt.close(figure)
