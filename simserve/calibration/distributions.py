"""Measured and predicted latencies as two curves, and the band of the latter: how many requests had at most so much."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simserve.calibration.compare import PER_REQUEST, Comparison
from simserve.calibration.points import Floats
from simserve.errors import ConfigError
from simserve.metrics.records import FINISHED
from simserve.simulation import SimulationResult

SHARES = np.linspace(0.0, 1.0, 401)


def draw_distributions(comparison: Comparison, path: Path) -> None:
    """Draw one panel per latency that the run gives per request, into ``path`` (.png, .svg or .pdf).

    Raises :class:`ConfigError` if the run gives totals only, or the file cannot be written.
    """
    import matplotlib.pyplot as plt

    measured = comparison.run.latencies_s
    if not measured:
        raise ConfigError(f"{comparison.run.name} has no figures per request, so there is no distribution to draw")
    figure, panels = plt.subplots(1, len(measured), figsize=(4 * len(measured), 3.2), squeeze=False, layout="tight")
    for panel, (metric, values_s) in zip(panels[0], measured.items(), strict=True):
        predicted_ms, *edges_ms = (_at_shares(each, metric) for each in (comparison.result, *comparison.edges))
        ordered = np.sort(values_s[~np.isnan(values_s)]) * 1e3
        panel.plot(ordered, (np.arange(len(ordered)) + 1) / len(ordered), "-", label="measured")
        panel.plot(predicted_ms, SHARES, "--", label="predicted")
        panel.fill_betweenx(SHARES, *edges_ms, alpha=0.2, color="C1", linewidth=0, label="low to high")
        panel.set(xlabel=f"{metric}, ms", ylabel="share of requests", ylim=(0, 1))
        panel.legend()
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be drawn ({error}); give a .png, .svg or .pdf") from None
    finally:
        plt.close(figure)


def _at_shares(result: SimulationResult, metric: str) -> Floats:
    """The latency in ms that each of SHARES of the finished requests had at most."""
    values_s = PER_REQUEST[metric](result.records)[result.records.status == FINISHED]
    return np.asarray(np.quantile(values_s[~np.isnan(values_s)], SHARES) * 1e3)
