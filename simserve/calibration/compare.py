"""Measured against predicted: the same requests through the simulation, metric by metric."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from simserve.calibration.figures import Measured, MeasuredRun
from simserve.config import EngineOptions
from simserve.hardware import HardwareProfile
from simserve.metrics.bands import Band
from simserve.metrics.distribution import distribution
from simserve.metrics.latency import e2e_s, tpot_s, ttft_s
from simserve.metrics.records import FINISHED, Records
from simserve.models import ModelSpec
from simserve.simulation import ClosedLoop, Rounds, SimulationResult, Source, simulate, simulate_edges
from simserve.workload import Workload

Floats = npt.NDArray[np.float64]

PER_REQUEST: dict[str, Callable[[Records], Floats]] = {"TTFT": ttft_s, "TPOT": tpot_s, "E2E": e2e_s}


@dataclass(frozen=True)
class Compared:
    """One figure of a run; ``error`` is predicted / measured - 1. Latencies are seconds.

    ``band`` is where the prediction may lie by the profile's own account, see :mod:`simserve.simulation.bands`.
    """

    metric: str
    statistic: str
    measured: float
    predicted: float
    band: Band

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1 if self.measured else math.nan

    @property
    def in_band(self) -> bool:
        """Whether what was measured lies where the prediction says it may."""
        return self.measured in self.band


@dataclass(frozen=True)
class Comparison:
    """All figures of a run, the simulation they come from, and those at both edges of its band."""

    run: MeasuredRun
    result: SimulationResult
    edges: tuple[SimulationResult, SimulationResult]
    figures: list[Compared]

    @property
    def worst(self) -> Compared:
        """The figure that is furthest off."""
        return max(self.figures, key=lambda figure: abs(figure.error))


def compare(
    run: MeasuredRun, model: ModelSpec, hardware: HardwareProfile, options: EngineOptions, repeats: int = 1
) -> Comparison:
    """Simulate what ``run`` sent and compare every figure it measured; raises as ``simulate`` does.

    Where a run's figures are means over ``repeats`` of the same prompts at the same engine, so are the predicted ones.
    """
    workload = run.workload
    # A recorded answer was as long as it was: the end that --max-model-len would bring is in its length already.
    longest = int((workload.input_tokens + workload.output_tokens).max())
    if options.max_model_len is not None and longest > options.max_model_len:
        options = replace(options, max_model_len=longest)
    source: Workload | Source = workload if run.users is None else ClosedLoop(workload, run.users)
    if repeats != 1:
        source = Rounds(workload, repeats, run.users)
    result = simulate(source, model, hardware, options)
    edges = simulate_edges(source, model, hardware, options)
    figures = []
    for figure in run.figures:
        predicted, *others = (_mean_of_rounds(figure, each, repeats) for each in (result, *edges))
        band = Band(min(predicted, *others), max(predicted, *others))
        figures.append(Compared(figure.metric, figure.statistic, figure.value, predicted, band))
    return Comparison(run, result, edges, figures)


def _mean_of_rounds(figure: Measured, result: SimulationResult, rounds: int) -> float:
    return float(np.mean([predicted_figure(figure, _round(result, each, rounds)) for each in range(rounds)]))


def _round(result: SimulationResult, number: int, rounds: int) -> SimulationResult:
    """One round of a run of several; gaps between tokens stay those of all."""
    if rounds == 1:
        return result
    each = len(result.records) // rounds
    rows = slice(number * each, (number + 1) * each)
    columns = {field.name: getattr(result.records, field.name) for field in fields(Records)}
    own = Records(**{name: values if name == "gaps" else values[rows] for name, values in columns.items()})
    duration_s = float(np.nanmax(own.finish_s) - own.arrival_s.min()) if np.any(own.status == FINISHED) else 0.0
    return replace(result, records=own, totals=replace(result.totals, duration_s=duration_s))


def predicted_figure(figure: Measured, result: SimulationResult) -> float:
    """What the simulation says for ``figure``; NaN if it says nothing, as when every request was rejected."""
    records, totals = result.records, result.totals
    if figure.statistic != "total":
        return _latency(figure, records)
    if figure.metric == "duration":
        return totals.duration_s
    done = records.status == FINISHED
    amount = int(done.sum()) if figure.metric == "requests/s" else int(records.output_tokens[done].sum())
    return amount / totals.duration_s if totals.duration_s else math.nan


def _latency(figure: Measured, records: Records) -> float:
    if figure.metric == "ITL":
        values, counts = records.gaps.gap_s, records.gaps.count
    else:
        values, counts = PER_REQUEST[figure.metric](records)[records.status == FINISHED], None
        values = values[~np.isnan(values)]
    if figure.statistic == "mean":
        return distribution(values, (), counts).mean
    return distribution(values, (float(figure.statistic[1:]),), counts).at[0]
