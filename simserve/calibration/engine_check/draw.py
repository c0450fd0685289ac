"""Two pictures of a check: every step predicted over measured, and how the requests' latencies are distributed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simserve.calibration.engine_check.compare import KINDS, LATENCIES, EngineCheck, predicted_steps_s
from simserve.calibration.engine_check.ledger import Floats
from simserve.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_check(check: EngineCheck, path: Path) -> None:
    """Draw into ``path`` (.png, .svg or .pdf); raises :class:`ConfigError` if it cannot be written."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 1 + len(LATENCIES), figsize=(16, 3.6), layout="tight")
    steps = [step for run in check.runs for step in run.steps]
    measured_ms = np.array([step.duration_s for step in steps]) * 1e3
    predicted_ms = predicted_steps_s(steps, check.setup.timer) * 1e3
    kinds = np.array([step.composition.kind for step in steps])
    for kind in KINDS:
        chosen = kinds == kind
        panels[0].plot(measured_ms[chosen], predicted_ms[chosen], ".", markersize=3, label=kind)
    ends = [float(measured_ms.min()), float(measured_ms.max())]
    panels[0].plot(ends, ends, "k-", linewidth=0.7)
    panels[0].set(xlabel="measured step, ms", ylabel="predicted step, ms", xscale="log", yscale="log")
    panels[0].legend()
    for panel, (metric, of) in zip(panels[1:], LATENCIES.items(), strict=True):
        for number, run in enumerate(check.runs):
            _draw_shares(panel, run.times.latencies_s[metric], "C0-", "measured" if number == 0 else None)
        _draw_shares(panel, of(check.predicted), "C1--", "predicted")
        panel.set(xlabel=f"{metric}, ms", ylabel="share of requests", ylim=(0, 1))
        panel.legend()
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be drawn ({error}); give a .png, .svg or .pdf") from None
    finally:
        plt.close(figure)


def _draw_shares(panel: Axes, seconds: Floats, style: str, label: str | None) -> None:
    ordered = np.sort(seconds[~np.isnan(seconds)]) * 1e3
    panel.plot(ordered, (np.arange(len(ordered)) + 1) / len(ordered), style, linewidth=0.9, label=label)
